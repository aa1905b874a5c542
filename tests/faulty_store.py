"""A faulty way to the S3 server: an HTTP proxy that refuses, is busy, breaks off or is slow for the keys it is told."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from tests.s3_server import S3Server

Fault = Literal["refuses", "busy", "breaks", "slow"]

_ANSWERS = {"refuses": (403, "AccessDenied"), "busy": (503, "SlowDown")}
_SLOW_PIECE, _SLOW_WAIT_S = 4096, 0.05


@dataclass
class Trouble:
    """A fault over one key: of its first ``times`` requests, or of all."""

    fault: Fault
    times: int | None = None


@dataclass
class FaultyStore:
    """The proxy: who it is, and what has been asked of it."""

    server: S3Server
    endpoint: str = ""
    troubles: Mapping[str, Trouble] = field(default_factory=dict)
    """By the end of the key."""
    asked: Counter[str] = field(default_factory=Counter)
    """Requests that met a trouble, by the end of the key."""

    @property
    def storage_options(self) -> dict[str, dict[str, Any]]:
        return {"s3": {**self.server.storage_options["s3"], "endpoint_url": self.endpoint}}

    def fault(self, path: str) -> Fault | None:
        for name, trouble in self.troubles.items():
            if path.endswith(name):
                self.asked[name] += 1
                return trouble.fault if trouble.times is None or self.asked[name] <= trouble.times else None
        return None


@contextmanager
def faulty_store(server: S3Server, troubles: Mapping[str, Trouble]) -> Iterator[FaultyStore]:
    """A proxy in front of ``server`` that ends with the block."""
    store = FaultyStore(server, troubles=troubles)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = store.fault(self.path.partition("?")[0])
            if fault in _ANSWERS:
                status, code = _ANSWERS[fault]
                text = "" if self.command == "HEAD" else f"<Error><Code>{code}</Code><Message>no</Message></Error>"
                self._answer(status, [("Content-Type", "application/xml")], text.encode())
                return
            if fault == "breaks":
                # A reset, not an orderly end.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True
                return
            host, port = server.endpoint.removeprefix("http://").split(":")
            upstream = http.client.HTTPConnection(host, int(port), timeout=60)
            try:
                upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    upstream.putheader(name, value)
                upstream.endheaders(body)
                answer = upstream.getresponse()
                self._answer(answer.status, answer.getheaders(), answer.read(), slow=fault == "slow")
            finally:
                upstream.close()

        def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, *, slow: bool = False) -> None:
            self.send_response_only(status)
            length = str(len(body))
            for name, value in headers:
                if name.lower() == "content-length":
                    length = value  # of a HEAD: what a GET would give
                elif name.lower() not in ("transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", length)
            self.end_headers()
            for start in range(0, len(body), _SLOW_PIECE if slow else max(len(body), 1)):
                if slow:
                    threading.Event().wait(_SLOW_WAIT_S)
                self.wfile.write(body[start : start + _SLOW_PIECE] if slow else body)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _forward  # noqa: N815  (http.server's names)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.daemon_threads = True
        store.endpoint = f"http://127.0.0.1:{httpd.server_port}"
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        try:
            yield store
        finally:
            httpd.shutdown()

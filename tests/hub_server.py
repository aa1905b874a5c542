"""A small Hugging Face hub on loopback: enough of its HTTP interface for the real huggingface_hub client.

Large files answer with a redirect to a content-addressed store, as on the hub; ranges are honoured there. Faults can
be ordered: a cut connection, a transfer that stalls, content that is not what its name says.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = 1 << 16
"""Files from this size on are stored by their SHA-256, behind a redirect."""


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    range: str | None
    authorization: str | None


@dataclass
class Hub:
    """Repositories and their commits, what was asked of the server, and the faults it is to make."""

    files: dict[tuple[str, str], dict[str, bytes]] = field(default_factory=dict)
    """(repository, commit) -> file name -> content."""
    branches: dict[tuple[str, str], str] = field(default_factory=dict)
    """(repository, branch) -> commit."""
    requests: list[Request] = field(default_factory=list)
    cut_after: int | None = None
    """Close the next large transfer after so many bytes."""
    stall_after: int | None = None
    """Stop sending the next large transfer after so many bytes, and leave the connection open."""
    tampered: bool = False
    """Send large files with their first byte changed."""
    stalled: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    url: str = ""
    store: str = ""
    """Address of the content-addressed store: the same server by another host name, as the hub's is another host."""

    def commit(self, repository: str, files: dict[str, bytes], *, branch: str = "main") -> str:
        """Publish ``files`` as the head of ``branch``; returns the commit."""
        text = repr((repository, sorted((n, hashlib.sha256(c).hexdigest()) for n, c in files.items())))
        commit = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        self.files[repository, commit] = files
        self.branches[repository, branch] = commit
        return commit

    def transfers(self) -> list[Request]:
        """Requests that asked for content."""
        return [r for r in self.requests if r.method == "GET"]


@contextmanager
def serve() -> Iterator[Hub]:
    """A running hub; its address is ``Hub.url``."""
    hub = Hub()

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    hub.store = f"http://localhost:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(
            Request(self.command, path, self.headers.get("Range"), self.headers.get("Authorization"))
        )
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(*match.groups())
        elif match := re.fullmatch(r"/store/([0-9a-f]{64})", path):
            self._store(match[1])
        else:
            self._refuse("RepoNotFound")

    def _resolve(self, repository: str, revision: str, name: str) -> None:
        commit = self.hub.branches.get((repository, revision), revision)
        files = self.hub.files.get((repository, commit))
        if files is None:
            known = any(repository == repo for repo, _ in self.hub.files)
            self._refuse("RevisionNotFound" if known else "RepoNotFound")
            return
        if name not in files:
            self._refuse("EntryNotFound", {"X-Repo-Commit": commit})
            return
        content = files[name]
        sha256 = hashlib.sha256(content).hexdigest()
        if len(content) < LARGE:
            etag = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
            self._send(200, content, {"X-Repo-Commit": commit, "ETag": f'"{etag}"'})
            return
        headers = {
            "X-Repo-Commit": commit,
            "X-Linked-Etag": f'"{sha256}"',
            "X-Linked-Size": str(len(content)),
            "Location": f"{self.hub.store}/store/{sha256}",
        }
        self._send(302, b"", headers)

    def _store(self, sha256: str) -> None:
        contents = (c for files in self.hub.files.values() for c in files.values())
        content = next(c for c in contents if hashlib.sha256(c).hexdigest() == sha256)
        if self.hub.tampered:
            content = bytes([content[0] ^ 1]) + content[1:]
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(match[1]) if match else 0
        headers = {"ETag": f'"{sha256}"', "Accept-Ranges": "bytes"}
        if match:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._send(206 if match else 200, content[start:], headers)

    def _refuse(self, code: str, headers: dict[str, str] | None = None) -> None:
        self._send(404, b"", {"X-Error-Code": code, "X-Error-Message": code, **(headers or {})})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        hub = self.hub
        if len(body) >= LARGE and hub.cut_after is not None:
            cut, hub.cut_after = hub.cut_after, None
            self.wfile.write(body[:cut])
            self.close_connection = True
        elif len(body) >= LARGE and hub.stall_after is not None:
            stall, hub.stall_after = hub.stall_after, None
            self.wfile.write(body[:stall])
            self.wfile.flush()
            hub.stalled.set()
            hub.released.wait()
            self.close_connection = True
        else:
            self.wfile.write(body)

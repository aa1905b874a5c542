"""Storage on a real S3 server and a disk: what is tried is taken away again, whatever happens."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.config import RunSettings
from pipeline.doctor import storage
from pipeline.doctor.examine import Check, examine
from pipeline.doctor.finding import Finding, Request
from tests.s3_server import S3Server


def look(output: str | Path, options: dict[str, dict[str, object]] | None = None) -> list[Finding]:
    return list(storage.check(Request(output=str(output), settings=RunSettings(storage_options=options or {}))))


def test_a_disk_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    written, lease = look(tmp_path / "new" / "out")
    assert (written.status, lease.status) == ("ok", "ok")
    assert lease.facts == {"lease_exact": True}
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_folders_place_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here first")
    (found,) = look(tmp_path / "file" / "out")
    assert found.status == "fail"
    assert str(tmp_path / "file") in found.message


def test_a_bucket_is_tried_and_left_as_it_was(s3: S3Server) -> None:
    bucket = s3.bucket()
    written, lease = look(f"s3://{bucket}/runs/one", s3.storage_options)
    assert (written.status, lease.status) == ("ok", "ok")
    assert lease.facts == {"lease_exact": True}
    assert s3.keys(bucket) == set()


def test_a_bucket_that_is_not_there_and_a_wrong_key_fail(s3: S3Server) -> None:
    (absent,) = look("s3://nowhere-at-all/out", s3.storage_options)
    wrong = {"s3": s3.storage_options["s3"] | {"secret": "wrong"}}
    (refused,) = look(f"s3://{s3.bucket()}/out", wrong)
    assert (absent.status, refused.status) == ("fail", "fail")
    assert "can't be written" in refused.message
    assert "wrong" not in refused.message


def test_an_unknown_protocol_fails() -> None:
    (found,) = look("sss://bucket/out")
    assert found.status == "fail"


@contextmanager
def heedless(server: S3Server) -> Iterator[str]:
    """The address of a server in front of the real one that knows no conditions, as older stores are."""
    target = urlsplit(server.endpoint)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            unconditional = {k: v for k, v in self.headers.items() if k.lower() not in ("if-match", "if-none-match")}
            connection = HTTPConnection(str(target.hostname), target.port, timeout=30)
            connection.request(self.command, self.path, body, unconditional)
            answer = connection.getresponse()
            content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "content-length", "connection", "date", "server"):
                    self.send_header(name, value)
            length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
            self.send_header("Content-Length", length or "0")
            self.end_headers()
            self.wfile.write(content)
            connection.close()

        do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = pass_on  # noqa: N815  (the names that the server calls)

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    front = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    front.daemon_threads = True
    threading.Thread(target=front.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{front.server_address[1]}"
    finally:
        front.shutdown()
        front.server_close()


def test_a_store_without_conditional_writes_is_told_apart(s3: S3Server) -> None:
    bucket = s3.bucket()
    with heedless(s3) as endpoint:
        options = {"s3": s3.storage_options["s3"] | {"endpoint_url": endpoint}}
        written, lease = look(f"s3://{bucket}/out", options)
    assert (written.status, lease.status) == ("ok", "note")
    assert lease.facts == {"lease_exact": False}
    assert "one run at a time" in lease.hint
    assert s3.keys(bucket) == set()


def test_a_store_of_another_kind_keeps_nobody_out() -> None:
    written, lease = look("memory://doctor/out")
    assert (written.status, lease.status) == ("ok", "note")


def test_a_store_that_never_answers_is_cut_off() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        options = {"s3": {"key": "k", "secret": "s", "endpoint_url": f"http://127.0.0.1:{silent.getsockname()[1]}"}}
        request = Request(output="s3://bucket/out", settings=RunSettings(storage_options=options))
        (found,) = examine(Check("storage", "pipeline.doctor.storage:check", 10.0), request)
    assert (found.status, found.message) == ("fail", "no answer within 10 s")

"""Rows of a stranger's manifest reach neither the workers' files nor their networks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.config import InputLimits, RetrySettings, RunSettings
from pipeline.errors import InputError
from pipeline.inputs import allowed
from pipeline.inputs.fetch import UNKNOWN, fetched, identity
from tests.s3_server import S3Server

CLOSED = InputLimits(local_files=False, private_addresses=False)


def settings(limits: InputLimits = CLOSED, **options: object) -> RunSettings:
    return RunSettings(limits=limits, retries=RetrySettings(attempts=1), **options)


@dataclass
class Web:
    """A server on loopback, and what it was asked for."""

    url: str
    asked: list[str] = field(default_factory=list)


@contextmanager
def served(host: str, redirect: str | None = None) -> Iterator[Web]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            web.asked.append(self.path)
            self.send_response(200 if redirect is None else 302)
            self.send_header("Content-Length", "5")
            if redirect is not None:
                self.send_header("Location", redirect)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(b"sound")

        def do_HEAD(self) -> None:
            self.do_GET()

    server = ThreadingHTTPServer((host, 0), Handler)
    web = Web(f"http://{host}:{server.server_address[1]}/a.wav")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()


def refusal(uri: str, limits: InputLimits = CLOSED) -> InputError:
    with pytest.raises(InputError) as caught, fetched(uri, settings(limits)):
        raise AssertionError(f"{uri} was opened")
    return caught.value


@pytest.mark.parametrize("form", ["{}", "file://{}", "local://{}"])
def test_local_files_are_opened_unless_they_are_off(form: str, tmp_path: Path) -> None:
    path = tmp_path / "secret.wav"
    path.write_bytes(b"sound")
    uri = form.format(path)
    refused = refusal(uri)
    assert "local files are off" in refused.message
    assert "limits.local_files" in (refused.hint or "")
    assert identity(uri, {}, CLOSED) == UNKNOWN
    with fetched(uri, settings(InputLimits())) as source:
        assert source.size == 5


@pytest.mark.parametrize(
    "uri", ["FILE:///etc/hostname", "chained::file:///etc/hostname", "http://[::ffff:7f00:1]/a.wav"]
)
def test_other_spellings_open_nothing(uri: str) -> None:
    refusal(uri)
    assert identity(uri, {}, CLOSED) == UNKNOWN


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_a_server_in_a_private_network_is_not_even_asked(name: str) -> None:
    with served("127.0.0.1") as web:
        uri = web.url.replace("127.0.0.1", name)
        refused = refusal(uri)
        assert "private network" in refused.message
        assert "limits.private_addresses" in (refused.hint or "")
        assert identity(uri, {}, CLOSED) == UNKNOWN
        assert web.asked == []
        with fetched(uri, settings(InputLimits())) as source:
            assert source.size == 5


def test_a_redirect_does_not_lead_there_either(monkeypatch: pytest.MonkeyPatch) -> None:
    is_public = allowed._is_public
    monkeypatch.setattr(allowed, "_is_public", lambda host: host == "127.0.0.1" or is_public(host))
    with served("127.0.0.2") as inner, served("127.0.0.1", redirect=inner.url) as outer:
        assert "127.0.0.2 is an address of a private network" in refusal(outer.url).message
        assert outer.asked and not inner.asked


@pytest.mark.parametrize("uri", ["sftp://10.0.0.1/a.wav", "ftp://10.0.0.1/a.wav", "smb://10.0.0.1/a.wav"])
def test_protocols_with_servers_of_the_rows_choice_are_off(uri: str) -> None:
    assert "may lead into a private network" in refusal(uri).message


def test_stores_are_those_of_the_options(s3: S3Server) -> None:
    bucket = s3.bucket()
    s3.client.put_object(Bucket=bucket, Key="a.wav", Body=b"sound")
    with fetched(f"s3://{bucket}/a.wav", settings(storage_options=s3.storage_options)) as source:
        assert source.size == 5


@pytest.mark.parametrize(
    ("host", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.0.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),  # noqa: S104  (an address to refuse)
        ("224.0.0.1", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:10.0.0.1", False),
        ("2002:0a00:0001::", False),
        ("64:ff9b::a00:1", False),
        ("64:ff9b::5db8:d822", True),
    ],
)
def test_what_a_public_address_is(host: str, public: bool) -> None:
    assert allowed._is_public(host) == public

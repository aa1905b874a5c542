"""Inputs come as local files or as the right kind of error, and nothing is left behind."""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import InputLimits, RetrySettings, RunSettings
from pipeline.errors import InputError, ItemError
from pipeline.inputs.fetch import UNKNOWN, fetched, identities, identity, redacted
from tests.s3_server import S3Server

CONTENT = np.random.default_rng(1).bytes(200_000)
LIMITS = InputLimits()
SMALL = RunSettings(limits=InputLimits(max_file_bytes=300_000), retries=RetrySettings(attempts=2, first_wait_s=0.01))


class _Handler(BaseHTTPRequestHandler):
    sent: int

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        name = self.path.split("?")[0].strip("/")
        statuses = {"forbidden": 403, "unauthorised": 401, "missing": 404, "gone": 410, "broken": 500}
        if name in statuses:
            self.send_error(statuses[name])
            return
        length = {"huge": 10**12, "endless": None, "cut": len(CONTENT) + 1000}.get(name, len(CONTENT))
        self.send_response(200)
        if length is not None:
            self.send_header("Content-Length", str(length))
        if name in ("one", "two"):
            self.send_header("ETag", f'"{name}"')
        self.end_headers()
        if not body:
            return
        try:
            self._write(CONTENT)
            while name in ("huge", "endless"):
                self._write(CONTENT)
        except OSError:
            return  # the client has had enough

    def _write(self, data: bytes) -> None:
        self.wfile.write(data)
        type(self).sent += len(data)


@pytest.fixture
def web() -> Iterator[str]:
    _Handler.sent = 0
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary files go; none may be left."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


def failure(uri: str, settings: RunSettings = SMALL) -> ItemError:
    with pytest.raises(ItemError) as caught, fetched(uri, settings):
        pytest.fail("fetched")
    assert caught.value.hint
    assert "\n" not in caught.value.message
    return caught.value


def put(s3: S3Server, key: str = "media/a.wav", data: bytes = CONTENT, bucket: str | None = None) -> str:
    bucket = bucket or s3.bucket()
    s3.client.put_object(Bucket=bucket, Key=key, Body=data)
    return f"s3://{bucket}/{key}"


def with_s3(s3: S3Server) -> RunSettings:
    return SMALL.model_copy(update={"storage_options": s3.storage_options})


def check_whole(uri: str, settings: RunSettings, suffix: str) -> None:
    with fetched(uri, settings) as local:
        assert local.uri == uri
        assert local.path.read_bytes() == CONTENT
        assert local.path.suffix == suffix
        assert local.size == len(CONTENT)
        assert local.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert not local.path.exists()


def test_a_local_file(tmp_path: Path) -> None:
    path = tmp_path / "ä b[1]*.wav"
    path.write_bytes(CONTENT)
    check_whole(str(path), SMALL, ".wav")
    check_whole(f"file://{path}", SMALL, ".wav")
    assert path.exists()


def test_the_copy_is_independent_of_the_original(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(CONTENT)
    with fetched(str(path), SMALL) as local:
        path.write_bytes(b"changed meanwhile")
        assert local.path.read_bytes() == CONTENT


def test_an_object(s3: S3Server) -> None:
    check_whole(put(s3), with_s3(s3), ".wav")


def test_a_large_object_in_parts(s3: S3Server) -> None:
    data = np.random.default_rng(2).bytes((17 << 20) + 3)
    uri = put(s3, "media/large.mp4", data)
    with fetched(uri, RunSettings(storage_options=s3.storage_options)) as local:
        assert local.size == len(data)
        assert local.sha256 == hashlib.sha256(data).hexdigest()


def test_a_web_address(web: str) -> None:
    check_whole(f"{web}/media/a.wav?token=secret", SMALL, ".wav")


def test_a_signed_address_of_an_object(s3: S3Server) -> None:
    _, bucket, key = put(s3).replace("//", "/").split("/", 2)
    signed = s3.client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": key})
    check_whole(signed, SMALL, ".wav")
    # Without its signature it is refused, with it for another object too; neither shows the signature.
    refused = failure(signed.split("?")[0])
    assert refused.kind == "infrastructure"
    other = failure(signed.replace("a.wav", "b.wav"))
    assert "Signature" in signed
    assert "Signature=" not in other.message + other.hint
    # HEAD is not what was signed, so GET answers.
    assert identity(signed, {}, LIMITS) not in (None, UNKNOWN)


def test_a_failure_inside_the_block_leaves_nothing_either(tmp_path: Path, temporary: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(CONTENT)
    with pytest.raises(KeyError), fetched(str(path), SMALL):
        assert list(temporary.iterdir())
        raise KeyError("a stage's defect")


def test_a_missing_input_is_the_items_fault(tmp_path: Path, web: str, s3: S3Server) -> None:
    (tmp_path / "file").write_bytes(b"")
    for uri, settings in (
        (f"{tmp_path}/absent.wav", SMALL),
        (f"{tmp_path}/file/absent.wav", SMALL),
        (f"file://{tmp_path}/absent.wav", SMALL),
        (f"{web}/missing", SMALL),
        (f"{web}/gone", SMALL),
        (put(s3).replace("a.wav", "b.wav"), with_s3(s3)),
        (put(s3).removesuffix("/a.wav"), with_s3(s3)),
        ("s3://no-such-bucket/a.wav", with_s3(s3)),
    ):
        error = failure(uri, settings)
        assert isinstance(error, InputError)
        assert error.message == f"{uri} does not exist"
        assert "manifest" in error.hint


def test_what_is_too_large_is_refused_without_reading_it_all(tmp_path: Path, web: str, s3: S3Server) -> None:
    large = tmp_path / "large.wav"
    with large.open("wb") as file:
        file.truncate(10**10)
    for uri, settings in (
        (str(large), SMALL),
        (put(s3, data=bytes(300_001)), with_s3(s3)),
        (f"{web}/huge", SMALL),
        (f"{web}/endless", SMALL),
    ):
        error = failure(uri, settings)
        assert isinstance(error, InputError)
        assert error.message == f"{uri} is larger than the limit of 300000 bytes"
        assert "max_file_bytes" in error.hint
    # What sockets and one chunk hold, not the terabyte.
    assert _Handler.sent < 40_000_000


def test_a_file_of_exactly_the_limit_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(bytes(300_000))
    with fetched(str(path), SMALL) as local:
        assert local.size == 300_000


def test_a_store_that_trickles_is_given_up(web: str) -> None:
    hasty = InputLimits(max_file_bytes=10**13, max_fetch_s=0.1)
    error = failure(f"{web}/endless", SMALL.model_copy(update={"limits": hasty}))
    assert error.kind == "infrastructure"
    assert "took longer than 0.1 s" in error.message


def test_refusals_and_failures_are_nobodys_input(web: str, s3: S3Server) -> None:
    wrong = {"s3": {**s3.storage_options["s3"], "secret": "wrong-secret"}}
    once = {"retries": {"total_max_attempts": 1}}
    away = {"s3": {**s3.storage_options["s3"], "endpoint_url": "http://127.0.0.1:1", "config_kwargs": once}}
    for uri, options, words in (
        (f"{web}/forbidden", {}, "was refused: ClientResponseError: 403"),
        (f"{web}/unauthorised", {}, "was refused: ClientResponseError: 401"),
        (f"{web}/broken", {}, "failed: ClientResponseError: 500"),
        (f"{web}/cut", {}, "failed: ClientPayloadError"),
        ("http://127.0.0.1:1/a.wav", {}, "failed: ClientConnectorError"),
        (put(s3), wrong, "was refused: PermissionError"),
        (put(s3), away, "failed: EndpointConnectionError"),
        ("gs://bucket/a.wav", {}, "can't be opened: ImportError"),
    ):
        error = failure(uri, SMALL.model_copy(update={"storage_options": options}))
        assert error.kind == "infrastructure"
        assert words in error.message
        assert "wrong-secret" not in error.message


@pytest.mark.parametrize(
    "uri",
    [
        "simplecache::http://127.0.0.1:1/a.wav",
        "filecache::file:///etc/passwd",
        "zip://passwd::file:///etc/archive.zip",
        "tar://a.wav::s3://bucket/a.tar",
        "zip://a.wav",
        "reference://a.wav",
        "nosuch://host/a.wav",
        "http://[::1]:1/a.wav",
        "s3://Not A Bucket/a.wav",
        "/data/a\0.wav",
        "/dev/zero",
        "/etc",
    ],
)
def test_what_is_not_the_plain_uri_of_a_file(uri: str) -> None:
    error = failure(uri)
    assert isinstance(error, InputError)
    assert "can't be opened" in error.message
    assert error.hint == "give the plain URI of one file"


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.wav")
    assert isinstance(failure(str(tmp_path / "a.wav")), InputError)


@pytest.mark.parametrize("path", ["forbidden", "broken", "missing", "huge"])
def test_no_secret_of_an_address_is_told(web: str, path: str) -> None:
    address = web.replace("//", "//user:passw0rd@") + f"/{path}?X-Amz-Signature=s3cret&other=1"
    error = failure(address)
    told = error.message + error.hint + str(error)
    assert "passw0rd" not in told
    assert "s3cret" not in told
    assert f"/{path}?***" in error.message


def test_redaction() -> None:
    assert redacted("https://a.b/c.wav?sig=x%20y&z=1 is gone") == "https://a.b/c.wav?*** is gone"
    assert redacted("url='http://u:p@h:1/x?q'") == "url='http://***@h:1/x?***'"
    assert redacted("ftp://u:p@h/x, s3://bucket/me@home.wav") == "ftp://***@h/x, s3://bucket/me@home.wav"
    assert redacted("/data/what? me@home.wav") == "/data/what? me@home.wav"


def test_a_local_identity_changes_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    assert identity(str(path), {}, LIMITS) is None
    assert identity(f"{tmp_path}/a.wav/b", {}, LIMITS) is None
    path.write_bytes(b"one")
    os.utime(path, (1, 1))
    first = identity(str(path), {}, LIMITS)
    assert first not in (None, UNKNOWN)
    assert identity(str(path), {}, LIMITS) == first
    os.utime(path, (2, 2))
    second = identity(str(path), {}, LIMITS)
    path.write_bytes(b"other")
    os.utime(path, (2, 2))
    third = identity(str(path), {}, LIMITS)
    assert len({first, second, third}) == 3
    path.unlink()
    assert identity(str(path), {}, LIMITS) is None


def test_an_objects_identity_changes_with_its_content(s3: S3Server) -> None:
    options = s3.storage_options
    uri = put(s3, data=b"one")
    bucket = uri.split("/")[2]
    first = identity(uri, options, LIMITS)
    assert first not in (None, UNKNOWN)
    put(s3, data=b"one", bucket=bucket)
    assert identity(uri, options, LIMITS) == first
    put(s3, data=b"two", bucket=bucket)
    assert identity(uri, options, LIMITS) not in (first, None, UNKNOWN)
    s3.client.delete_object(Bucket=bucket, Key="media/a.wav")
    assert identity(uri, options, LIMITS) is None
    assert identity("s3://no-such-bucket/a.wav", options, LIMITS) is None


def test_many_objects_of_a_folder_have_the_identities_they_have_alone(s3: S3Server) -> None:
    bucket = s3.bucket()
    for number in range(120):
        put(s3, f"media/{number}.wav", str(number).encode(), bucket)
    uris = [f"s3://{bucket}/media/{number}.wav" for number in range(121)]
    found = identities([*uris, *uris], s3.storage_options, LIMITS)
    assert list(found) == uris
    assert found[uris[120]] is None
    assert len(set(found.values())) == 121
    assert {uri: identity(uri, s3.storage_options, LIMITS) for uri in uris[::40]} == {
        uri: found[uri] for uri in uris[::40]
    }
    put(s3, "media/7.wav", b"changed", bucket)
    again = identities(uris, s3.storage_options, LIMITS)
    assert [uri for uri in uris if again[uri] != found[uri]] == [uris[7]]


def test_web_addresses_are_known_by_their_tags_or_not_at_all(web: str) -> None:
    one, two = identity(f"{web}/one", {}, LIMITS), identity(f"{web}/two", {}, LIMITS)
    assert one == f'{len(CONTENT)}:"one"'
    assert two == f'{len(CONTENT)}:"two"'
    assert identity(f"{web}/untagged", {}, LIMITS) == UNKNOWN
    assert identity(f"{web}/missing", {}, LIMITS) is None
    assert identity(f"{web}/gone", {}, LIMITS) is None


def test_what_can_not_be_asked_is_unknown_and_not_missing(web: str, s3: S3Server) -> None:
    once = {"retries": {"total_max_attempts": 1}}
    away = {"s3": {**s3.storage_options["s3"], "endpoint_url": "http://127.0.0.1:1", "config_kwargs": once}}
    uris = [f"{web}/forbidden", f"{web}/broken", "http://127.0.0.1:1/a.wav", "s3://bucket/a.wav", "gs://bucket/a"]
    uris += ["nosuch://a/b", "zip://a::file:///b"]
    assert identities(uris, away, LIMITS) == dict.fromkeys(uris, UNKNOWN)

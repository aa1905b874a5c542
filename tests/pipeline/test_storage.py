"""The same promises on a local disk and on a real S3 server."""

from __future__ import annotations

import hashlib
import os
import pickle
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import RetrySettings
from pipeline.errors import CannotRun, ItemError, error_record
from pipeline.retry import Retries, noting
from pipeline.storage import StorageError, Store
from tests.faulty_store import Fault, Trouble, faulty_store
from tests.s3_server import S3Server, cut_link


@dataclass
class Place:
    """An output and what is really in it, seen past the code under test."""

    uri: str
    store: Store
    s3: S3Server | None = None
    bucket: str = ""

    def another(self) -> Store:
        """The same output as another worker opens it."""
        return Store(self.uri, self.s3.storage_options if self.s3 else {})

    def keys(self) -> set[str]:
        if self.s3:
            return {key.removeprefix("run/") for key in self.s3.keys(self.bucket)}
        return {path.relative_to(self.uri).as_posix() for path in Path(self.uri).rglob("*") if path.is_file()}

    def delete(self, key: str) -> None:
        if self.s3:
            self.s3.client.delete_object(Bucket=self.bucket, Key=f"run/{key}")
        else:
            (Path(self.uri) / key).unlink()


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "local":
        uri = str(tmp_path / "run")
        return Place(uri, Store(uri, {}))
    s3: S3Server = request.getfixturevalue("s3")
    bucket = s3.bucket()
    uri = f"s3://{bucket}/run"
    return Place(uri, Store(uri, s3.storage_options), s3, bucket)


def random_file(path: Path, size: int) -> Path:
    path.write_bytes(np.random.default_rng(0).bytes(size))
    return path


def test_bytes_come_back_and_are_replaced(place: Place) -> None:
    for data in (b"one", b"", bytes(300_000)):
        place.store.put_bytes("items/a.json", data)
        assert place.store.get_bytes("items/a.json") == data
        assert place.another().get_bytes("items/a.json") == data
    assert place.keys() == {"items/a.json"}
    assert place.store.url("items/a.json") == f"{place.uri}/items/a.json"


def test_all_files_of_a_folder_are_listed_and_deleted_together(place: Place) -> None:
    names = {f"cache/motion/{number:02}/{number}.npz": number for number in range(5)}
    for name, size in names.items():
        place.store.put_bytes(name, bytes(size))
    place.store.put_bytes("cached/other.npz", b"x")
    found = place.store.files("cache")
    assert {name: stored.size for name, stored in found.items()} == names
    assert all(abs(stored.modified - time.time()) < 600 for stored in found.values())
    assert place.store.files("nothing") == {}
    place.store.delete_many([*list(names)[1:], "cache/never/was.npz"])
    assert place.keys() == {"cached/other.npz", "cache/motion/00/0.npz"}
    place.store.delete_many(["cache/motion/00/0.npz"])
    assert place.keys() == {"cached/other.npz"}
    if not place.s3:
        assert [path.name for path in Path(place.uri).iterdir()] == ["cached"]


def test_nothing_under_a_key_is_file_not_found(place: Place, tmp_path: Path) -> None:
    place.store.put_bytes("items/a.json", b"x")
    with pytest.raises(FileNotFoundError):
        place.store.get_bytes("items/b.json")
    with pytest.raises(FileNotFoundError):
        place.store.get_arrays("cache/b.npz")
    with pytest.raises(FileNotFoundError):
        place.store.get_file("items/b.json", tmp_path / "b")
    assert place.store.list("nothing") == set()


def test_a_store_knows_at_once_what_was_put_or_deleted_by_whomever(place: Place) -> None:
    other = place.another()
    for store in (place.store, other):
        assert store.list("items") == set()
        assert not store.exists("items/a.json")
    place.store.put_bytes("items/a.json", b"x")
    for store in (place.store, other):
        assert store.exists("items/a.json")
        assert store.list("items") == {"items/a.json"}
    other.put_bytes("items/b.json", b"y")
    for store in (place.store, other):
        assert store.exists("items/b.json")
        assert store.list("items") == {"items/a.json", "items/b.json"}
    place.delete("items/a.json")
    for store in (place.store, other):
        assert not store.exists("items/a.json")
        assert store.list("items") == {"items/b.json"}
        assert store.get_many(["items/a.json", "items/b.json"]) == {"items/b.json": b"y"}


def test_a_folder_is_no_object(place: Place) -> None:
    place.store.put_bytes("items/_invalid/3.json", b"x")
    assert not place.store.exists("items/_invalid")
    assert not place.store.exists("items")
    assert place.store.list("items") == {"items/_invalid"}
    assert place.store.list("items/_invalid") == {"items/_invalid/3.json"}


def test_more_keys_than_a_page_holds(place: Place) -> None:
    keys = {f"items/item-{number:04}.json" for number in range(1100)}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: place.store.put_bytes(key, key.encode()), keys))
    assert place.another().list("items") == keys
    found = place.another().get_many([*keys, "items/absent.json", *sorted(keys)[:5]])
    assert found == {key: key.encode() for key in keys}


def test_a_mark_changes_with_every_write_and_with_nothing_else(place: Place) -> None:
    assert place.store.marks("items") == {}
    place.store.put_bytes("items/a.json", b"one")
    place.store.put_bytes("items/b.json", b"one")
    place.store.put_bytes("items/_invalid/3.json", b"x")
    seen = [place.store.marks("items")]
    assert set(seen[0]) == {"items/a.json", "items/b.json"}, "folders have none"
    assert all(seen[0].values())
    assert place.another().marks("items") == seen[0]
    # As long as what it replaces, and at once.
    for data in (b"two", b"ten", b"six"):
        place.store.put_bytes("items/a.json", data)
        seen.append(place.store.marks("items"))
    assert len({marks["items/a.json"] for marks in seen}) == 4
    assert len({marks["items/b.json"] for marks in seen}) == 1


def test_what_is_deleted_is_gone_and_deleting_nothing_is_no_failure(place: Place) -> None:
    place.store.put_bytes("items/a.json", b"x")
    place.store.put_bytes("items/b.json", b"x")
    for _ in range(2):
        place.store.delete("items/a.json")
        assert place.keys() == {"items/b.json"}
        assert set(place.another().marks("items")) == {"items/b.json"}


def test_files_that_are_being_written_have_no_marks(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "run"), {})
    store.put_bytes("items/a.json", b"x")
    (tmp_path / "run" / "items" / ".b.json.0123.part").write_bytes(b"half")
    assert set(store.marks("items")) == {"items/a.json"}


def test_get_many_of_nothing(place: Place) -> None:
    assert place.store.get_many([]) == {}
    assert place.store.get_many(["items/absent.json"]) == {}


def test_an_output_whose_name_looks_like_a_pattern(place: Place) -> None:
    place.store.put_bytes("run1/items/a.json", b"of another run")
    awkward = f"{place.uri}/run[1]* of today"
    store = Store(awkward, place.s3.storage_options if place.s3 else {})
    store.put_bytes("items/a.json", b"a")
    assert store.list("items") == {"items/a.json"}
    assert store.get_many(["items/a.json", "items/b.json"]) == {"items/a.json": b"a"}
    assert store.exists("items/a.json")


def test_large_files_come_back_whole(place: Place, tmp_path: Path) -> None:
    source = random_file(tmp_path / "large.mp4", (17 << 20) + 1)
    place.store.put_file(source, "videos/large.mp4")
    place.store.get_file("videos/large.mp4", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    assert source.exists()
    if place.s3:
        head = place.s3.client.head_object(Bucket=place.bucket, Key="run/videos/large.mp4")
        # The server names a multipart object by a hash and the number of its parts.
        assert head["ETag"].strip('"').endswith("-3")
        assert place.s3.unfinished_uploads(place.bucket) == []


def test_arrays_keep_their_names_types_and_shapes(place: Place) -> None:
    arrays: dict[str, np.ndarray] = {
        "image": np.arange(48, dtype=np.uint8).reshape(4, 4, 3),
        "motion": np.linspace(0, 1, 64, dtype=np.float32).reshape(2, 32),
        "faces_seen": np.array(-1),
    }
    place.store.put_arrays("cache/crop/a.npz", arrays)
    back = place.store.get_arrays("cache/crop/a.npz")
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype
        np.testing.assert_array_equal(back[name], array)


def test_arrays_of_objects_are_not_unpickled(place: Place) -> None:
    place.store.put_arrays("cache/a.npz", {"x": np.array([{}], dtype=object)})
    with pytest.raises(ValueError, match="allow_pickle"):
        place.store.get_arrays("cache/a.npz")


def test_an_upload_without_its_file_leaves_nothing(place: Place, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"writing .*/videos/a\.mp4 failed: FileNotFoundError"):
        place.store.put_file(tmp_path / "vanished.mp4", "videos/a.mp4")
    assert place.keys() == set()
    assert not place.store.exists("videos/a.mp4")


def test_an_upload_that_breaks_leaves_the_old_object(s3: S3Server, tmp_path: Path) -> None:
    bucket = s3.bucket()
    good = Store(f"s3://{bucket}/run", s3.storage_options)
    good.put_bytes("videos/a.mp4", b"old")
    source = random_file(tmp_path / "large.mp4", 20 << 20)
    with cut_link(s3, after_bytes=3 << 20) as endpoint:
        once = {"retries": {"total_max_attempts": 1}}
        options = {"s3": {**s3.storage_options["s3"], "endpoint_url": endpoint, "config_kwargs": once}}
        store = Store(f"s3://{bucket}/run", options)
        assert store.get_bytes("videos/a.mp4") == b"old"  # the link itself works
        with pytest.raises(StorageError, match=r"writing s3://.*/videos/a\.mp4 failed"):
            store.put_file(source, "videos/a.mp4")
        with pytest.raises(StorageError):
            store.put_file(source, "videos/b.mp4")
    assert good.get_bytes("videos/a.mp4") == b"old"
    assert s3.keys(bucket) == {"run/videos/a.mp4"}
    assert s3.unfinished_uploads(bucket) == []


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    """As a disk that is full: writes beyond ``size`` bytes fail (Python ignores the signal that comes with it)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_local_write_that_fails_leaves_the_old_file_alone(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "run"), {})
    store.put_bytes("videos/a.mp4", b"old")
    source = random_file(tmp_path / "large.mp4", 3 << 20)
    with no_file_longer_than(1 << 20):
        with pytest.raises(StorageError, match="File too large"):
            store.put_file(source, "videos/a.mp4")
        with pytest.raises(StorageError, match="File too large"):
            store.put_bytes("videos/b.mp4", bytes(3 << 20))
    assert [path.name for path in (tmp_path / "run" / "videos").iterdir()] == ["a.mp4"]
    assert store.get_bytes("videos/a.mp4") == b"old"


def test_readers_of_a_local_output_never_see_a_part_of_a_file(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "run"), {})
    store.put_bytes("videos/a.mp4", b"old")
    slow = tmp_path / "slow"
    os.mkfifo(slow)
    writers = [threading.Thread(target=store.put_file, args=(slow, key)) for key in ("videos/a.mp4", "videos/b.mp4")]
    for writer, key, before in zip(writers, ("videos/a.mp4", "videos/b.mp4"), (b"old", None), strict=True):
        writer.start()
        with slow.open("wb") as pipe:
            # A pipe holds 64 KB: when this returns, the writer is past the middle of the file.
            pipe.write(bytes(1 << 20))
            pipe.flush()
            assert store.get_many([key]).get(key) == before
            assert store.list("videos") == {"videos/a.mp4"}
        writer.join()
        assert store.get_bytes(key) == bytes(1 << 20)
    assert {path.name for path in (tmp_path / "run" / "videos").iterdir()} == {"a.mp4", "b.mp4"}


def test_a_writer_killed_in_the_middle_leaves_no_object(tmp_path: Path) -> None:
    slow = tmp_path / "slow"
    os.mkfifo(slow)
    code = (
        "import sys; from pathlib import Path; from pipeline.storage import Store; "
        "Store(sys.argv[1], {}).put_file(Path(sys.argv[2]), 'videos/a.mp4')"
    )
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", code, str(tmp_path / "run"), str(slow)]
    with subprocess.Popen(command, cwd=root) as writer, slow.open("wb") as pipe:
        pipe.write(bytes(1 << 20))
        pipe.flush()
        writer.kill()
        assert writer.wait() == -signal.SIGKILL
    store = Store(str(tmp_path / "run"), {})
    assert list((tmp_path / "run" / "videos").iterdir())  # it was at work
    assert store.list("videos") == set()
    assert not store.exists("videos/a.mp4")
    store.put_bytes("videos/a.mp4", b"again")
    assert store.list("videos") == {"videos/a.mp4"}


def test_the_check_of_a_good_output_leaves_nothing(place: Place) -> None:
    place.store.check_writable()
    assert place.keys() == set()


def test_an_output_can_be_given_by_the_environment_alone(s3_environment: S3Server) -> None:
    bucket = s3_environment.bucket()
    store = Store(f"s3://{bucket}/run", {})
    store.check_writable()
    store.put_bytes("run.json", b"x")
    assert s3_environment.keys(bucket) == {"run/run.json"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"secret": "wrong-secret"}, "PermissionError: The request signature we calculated does not match"),
        ({"key": "wrong-key"}, "PermissionError: The access key ID you provided does not exist"),
        ({"endpoint_url": "http://127.0.0.1:1"}, "Could not connect to the endpoint URL"),
    ],
)
def test_wrong_credentials_and_addresses_are_told_in_seconds(s3: S3Server, change: dict[str, str], words: str) -> None:
    once = {"config_kwargs": {"retries": {"total_max_attempts": 1}}}
    store = Store(f"s3://{s3.bucket()}/run", {"s3": {**s3.storage_options["s3"], **once, **change}})
    started = time.monotonic()
    with pytest.raises(CannotRun, match=words) as caught:
        store.check_writable()
    assert time.monotonic() - started < 20
    text = str(caught.value)
    assert "\n" not in text
    assert "check the address and the credentials" in text
    assert s3.secret not in text
    assert "wrong-secret" not in text


def test_an_endpoint_that_never_answers_is_told_in_seconds(s3: S3Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        store = Store("s3://bucket/run", {"s3": {**s3.storage_options["s3"], "endpoint_url": address}})
        started = time.monotonic()
        with pytest.raises(CannotRun, match="no answer within 1 s"):
            store.check_writable(within_s=1)
        assert time.monotonic() - started < 15


def test_a_bucket_that_does_not_exist(s3: S3Server) -> None:
    with pytest.raises(CannotRun, match="The specified bucket does not exist"):
        Store("s3://no-such-bucket/run", s3.storage_options).check_writable()


@pytest.mark.parametrize("below", ["file/run", "file"])
def test_a_local_output_that_can_not_be_a_folder(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotRun, match=r"can't be written: (NotADirectoryError|FileExistsError)"):
        Store(str(tmp_path / below), {}).check_writable()


def test_an_output_on_the_web_can_not_be_written() -> None:
    with pytest.raises(CannotRun, match=r"output http://127\.0\.0\.1:1/run can't be written"):
        Store("http://127.0.0.1:1/run", {}).check_writable()


def test_a_relative_output_is_known_by_its_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store("outputs/demo/", {})
    assert store.uri == str(tmp_path / "outputs" / "demo")
    assert Store(f"file://{tmp_path}/outputs/demo", {}).uri == store.uri
    monkeypatch.chdir("/")
    store.put_bytes("run.json", b"{}")
    assert (tmp_path / "outputs" / "demo" / "run.json").read_bytes() == b"{}"
    assert Store(store.uri, {}).get_bytes("run.json") == b"{}"


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("", "expected a folder"),
        ("/", "expected a folder"),
        ("s3://", "expected a folder"),
        ("nosuch://bucket/run", "Protocol not known: nosuch"),
        ("simplecache::s3://bucket/run", "found a chain"),
        ("zip://run::file:///tmp/a.zip", "found a chain"),
        ("zip://run", "output zip://run"),
        ("dask://run", "output dask://run"),
    ],
)
def test_what_can_not_be_an_output(uri: str, words: str) -> None:
    with pytest.raises(CannotRun, match=words):
        Store(uri, {})


@pytest.mark.parametrize("key", ["../a", "items/../../a", "/etc/a", "items//a", "items/", "", ".", "a/./b"])
def test_no_key_climbs_out_of_the_output(place: Place, key: str) -> None:
    with pytest.raises(CannotRun, match="expected names with '/' between them"):
        place.store.put_bytes(key, b"x")
    with pytest.raises(CannotRun):
        place.store.get_bytes(key)
    assert place.keys() == set()


def test_a_storage_error_is_the_items_in_a_stage_and_the_runs_outside(s3: S3Server) -> None:
    store = Store("s3://no-such-bucket/run", s3.storage_options)
    with pytest.raises(StorageError) as caught:
        store.put_bytes("a", b"x")
    record = error_record(caught.value, "render")
    assert (record.kind, record.stage) == ("infrastructure", "render")
    assert record.message.startswith("writing s3://no-such-bucket/run/a failed: FileNotFoundError")
    assert record.hint
    assert isinstance(caught.value, CannotRun)
    back = pickle.loads(pickle.dumps(caught.value))  # noqa: S301  (our own bytes)
    assert isinstance(back, StorageError)
    assert isinstance(back, ItemError)
    assert (back.message, back.hint) == (caught.value.message, caught.value.hint)
    for transient in (True, False):
        for error in (StorageError("gone", transient=transient), ItemError("model", "NaN", transient=transient)):
            assert pickle.loads(pickle.dumps(error)).transient is transient  # noqa: S301  (our own bytes)


def test_hashes_of_what_is_stored_are_those_of_the_source(place: Place, tmp_path: Path) -> None:
    source = random_file(tmp_path / "a.mp4", 100_000)
    place.store.put_file(source, "videos/a.mp4")
    stored = hashlib.sha256(place.store.get_bytes("videos/a.mp4")).hexdigest()
    assert stored == hashlib.sha256(source.read_bytes()).hexdigest()


FEW = RetrySettings(attempts=3, first_wait_s=0.01)


@pytest.mark.parametrize("fault", ["busy", "breaks"])
def test_a_store_that_is_busy_for_a_moment_is_asked_again(s3: S3Server, tmp_path: Path, fault: Fault) -> None:
    bucket = s3.bucket()
    with faulty_store(s3, {"item.json": Trouble(fault, times=12), "video.mp4": Trouble(fault, times=12)}) as store:
        output = Store(f"s3://{bucket}/out", store.storage_options, FEW)
        noted = Retries()
        with noting(noted):
            output.put_bytes("item.json", b"{}")
            (tmp_path / "video.mp4").write_bytes(b"video")
            output.put_file(tmp_path / "video.mp4", "video.mp4")
            assert output.get_bytes("item.json") == b"{}"
    assert s3.keys(bucket) == {"out/item.json", "out/video.mp4"}
    # The client tries five to ten times within one of ours.
    assert 2 <= noted.count <= 4
    assert "item.json" in noted.message or "video.mp4" in noted.message


def test_a_store_that_stays_busy_fails_after_the_last_attempt(s3: S3Server) -> None:
    with faulty_store(s3, {"item.json": Trouble("busy")}) as store:
        output = Store(f"s3://{s3.bucket()}/out", store.storage_options, FEW)
        noted = Retries()
        with noting(noted), pytest.raises(StorageError, match=r"writing .*item\.json failed"):
            output.put_bytes("item.json", b"{}")
    assert noted.count == 2


def test_a_store_that_refuses_is_not_asked_again(s3: S3Server) -> None:
    with faulty_store(s3, {"item.json": Trouble("refuses")}) as store:
        output = Store(f"s3://{s3.bucket()}/out", store.storage_options, FEW)
        with pytest.raises(StorageError, match="PermissionError"):
            output.put_bytes("item.json", b"{}")
        assert store.asked["item.json"] == 1

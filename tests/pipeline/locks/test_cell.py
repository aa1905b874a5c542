"""Of several writers one wins: on a local disk, on a real S3 server, and on a store that promises nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pipeline.locks.cell import (
    Cell,
    ConditionalCell,
    LockedCell,
    ReadBackCell,
    file_lock,
    keeps_conditions,
    open_cell,
    put_if,
)
from pipeline.storage import StorageError, Store
from tests.s3_server import S3Server, cut_link

ROOT = Path(__file__).parents[3]


@pytest.fixture(params=["local", "s3", "memory"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Cell]:
    """Opens the same cell again, as another driver does."""
    if request.param == "local":
        return lambda: LockedCell(Store(str(tmp_path / "run"), {}), "a.json")
    if request.param == "memory":
        store = Store(f"memory:/{tmp_path}/run", {})
        return lambda: ReadBackCell(store, "a.json", sleep=lambda _: None)
    s3: S3Server = request.getfixturevalue("s3")
    uri = f"s3://{s3.bucket()}/run"
    return lambda: ConditionalCell(Store(uri, s3.storage_options), "a.json")


def test_a_cell_holds_what_was_put_last(opened: Callable[[], Cell]) -> None:
    cell = opened()
    assert cell.read() is None
    for data in (b"one", b"two", b""):
        assert cell.replace(data)
        assert opened().read() == data
    assert cell.read() == b""
    assert cell.replace(b"three")


def test_who_looked_before_another_wrote_is_refused(opened: Callable[[], Cell]) -> None:
    first, second = opened(), opened()
    first.read()
    second.read()
    assert first.replace(b"first")
    assert not second.replace(b"second")
    assert opened().read() == b"first"
    assert second.read() == b"first"
    assert second.replace(b"second")
    assert not first.replace(b"first again")
    assert opened().read() == b"second"


def test_a_cell_that_was_removed_is_not_renewed(opened: Callable[[], Cell]) -> None:
    cell = opened()
    cell.read()
    assert cell.replace(b"one")
    cell.store.delete(cell.key)
    assert not cell.replace(b"two")
    assert opened().read() is None


@pytest.mark.parametrize("opened", ["local", "s3"], indirect=True)
def test_of_many_at_the_same_moment_one_wins_each_round(opened: Callable[[], Cell]) -> None:
    cells = [opened() for _ in range(6)]
    for round_ in range(3):
        together = Barrier(len(cells))

        def attempt(number: int, together: Barrier = together, round_: int = round_) -> bool:
            cells[number].read()
            together.wait()
            return cells[number].replace(f"{round_}: {number}".encode())

        with ThreadPoolExecutor(len(cells)) as pool:
            won = list(pool.map(attempt, range(len(cells))))
        assert won.count(True) == 1
        assert opened().read() == f"{round_}: {won.index(True)}".encode()


def test_a_cell_is_as_sure_as_its_store_allows(s3: S3Server, tmp_path: Path) -> None:
    bucket = s3.bucket()
    on_s3 = open_cell(Store(f"s3://{bucket}/run", s3.storage_options), "a.json")
    assert isinstance(on_s3, ConditionalCell)
    assert s3.keys(bucket) == set(), "trying the server out leaves nothing"
    assert isinstance(open_cell(Store(str(tmp_path), {}), "a.json"), LockedCell)
    assert isinstance(open_cell(Store(f"memory:/{tmp_path}/run", {}), "a.json"), ReadBackCell)


def test_a_server_that_ignores_conditions_is_found_out(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(f"s3://{s3.bucket()}/run", s3.storage_options)
    call = store.fs.call_s3
    for ignored in ("IfMatch", "IfNoneMatch"):
        monkeypatch.setattr(
            store.fs,
            "call_s3",
            lambda *a, ignored=ignored, **k: call(*a, **{n: v for n, v in k.items() if n != ignored}),
        )
        assert not keeps_conditions(store)
        assert isinstance(open_cell(store, "a.json"), ReadBackCell)
    monkeypatch.undo()
    assert keeps_conditions(store)


def test_a_put_whose_answer_got_lost_counts(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client sends it again by itself, and the server refuses the repetition."""
    store = Store(f"s3://{s3.bucket()}/run", s3.storage_options)
    cell = ConditionalCell(store, "a.json")
    assert cell.read() is None
    call = store.fs.call_s3

    def twice(*arguments: object, **options: object) -> object:
        call(*arguments, **options)
        return call(*arguments, **options)

    monkeypatch.setattr(store.fs, "call_s3", twice)
    assert cell.replace(b"one")
    assert cell.replace(b"two")
    monkeypatch.undo()
    assert cell.replace(b"three")
    assert ConditionalCell(store, "a.json").read() == b"three"


def test_a_store_that_fails_is_no_refusal(s3: S3Server) -> None:
    bucket = s3.bucket()
    with cut_link(s3, after_bytes=0) as endpoint:
        once = {"retries": {"total_max_attempts": 1}}
        options = {"s3": {**s3.storage_options["s3"], "endpoint_url": endpoint, "config_kwargs": once}}
        store = Store(f"s3://{bucket}/run", options)
        store.fs.retries = 1
        with pytest.raises(StorageError, match=r"writing s3://.*/a\.json failed"):
            put_if(store, "a.json", b"x", IfNoneMatch="*")
        with pytest.raises(StorageError):
            ConditionalCell(store, "a.json").read()


def test_reading_back_tells_who_wrote_last(tmp_path: Path) -> None:
    store = Store(f"memory:/{tmp_path}/run", {})
    MemoryFileSystem.store.clear()
    slow = ReadBackCell(store, "a.json", sleep=lambda _: store.put_bytes("a.json", b"fast"))
    assert slow.read() is None
    assert not slow.replace(b"slow")
    waits: list[float] = []
    last = ReadBackCell(store, "a.json", wait_s=2.5, sleep=waits.append)
    assert last.read() == b"fast"
    assert last.replace(b"last")
    assert waits == [2.5]


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from pipeline.locks.cell import file_lock\n"
        "with file_lock(Path(sys.argv[1])):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    path = tmp_path / "run" / "a.lock"
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(lambda: file_lock(path).__enter__())
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.2)
            holder.kill()
            waiting.result(timeout=20)


def test_a_folder_that_can_not_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="opening"), file_lock(tmp_path / "file" / "a.lock"):
        raise AssertionError("there is no lock to hold")

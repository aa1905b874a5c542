"""The index shows exactly the records that lie in their own files, whatever happened to it, in a few calls."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.reader import Manifest, read_manifest
from pipeline.config import RunSettings
from pipeline.errors import ErrorRecord
from pipeline.ledger import Ledger, Record
from pipeline.plan import make_plan
from pipeline.records import index
from pipeline.records.index import FOLDER, MANY_LOOSE, Outcome, RecordIndex, identities_text
from pipeline.storage import StorageError, Store
from tests.counted_store import CountedStore
from tests.pipeline.test_ledger import INFO, ok
from tests.s3_server import S3Server


def record(key: str, **changes: Any) -> Record:
    values = {"id": key, "index": 0, "status": "ok", "request": f"r-{key}", "limits": "l", "identities": {"image": key}}
    return Record(**values | changes)


BROKEN = ErrorRecord("input", "crop", "no face", "another picture")


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> CountedStore:
    if request.param == "local":
        return CountedStore(str(tmp_path / "run"))
    s3: S3Server = request.getfixturevalue("s3")
    return CountedStore(f"s3://{s3.bucket()}/run", s3.storage_options)


@pytest.fixture
def local(tmp_path: Path) -> CountedStore:
    return CountedStore(str(tmp_path / "run"))


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Index files of ten records, so that a few records make several."""
    monkeypatch.setattr(index, "FILE_ROWS", 10)


def write(store: Store, *keys: str, **changes: Any) -> None:
    for key in keys:
        store.put_bytes(f"items/{key}.json", record(key, **changes).model_dump_json(indent=1).encode())


def numbered(start: int, stop: int) -> list[str]:
    return [f"item-{number:05}" for number in range(start, stop)]


def truth(store: Store) -> dict[str, Record]:
    """Every record as its own file has it."""
    names = [name for folder in ("items", "items/_invalid") for name in store.list(folder) if name.endswith(".json")]
    return {
        name.removeprefix("items/").removesuffix(".json"): Record.model_validate_json(data)
        for name, data in store.get_many(names).items()
    }


def shown(store: Store) -> dict[str, Record]:
    """Every record as another driver finds it through the index; none twice."""
    found = list(RecordIndex(store).records())
    assert len(dict(found)) == len(found)
    return dict(found)


def files(store: Store) -> set[str]:
    return store.list(FOLDER)


def gets(store: CountedStore) -> int:
    """How many objects it takes to read every record."""
    before = store.calls["get"]
    shown(store)
    return store.calls["get"] - before


def test_what_is_in_the_index_is_read_from_it(store: CountedStore) -> None:
    write(store, *numbered(0, 40))
    write(store, "_invalid/3", status="failed", error=BROKEN)
    assert gets(store) == 41
    RecordIndex(store).compact()
    assert shown(store) == truth(store)
    assert len(files(store)) == 1
    assert gets(store) == 1
    assert len(truth(store)) == 41, "the records' own files are kept"


def test_a_newer_file_wins_and_a_deleted_one_is_gone(store: CountedStore) -> None:
    write(store, *numbered(0, 5))
    RecordIndex(store).compact()
    # As long as the old one, byte for byte.
    write(store, "item-00001", request="r-item-0000X")
    write(store, "new")
    store.delete("items/item-00002.json")
    expected = truth(store)
    assert expected["item-00001"].request == "r-item-0000X"
    assert shown(store) == expected
    assert gets(store) == 3
    RecordIndex(store).compact()
    assert shown(store) == expected
    assert gets(store) == len(files(store)) == 1


def test_outcomes_are_what_the_records_say(store: CountedStore) -> None:
    write(store, "good", "other")
    write(store, "bad", status="failed", error=BROKEN, identities={"image": None, "audio": "5:1"})
    expected = {
        "good": Outcome("ok", None, "r-good", '{"image":"good"}', "l"),
        "bad": Outcome("failed", "input", "r-bad", '{"audio":"5:1","image":null}', "l"),
    }
    for _ in range(2):
        assert RecordIndex(store).outcomes({"good", "bad", "absent"}) == expected
        RecordIndex(store).compact()
    assert identities_text({"image": None, "audio": "5:1"}) == expected["bad"].identities


def test_a_file_that_is_no_record_is_none_and_is_read_once(local: CountedStore) -> None:
    write(local, "good")
    for name, data in (("a", b"{"), ("b", b""), ("c", b"\xff"), ("d", b'{"id": "d", "index": 0}')):
        local.put_bytes(f"items/{name}.json", data)
    for _ in range(2):
        assert set(shown(local)) == set(RecordIndex(local).outcomes({*"abcd", "good"})) == {"good"}
        RecordIndex(local).compact()
    assert gets(local) == 1
    write(local, "a")
    assert set(shown(local)) == {"a", "good"}


def test_nothing_new_writes_nothing(local: CountedStore) -> None:
    RecordIndex(local).compact()
    assert local.calls["put"] == 0
    write(local, *numbered(0, 3))
    RecordIndex(local).compact()
    before = files(local)
    puts = local.calls["put"]
    RecordIndex(local).compact()
    RecordIndex(local).compact(many=2)
    assert (files(local), local.calls["put"]) == (before, puts)
    write(local, "one-more")
    RecordIndex(local).compact(many=2)
    assert local.calls["put"] == puts + 1
    RecordIndex(local).compact()
    assert gets(local) == 1


@pytest.mark.usefixtures("small_files")
def test_full_files_stay_and_small_ones_are_written_together(local: CountedStore) -> None:
    write(local, *numbered(0, 23))
    RecordIndex(local).compact()
    assert len(files(local)) == 3
    write(local, *numbered(23, 26))
    before = files(local)
    RecordIndex(local).compact()
    assert len(files(local)) == 3
    assert len(files(local) & before) == 2
    assert shown(local) == truth(local)
    # What has changed for the most part is written anew.
    write(local, *numbered(0, 26), request="another")
    RecordIndex(local).compact()
    assert len(files(local)) == 3
    assert not files(local) & before
    assert shown(local) == truth(local)


@pytest.mark.usefixtures("small_files")
def test_a_run_that_goes_on_adds_to_the_index(local: CountedStore) -> None:
    write(local, *numbered(0, 8))
    RecordIndex(local).compact()
    index = RecordIndex(local)
    for start in range(8, 32, 3):
        write(local, *numbered(start, start + 3))
        index.add(numbered(start, start + 3))
        assert shown(local) == truth(local)
        assert gets(local) == len(files(local)) <= 2 + start // 5
    index.add(["absent"])
    RecordIndex(local).compact()
    assert shown(local) == truth(local)


@pytest.mark.parametrize("damage", ["garbage", "empty", "other columns", "gone"])
def test_a_damaged_index_costs_time_alone(local: CountedStore, damage: str) -> None:
    write(local, *numbered(0, 5))
    RecordIndex(local).compact()
    (name,) = files(local)
    if damage == "gone":
        local.delete(name)
    elif damage == "other columns":
        pq.write_table(pa.table({"key": ["item-00001"], "mark": ["1"]}), local.path(name))
    else:
        local.put_bytes(name, b"" if damage == "empty" else b"PAR1 and nothing more")
    assert shown(local) == truth(local)
    RecordIndex(local).compact()
    assert shown(local) == truth(local)
    assert gets(local) == len(files(local)) == 1


def test_a_reader_finds_what_replaces_a_file_under_its_eyes(local: CountedStore, tmp_path: Path) -> None:
    write(local, *numbered(0, 5))
    RecordIndex(local).compact()
    (old,) = files(local)

    class Overtaken(CountedStore):
        def get_many(self, keys: Any) -> dict[str, bytes]:
            if old in (wanted := list(keys)) and self.exists(old):
                write(local, "new")
                RecordIndex(local).compact()
            return super().get_many(wanted)

    reader = Overtaken(local.uri)
    assert set(shown(reader)) == {*numbered(0, 5)}, "as they were when it looked"
    assert reader.calls["get"] == 2
    assert shown(local) == truth(local)


@pytest.mark.parametrize("step", ["compact", "add"])
@pytest.mark.usefixtures("small_files")
def test_a_store_that_breaks_between_any_two_calls_loses_nothing(tmp_path: Path, step: str) -> None:
    start = CountedStore(str(tmp_path / "start"))
    write(start, *numbered(0, 14))
    RecordIndex(start).compact()
    write(start, *numbered(0, 3), request="newer")
    write(start, "_invalid/3", status="failed", error=BROKEN)
    write(start, *numbered(14, 30))
    start.delete("items/item-00005.json")
    expected = truth(start)
    assert gets(start) == 2 + 3 + 1 + 16, "files of the index, changed records, and new ones"
    breaks = 0
    while True:
        uri = str(tmp_path / str(breaks))
        # The same files, so that they keep their marks; nothing writes into a file that is there.
        shutil.copytree(start.uri, uri, copy_function=os.link)
        breaking = CountedStore(uri, breaks_after=breaks)
        index = RecordIndex(breaking)
        try:
            if step == "compact":
                index.compact()
            else:
                index.add(numbered(14, 17))
                index.add(numbered(17, 30))
        except StorageError:
            breaks += 1
        else:
            break
        restarted = CountedStore(uri)
        assert shown(restarted) == truth(restarted) == expected
        RecordIndex(restarted).compact()
        assert shown(restarted) == truth(restarted) == expected
        assert gets(restarted) == len(files(restarted)) <= 5
    assert breaks > 8
    assert shown(CountedStore(uri)) == expected


def made_before(folder: Path, rows: int, portraits: int) -> tuple[Manifest, RunSettings]:
    """A manifest, and records of a run that has made all of it, without the videos."""
    recordings = rows // portraits
    for name in (*(f"{p}.png" for p in range(portraits)), *(f"{a}.wav" for a in range(recordings))):
        (folder / name).write_text(name)
    table = {
        "id": [f"item-{number:06}" for number in range(rows)],
        "image": [f"{number % portraits}.png" for number in range(rows)],
        "audio": [f"{number // portraits}.wav" for number in range(rows)],
    }
    pq.write_table(pa.table(table), folder / "manifest.parquet")
    manifest = read_manifest(str(folder / "manifest.parquet"))
    settings = RunSettings()
    plan = make_plan(manifest, settings, INFO, Ledger(Store(str(folder / "nothing"), {})))
    assert len(plan.items) == rows
    items = folder / "run" / "items"
    items.mkdir(parents=True)
    video = ok().video
    for item in plan.items:
        item.video = video
        # Not through the store: 100,000 files that are synced take minutes.
        (items / f"{item.key}.json").write_text(Record.of(item, settings, INFO).model_dump_json(indent=1))
    return manifest, settings


def restarts(folder: Path, rows: int, portraits: int) -> Iterator[tuple[float, dict[str, int]]]:
    """Seconds and calls of planning a restart: after a run that ended, and after one killed late."""
    manifest, settings = made_before(folder, rows, portraits)
    killed = folder / "run" / "items"
    late = [f"item-{number:06}" for number in range(rows - MANY_LOOSE // 5, rows)]
    aside = {key: (killed / f"{key}.json").read_text() for key in late}
    for key in late:
        (killed / f"{key}.json").unlink()
    store = CountedStore(str(folder / "run"))
    RecordIndex(store).compact()
    for key, text in aside.items():
        (killed / f"{key}.json").write_text(text)
    for _ in range(2):
        store.calls.clear()
        started = time.monotonic()
        plan = make_plan(manifest, settings, INFO, Ledger(store))
        yield time.monotonic() - started, dict(store.calls)
        assert plan.summary()["already_done"] == rows
        assert plan.items == []
        RecordIndex(store).compact()


def test_a_restart_does_not_read_every_record(tmp_path: Path) -> None:
    killed, ended = restarts(tmp_path, 2000, 40)
    assert killed[1] == {"list": 2 + 2 + 2 + 1, "get": 1 + MANY_LOOSE // 5}
    assert ended[1] == {"list": 2 + 2 + 2 + 1, "get": 1}


@pytest.mark.long
def test_a_restart_of_100_000_items_is_planned_in_a_minute(tmp_path: Path) -> None:
    for seconds, calls in restarts(tmp_path, 100_000, 1000):
        assert seconds < 60
        assert sum(calls.values()) < 300, json.dumps(calls)

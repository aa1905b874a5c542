"""The cache at the end of a run: what goes first, what stays, and what it costs to know."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.config import CacheSettings
from pipeline.reuse.cache import Cache
from pipeline.storage import Store
from tests.counted_store import CountedStore

SIZE = 100


def key(number: int, stage: str = "motion") -> str:
    name = f"{number:064x}"
    return f"cache/{stage}/{name[-2:]}/{name}.npz"


def fill(folder: Path, *numbers: int, stage: str = "motion") -> CountedStore:
    """Results of equal size, the later ones written later."""
    store = CountedStore(str(folder))
    for number in numbers:
        Store.put_bytes(store, key(number, stage), bytes(SIZE))
        os.utime(folder / key(number, stage), (1000 + number, 1000 + number))
    return store


def left(folder: Path) -> set[int]:
    return {int(path.stem, 16) for path in folder.rglob("*.npz")}


def test_under_the_limit_all_stays_and_one_listing_tells(tmp_path: Path) -> None:
    store = fill(tmp_path, 1, 2, 3)
    Cache(store, CacheSettings()).end({key(1)})
    store.calls.clear()
    cache = Cache(store, CacheSettings(max_bytes=3 * SIZE))
    assert key(1) in cache
    assert key(4) not in cache
    summary = cache.end(set())
    assert (summary.files, summary.size_bytes, summary.dropped) == (3, 3 * SIZE, {})
    assert store.calls == {"list": 1}


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    store = fill(tmp_path, 1, 2, 3, 4)
    Cache(store, CacheSettings()).end({key(1)})
    summary = Cache(store, CacheSettings(max_bytes=2 * SIZE)).end({key(2)})
    # 3 and 4 were never used since they were made; 1 was, by a run before.
    assert left(tmp_path) == {1, 2}
    assert (summary.files, summary.dropped, summary.dropped_bytes) == (2, {"motion": 2}, 2 * SIZE)
    # A limit holds for what this very run has used, too.
    Cache(store, CacheSettings(max_bytes=SIZE)).end({key(2)})
    assert left(tmp_path) == {2}
    Cache(store, CacheSettings(max_bytes=SIZE - 1)).end({key(2)})
    assert left(tmp_path) == set()


def test_a_run_that_uses_nothing_makes_up_for_one_that_was_killed_before_its_note(tmp_path: Path) -> None:
    store = fill(tmp_path, 1, 2)
    Cache(store, CacheSettings()).end(set())
    assert (tmp_path / "cache" / "uses.parquet").is_file()
    # Nothing is known of their uses, so their age decides.
    Cache(store, CacheSettings(max_bytes=SIZE)).end(set())
    assert left(tmp_path) == {2}


def test_switched_off_it_leaves_no_trace(tmp_path: Path) -> None:
    store = fill(tmp_path, 1, 2)
    fill(tmp_path, 3, stage="crop")
    (tmp_path / "videos").mkdir()
    Cache(store, CacheSettings()).end({key(1)})
    summary = Cache(store, CacheSettings(keep=False)).end({key(1)})
    assert (summary.files, summary.size_bytes, summary.dropped) == (0, 0, {"crop": 1, "motion": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["videos"]


@pytest.mark.parametrize("name", ["notes.txt", "motion/readme.npz", "other/00/" + 64 * "0" + ".npz"])
def test_what_is_no_result_is_left_alone(tmp_path: Path, name: str) -> None:
    store = fill(tmp_path, 1)
    Store.put_bytes(store, f"cache/{name}", b"mine")
    assert Cache(store, CacheSettings(keep=False)).end(set()).files == 0
    assert (tmp_path / "cache" / name).read_bytes() == b"mine"


def test_a_damaged_note_of_uses_costs_the_order_alone(tmp_path: Path) -> None:
    store = fill(tmp_path, 1, 2, 3)
    (tmp_path / "cache" / "uses.parquet").write_bytes(b"no table")
    Cache(store, CacheSettings(max_bytes=SIZE)).end({key(1)})
    assert left(tmp_path) == {1}

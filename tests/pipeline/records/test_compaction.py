"""Records reach the index while a run goes on: many at a time, not too often, and never at the price of the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.records import compaction
from pipeline.records.compaction import Compactor
from pipeline.records.index import FOLDER, RecordIndex
from tests.counted_store import CountedStore
from tests.pipeline.records.test_index import gets, numbered, shown, truth, write


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class SlowStore(CountedStore):
    """Every listing takes ten seconds of the clock's time."""

    def __init__(self, uri: str, clock: Clock) -> None:
        super().__init__(uri)
        self._clock = clock

    def marks(self, prefix: str) -> dict[str, str]:
        self._clock.now += 10
        return super().marks(prefix)


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "MANY_LOOSE", 10)


def test_every_so_many_records_are_added_together(tmp_path: Path) -> None:
    store = CountedStore(str(tmp_path / "run"))
    compactor = Compactor(RecordIndex(store), clock=Clock())
    puts = []
    for key in numbered(0, 35):
        write(store, key)
        store.calls.clear()
        compactor.note(key)
        puts.append(store.calls["put"])
    assert [place for place, count in enumerate(puts) if count] == [9, 19, 29]
    assert gets(store) == 1 + 5
    assert shown(store) == truth(store)


def test_a_slow_store_is_asked_less_often(tmp_path: Path) -> None:
    clock = Clock()
    store = SlowStore(str(tmp_path / "run"), clock)
    compactor = Compactor(RecordIndex(store), clock=clock)
    spent = 0.0
    for key in numbered(0, 1000):
        write(store, key)
        before = clock.now
        compactor.note(key)
        spent += clock.now - before
        clock.now += 1
    assert 0.08 < spent / clock.now < 0.12
    assert shown(store) == truth(store)


def test_a_store_that_fails_ends_no_run(tmp_path: Path) -> None:
    uri = str(tmp_path / "run")
    write(CountedStore(uri), *numbered(0, 30))
    store = CountedStore(uri, breaks_after=2)
    compactor = Compactor(RecordIndex(store), clock=Clock())
    for key in numbered(0, 15):
        compactor.note(key)
    assert CountedStore(uri).list(FOLDER) == set()
    store.mend()
    for key in numbered(15, 30):
        compactor.note(key)
    assert gets(store) < 15
    assert shown(store) == truth(store)

"""When stages worked, as run.json or records tell."""

from __future__ import annotations

from pathlib import Path

from pipeline.accounting.timeline import timeline
from pipeline.report.source import read_source
from pipeline.report.times import read_times, timeline_of
from tests.pipeline.report.outputs import RUN, ok_row, record, write_output


def test_what_the_run_noted_comes_before_what_records_tell(tmp_path: Path) -> None:
    noted = timeline({("crop", "n", 1): [0, 7]})
    assert noted is not None
    (tmp_path / "items").mkdir()
    (tmp_path / "items" / "a.json").write_text(record("a", {"crop": (1, 0, 3)}).model_dump_json())
    for run, busy_s, whole in (({**RUN, "timeline": noted.as_dict()}, 7, True), (RUN, 3, False)):
        times = read_times(read_source(str(write_output(tmp_path, [ok_row("a")], run=run))))
        assert times is not None
        assert (times.timeline.stages[0].busy_s, times.whole) == (busy_s, whole)


def test_a_file_that_many_items_share_counts_once() -> None:
    found = timeline_of([record(str(n), {"crop": (1, 5, 8)}) for n in range(9)])
    assert found is not None
    assert found.stages[0].busy_s == 3


def test_only_the_last_run_counts_and_copies_do_not() -> None:
    found = timeline_of(
        [
            record("new", {"render": (1, 1000, 1001)}, fence=4),
            record("old", {"render": (1, 0, 1)}, fence=3),
            record("copy", {"render": (1, 5, 6)}, fence=5, copied_from="old"),
        ]
    )
    assert found is not None
    assert (found.started, found.seconds) == (1000, 1)
    assert timeline_of([record("nothing", {})]) is None

"""What is different between two outputs."""

from __future__ import annotations

from pathlib import Path

from pipeline.report.difference import difference
from pipeline.report.source import read_source
from tests.pipeline.report.outputs import RUN, failed_row, ok_row, write_output


def test_items_numbers_and_settings_that_differ_are_told(tmp_path: Path) -> None:
    before = [ok_row(f"i{n}", render_fps=10.0 + n, frames_sha256=str(n)) for n in range(4)]
    now = [ok_row(f"i{n}", render_fps=12.0 + n, frames_sha256=str(n if n else "x")) for n in range(3)]
    now += [failed_row("i3"), ok_row("new")]
    other = {**RUN, "settings": {"cfg_scale": 3.0, "video": {"crf": 20}}}
    write_output(tmp_path / "now", now)
    write_output(tmp_path / "before", before, run=other)
    found = difference(read_source(str(tmp_path / "now")), read_source(str(tmp_path / "before")))
    assert (found.both, found.only_now, found.only_before) == (4, 1, 0)
    assert (found.same_frames, found.other_frames) == (2, 1)
    assert [(move.before, move.now, move.count, move.ids) for move in found.moves] == [("ok", "failed", 1, ["i3"])]
    [shift] = [shift for shift in found.shifts if shift.column.name == "render_fps"]
    assert (shift.pairs, shift.before, shift.now, shift.change) == (3, 11.0, 13.0, 2.0)
    assert (shift.higher, shift.lower, shift.verdict) == (3, 0, "better")
    assert found.settings == [("settings.video.crf", 20, 18)]


def test_an_output_does_not_differ_from_itself(tmp_path: Path) -> None:
    source = read_source(str(write_output(tmp_path, [ok_row("a", frames_sha256="1"), failed_row("b")])))
    found = difference(source, source)
    assert (found.moves, found.settings, found.other_frames) == ([], [], 0)
    assert {shift.change for shift in found.shifts} == {0.0}

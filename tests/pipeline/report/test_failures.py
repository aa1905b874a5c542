"""Failures that are alike stand together."""

from __future__ import annotations

from pathlib import Path

from pipeline.report.failures import failure_groups
from tests.pipeline.report.outputs import failed_row, ok_row, source_of


def test_messages_that_differ_in_names_and_numbers_are_one_class(tmp_path: Path) -> None:
    rows = [failed_row(f"a{n}", message=f"expected a face, found {n} in s3://b/p{n}.png: 'x{n}'") for n in range(20)]
    rows += [failed_row("m", message="no such file: here.wav"), ok_row("fine")]
    rows += [failed_row("n", kind="infrastructure", message="no such file: there.wav")]
    groups = failure_groups(source_of(tmp_path, rows))
    assert [(group.kind, group.count) for group in groups] == [("input", 20), ("input", 1), ("infrastructure", 1)]
    assert groups[0].message == "expected a face, found 0 in s3://b/p0.png: 'x0'"
    assert groups[0].hint == "mend input"
    assert groups[0].rows == list(range(12))


def test_other_words_and_other_stages_are_other_classes(tmp_path: Path) -> None:
    rows = [failed_row("a", message="no face"), failed_row("b", message="two faces")]
    rows += [failed_row("c", message="no face", error_stage="render")]
    assert len(failure_groups(source_of(tmp_path, rows))) == 3

"""What a report reads: results, else records; and no credentials from either."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.errors import CannotRun
from pipeline.report.source import read_source
from tests.pipeline.report.outputs import RUN, failed_row, ok_row, record, source_of, write_output

SIGNED = "https://ana:hunter2@host/x.wav?X-Amz-Signature=deadbeef"


def test_no_credential_of_a_url_is_read_from_any_text(tmp_path: Path) -> None:
    rows = [ok_row("a", audio=SIGNED), failed_row("b", message=f"reading '{SIGNED}' failed", error_hint=SIGNED)]
    run = {**RUN, "manifest": SIGNED, "settings": {"weights": {"renderer": [SIGNED]}, SIGNED: 1}}
    write_output(tmp_path, rows, {"notes": [SIGNED, "plain"]}, run=run)
    source = read_source(str(tmp_path))
    everything = json.dumps([source.table.to_pylist(), source.run], default=str)
    assert "hunter2" not in everything
    assert "deadbeef" not in everything
    assert source.column("audio")[0] == "https://***@host/x.wav?***"
    assert source.column("notes") == ["https://***@host/x.wav?***", "plain"]


def test_videos_are_looked_for_beside_the_report_wherever_they_were_written(tmp_path: Path) -> None:
    rows = [ok_row("a", video="s3://old/place/videos/a.mp4"), failed_row("b"), ok_row("c")]
    rows += [failed_row("d", kind="quality", video="/here/videos/d.mp4"), failed_row("e", video="/here/videos/e.mp4")]
    videos = source_of(tmp_path, rows).videos
    assert videos == {0: "videos/a.mp4", 2: "videos/c.mp4", 3: "videos/d.mp4"}


def test_nested_and_binary_columns_of_users_are_left_out(tmp_path: Path) -> None:
    source = source_of(tmp_path, [ok_row("a")], {"deep": [{"x": 1}], "bytes": [b"x"], "rating": [3]})
    assert {"rating", "flags"} <= set(source.table.column_names)
    assert not {"deep", "bytes"} & set(source.table.column_names)


def test_a_run_that_has_not_ended_is_read_from_its_records_in_the_manifests_order(tmp_path: Path) -> None:
    (tmp_path / "items").mkdir()
    for index, id in ((1, "second"), (0, "first")):
        text = record(id, {}).model_copy(update={"index": index}).model_dump_json()
        (tmp_path / "items" / f"{id}.json").write_text(text)
    source = read_source(str(tmp_path))
    assert (source.ids, source.ended) == (["first", "second"], False)


@pytest.mark.parametrize(
    ("content", "complaint"), [(None, "holds neither results nor records"), (b"no table", "can't be read")]
)
def test_what_is_no_output_is_said_so(tmp_path: Path, content: bytes | None, complaint: str) -> None:
    if content is not None:
        (tmp_path / "results.parquet").write_bytes(content)
    with pytest.raises(CannotRun, match=complaint):
        read_source(str(tmp_path))

"""The summary counts what the manifest asks for."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.reader import read_manifest
from manifests.schema import COLUMNS
from manifests.summary import summarise


def test_a_summary_counts_modes_inputs_and_languages(tmp_path: Path) -> None:
    table = pa.table(
        {
            "image": ["a.png", "a.png", "b.png", None],
            "audio": ["x.wav", "y.wav", None, "x.wav"],
            "driver": [None, "d.mp4", "d.mp4", None],
            "pose": [None, None, "p.npy", None],
            "language": ["de", "fr", None, "de"],
            "cfgscale": [1.0, 1.0, 1.0, 1.0],
        }
    )
    pq.write_table(table, tmp_path / "m.parquet")
    summary = summarise(read_manifest(str(tmp_path / "m.parquet")), head=1)
    assert (summary.rows, summary.audio_driven, summary.driver_driven, summary.undecided) == (4, 2, 1, 1)
    assert (summary.portraits, summary.audios, summary.drivers, summary.with_problems) == (2, 2, 1, 2)
    assert summary.languages == {"de": 2, "fr": 1}
    assert summary.user_columns == {"cfgscale": "double"}
    assert [row["image"] for row in summary.head] == ["a.png"]
    assert summary.warnings == [
        "column 'cfgscale' is carried along as your own; did you mean 'cfg_scale'?",
        "1 driver-driven rows name pose, camera or gaze, which shape audio-driven motion only",
    ]
    assert json.loads(json.dumps(summary.as_dict()))["rows"] == 4
    assert "4 (2 audio-driven, 1 driver-driven, 1 undecided; 2 with problems)" in summary.text()
    assert "did you mean 'cfg_scale'?" in summary.text()


def test_the_manual_names_every_column() -> None:
    manual = (Path(__file__).parents[2] / "docs" / "manifests.md").read_text()
    for column in COLUMNS:
        assert f"| `{column.name}` |" in manual

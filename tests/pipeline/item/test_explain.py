"""What is told of an item after a run, and that its command gives the same frames."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import cli
from pipeline.config import RunSettings, VideoSettings
from pipeline.errors import CannotRun
from pipeline.item.explain import explain, explanation_text
from tests.runs import demo, run_manifest, write_manifest

SETTINGS = RunSettings(
    model="imtalker-tiny",
    max_seconds=0.4,
    seed=7,
    cfg_scale=2.5,
    batch_size=3,
    video=VideoSettings(crf=30, segment_seconds=0.2),
)
ROWS: list[dict[str, Any]] = [
    {"id": "spoken", "image": demo("ana.png"), "audio": demo("english.wav"), "title": "An  odd 'title'"},
    {"id": "faceless", "image": "it's no face.png", "audio": demo("english.wav"), "title": None},
    {"id": "../escape", "image": demo("ana.png"), "audio": demo("english.wav"), "title": None},
    {"id": "later", "image": demo("ana.png"), "audio": demo("english.wav"), "title": None},
]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a good row, one whose portrait shows no face, one with a bad id, and one that was not attempted."""
    folder = tmp_path_factory.mktemp("explained")
    grey = np.full((64, 64, 3), 128, np.uint8)
    Image.fromarray(grey).save(folder / "it's no face.png")
    run_manifest(write_manifest(folder, ROWS), folder / "out", SETTINGS, limit=3)
    return folder / "out"


def test_an_item_that_was_made_is_told_whole(output: Path) -> None:
    known = explain(str(output), "spoken")
    assert (known["status"], known["error"], known["seed"] is not None) == ("ok", None, True)
    assert {role: value["uri"] for role, value in known["inputs"].items()} == {
        "image": demo("ana.png"),
        "audio": demo("english.wav"),
    }
    assert known["inputs"]["image"]["size"] == Path(demo("ana.png")).stat().st_size
    assert [(s["stage"], s["did"]) for s in known["stages"]] == [
        (stage, "computed") for stage in ("crop", "features", "motion", "render")
    ]
    assert all(s["seconds"] >= 0 and s["node"] and s["threads"] for s in known["stages"])
    assert known["first"] <= known["last"] <= known["committed"]
    assert known["row"]["title"] == "An  odd 'title'"
    assert json.loads(json.dumps(known)) == known


def test_what_an_earlier_run_made_is_told_as_reused(output: Path, tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, [ROWS[0]])
    run_manifest(manifest, tmp_path / "out", SETTINGS)
    changed = SETTINGS.model_copy(update={"video": VideoSettings(crf=40)})
    run_manifest(manifest, tmp_path / "out", changed)
    stages = explain(str(tmp_path / "out"), "spoken")["stages"]
    assert [s["did"] for s in stages] == ["reused", "reused", "reused", "computed"]


def test_a_failure_is_told_with_its_stage_hint_and_input(output: Path) -> None:
    known = explain(str(output), "faceless")
    assert (known["status"], known["error"]["kind"], known["error"]["stage"]) == ("failed", "input", "crop")
    assert known["error"]["hint"]
    assert known["inputs"]["image"]["sha256"]
    assert [(s["stage"], s["did"]) for s in known["stages"]] == [("crop", "failed")]
    text = explanation_text(known)
    assert "input error in crop" in text
    assert f"what to do: {known['error']['hint']}" in text


@pytest.mark.parametrize("name", ["../escape", "_invalid/2"])
def test_a_row_whose_id_names_no_file_is_found(output: Path, name: str) -> None:
    known = explain(str(output), name)
    assert (known["id"], known["error"]["stage"]) == ("../escape", "plan")
    assert known["record"].endswith("items/_invalid/2.json")


def test_a_row_that_was_not_attempted_is_told_from_the_results(output: Path) -> None:
    known = explain(str(output), "later")
    assert (known["status"], known["flags"]) == ("skipped", ["limit"])
    assert "later: skipped (limit)" in explanation_text(known)


def test_an_unknown_id_names_the_nearest(output: Path) -> None:
    with pytest.raises(CannotRun, match="no item 'spokn'; near it: spoken"):
        explain(str(output), "spokn")
    with pytest.raises(CannotRun, match="it has 4"):
        explain(str(output), "zzz")
    (output / "results.parquet").rename(output / "aside")
    try:
        # While a run goes on there are only records.
        with pytest.raises(CannotRun, match="near it: spoken"):
            explain(str(output), "spokn")
    finally:
        (output / "aside").rename(output / "results.parquet")


def test_an_output_that_is_no_runs_says_so(tmp_path: Path) -> None:
    with pytest.raises(CannotRun, match="not the output of a run"):
        explain(str(tmp_path), "spoken")


def again(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Do as the command says, in another folder."""
    monkeypatch.chdir(folder)
    program, *words = shlex.split(command)
    assert program == "imtalker"
    return CliRunner().invoke(cli.app, words).exit_code


def test_the_command_gives_the_same_frames(output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = explain(str(output), "spoken")["command"]
    assert again(command, tmp_path, monkeypatch) == 0
    assert np.array_equal(decoded(tmp_path / "spoken.mp4"), decoded(output / "videos" / "spoken.mp4"))


def test_the_command_of_a_failure_fails_alike(output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert again(explain(str(output), "faceless")["command"], tmp_path, monkeypatch) == 3
    assert list(tmp_path.iterdir()) == []


def decoded(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])

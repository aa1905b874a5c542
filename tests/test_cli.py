"""The program as its users start it: exit codes, what goes where, and one item against a run."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.locks.lease import leased
from pipeline.storage import Store
from tests.commands import CLI, ROOT, imtalker
from tests.runs import demo, write_manifest

ROWS = [
    {"id": "spoken", "image": demo("ana.png"), "audio": demo("english.wav")},
    {"id": "driven", "image": demo("kofi.jpg"), "driver": demo("driver.mp4")},
    {"id": "missing", "image": demo("kofi.jpg"), "audio": "nowhere.wav"},
]
TINY = ["--model", "imtalker-tiny", "--max-seconds", "0.4"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A run through the command line, on a Ray of its own."""
    folder = tmp_path_factory.mktemp("cli")
    manifest = write_manifest(folder, ROWS)
    return folder, imtalker("run", manifest, "--output", str(folder / "out"), *TINY, "--json")


def test_a_run_with_failures_exits_3_and_its_json_stands_alone_on_stdout(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, process = finished
    assert process.returncode == 3, process.stderr
    summary = json.loads(process.stdout)
    assert (summary["ok"], summary["failed"], summary["weights"]) == (2, 1, "random")
    assert summary["first_failures"][0]["id"] == "missing"
    assert "videos: 2/2" in process.stderr
    assert f"report: {folder}/out/report.html" in process.stderr


def test_a_second_run_says_what_failed_and_status_agrees(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, _ = finished
    manifest = str(folder / "manifest.parquet")
    again = imtalker("run", manifest, "--output", str(folder / "out"), *TINY)
    assert again.returncode == 3
    assert "2 ok (2 from an earlier run), 1 failed" in again.stderr
    assert "nowhere.wav does not exist" in again.stderr
    assert again.stdout == ""
    status = json.loads(imtalker("status", str(folder / "out"), "--json").stdout)
    assert (status["items"], status["ok"], status["failed_by_kind"]) == (3, 2, {"input": 1})
    changed = ["--crf", "30", "--x264-preset", "fast"]
    planned = imtalker("run", manifest, "--output", str(folder / "out"), *TINY, *changed, "--dry-run", "--json")
    assert json.loads(planned.stdout)["to_make"] == 3
    assert planned.returncode == 0


@pytest.mark.parametrize("id", ["spoken", "driven"])
def test_generate_makes_the_frames_of_the_run(
    finished: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path, id: str
) -> None:
    folder, _ = finished
    row = next(row for row in ROWS if row["id"] == id)
    source = ["--audio", row["audio"]] if "audio" in row else ["--driver", row["driver"]]
    output = tmp_path / "new" / "one.mp4"
    process = imtalker("generate", "--image", row["image"], *source, "--output", str(output), *TINY)
    assert process.returncode == 0, process.stderr
    assert np.array_equal(decoded(output), decoded(folder / "out" / "videos" / f"{id}.mp4"))


def decoded(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_generate_that_fails_says_why_and_writes_nothing(tmp_path: Path) -> None:
    output = tmp_path / "one.mp4"
    process = imtalker("generate", "--image", demo("ana.png"), "--audio", "nowhere.wav", "--output", str(output), *TINY)
    assert process.returncode == 3
    assert "nowhere.wav does not exist" in process.stderr
    assert not output.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["run", "--bogus"], 2, "--bogus"),
        (["generate"], 2, "--image"),
        (["run", "nowhere.parquet", "--output", "OUT", *TINY], 1, "no such file"),
        (["run", "MANIFEST", "--output", "OUT", *TINY, "--cfg-scale", "99"], 1, "cfg_scale"),
        (["run", "MANIFEST", "--output", "OUT", "--model", "nobody"], 1, "nobody"),
        (["run", "MANIFEST", "--output", "OUT", "--no-download"], 1, "imtalker models pull imtalker"),
        (["run", "MANIFEST"], 2, "--output"),
        (["run", "MANIFEST", "--output", "OUT", *TINY, "--retry", "slow"], 2, "'quality', 'bug'"),
        (["status", "OUT"], 1, "no records"),
        (["manifest", "show", "nowhere.parquet"], 1, "no such file"),
        (["job", "status", "x", "--address", "http://127.0.0.1:9"], 1, "127.0.0.1:9"),
    ],
)
def test_what_cannot_run_says_so_in_one_line(tmp_path: Path, arguments: list[str], code: int, complaint: str) -> None:
    places = {"MANIFEST": write_manifest(tmp_path, ROWS), "OUT": str(tmp_path / "out")}
    process = imtalker(*(places.get(a, a) for a in arguments), IMTALKER_MODELS=str(tmp_path / "models"))
    assert process.returncode == code
    assert complaint in process.stderr
    assert "Traceback" not in process.stderr
    assert process.stdout == ""


def test_a_second_run_on_an_output_says_who_holds_it_and_exits_1(tmp_path: Path) -> None:
    manifest, output = write_manifest(tmp_path, ROWS), tmp_path / "out"
    arguments = ["run", manifest, "--output", str(output), *TINY]
    with leased(Store(str(output), {})):
        process = imtalker(*arguments)
        assert process.returncode == 1
        (line,) = process.stderr.splitlines()
        assert f"{output} is in use by another run ({platform.node()}, process {os.getpid()}, since " in line
        planned = imtalker(*arguments, "--dry-run", "--json")
        assert json.loads(planned.stdout)["to_make"] == 3
    assert {path.name for path in output.iterdir()} == {"lease.json", "lease.json.lock"}


def test_an_interrupted_run_exits_130_and_goes_on_when_started_again(tmp_path: Path) -> None:
    rows = [{"id": f"item-{i}", "image": demo("ana.png"), "audio": demo("english.wav"), "seed": i} for i in range(4)]
    manifest, output = write_manifest(tmp_path, rows), tmp_path / "out"
    arguments = [
        "run",
        manifest,
        "--output",
        str(output),
        *TINY[:2],
        "--max-seconds",
        "1",
        "--progress-seconds",
        "0.01",
    ]
    process = subprocess.Popen([*CLI, *arguments], stderr=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("videos: 1/4"):
            process.send_signal(signal.SIGINT)
            break
    rest = process.stderr.read()
    assert process.wait(timeout=60) == 130, rest
    assert "run the same command again" in rest
    assert json.loads((output / "lease.json").read_text())["released"]
    made = {path.name for path in (output / "items").glob("*.json")}
    assert 1 <= len(made) < 4
    again = imtalker(*arguments, "--json")
    assert again.returncode == 0, again.stderr
    summary = json.loads(again.stdout)
    assert summary["ok"] == 4
    assert summary["reused"] >= len(made)


def test_the_manifest_tools_make_check_and_show(tmp_path: Path) -> None:
    (tmp_path / "portraits").mkdir()
    (tmp_path / "speech").mkdir()
    for name, folder in (("ana.png", "portraits"), ("mei.webp", "portraits"), ("english.wav", "speech")):
        (tmp_path / folder / name).write_bytes(Path(demo(name)).read_bytes())
    manifest = str(tmp_path / "m.parquet")
    folders = ["--images", str(tmp_path / "portraits"), "--audio", str(tmp_path / "speech")]
    built = imtalker("manifest", "build", *folders, "--output", manifest)
    assert built.returncode == 0, built.stderr
    assert "2 rows" in built.stderr
    report = imtalker("manifest", "validate", manifest, "--json")
    assert report.returncode == 0, report.stdout
    assert json.loads(report.stdout)["seconds"] == {"audio": pytest.approx(7.45, abs=0.01)}
    (tmp_path / "speech" / "english.wav").unlink()
    assert imtalker("manifest", "validate", manifest).returncode == 3
    assert "2 audio-driven" in imtalker("manifest", "show", manifest).stdout


def test_models_are_listed_without_touching_the_network(tmp_path: Path) -> None:
    listed = imtalker("models", "list", "--json", IMTALKER_MODELS=str(tmp_path), HF_ENDPOINT="http://127.0.0.1:9")
    rows = json.loads(listed.stdout)
    found = {(row["preset"], row["status"]) for row in rows}
    assert found == {("imtalker", "missing"), ("imtalker-demo", "built in"), ("imtalker-tiny", "built in")}
    assert imtalker("models", "verify", IMTALKER_MODELS=str(tmp_path)).returncode == 1

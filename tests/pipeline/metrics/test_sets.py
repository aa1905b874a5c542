"""FID and FVD of sets of videos: what is sampled, counted, refused and written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner, Result

import cli
from pipeline.config import RunSettings
from pipeline.errors import CannotRun, ErrorRecord
from pipeline.inputs.fetch import file_sha256
from pipeline.ledger import Ledger, Record
from pipeline.metrics.i3d import I3d
from pipeline.metrics.inception import FidInception
from pipeline.metrics.set_metrics import SetMetrics, load_eyes, measure_sets
from pipeline.metrics.sets import Eye, Measure, output_videos, reference_videos, see_set
from pipeline.progress import RunProgress
from pipeline.storage import Store
from tests.commands import imtalker
from tests.media_files import cut_file, grey_frame, smooth_picture, write_video
from tests.pipeline.metrics.feature_networks import write_weights
from tests.pipeline.metrics.walker import INFO

SIZE = 64
CPU = torch.device("cpu")

Clip = Sequence[np.ndarray]


def moving(seed: int, frames: int, dark: float = 1.0) -> Clip:
    """A picture that walks."""
    picture = (smooth_picture(seed, SIZE, SIZE) * dark).astype(np.uint8)
    return [np.roll(picture, 2 * frame, axis=1) for frame in range(frames)]


def levels(*values: int) -> Clip:
    return [grey_frame(value, SIZE, SIZE) for value in values]


def write_run(folder: Path, clips: dict[str, Clip]) -> Path:
    """The output of a run that made ``clips``, and whose last item failed."""
    (folder / "videos").mkdir(parents=True)
    ledger = Ledger(Store(str(folder), {}))
    for index, (id, frames) in enumerate(clips.items()):
        path = write_video(folder / "videos" / f"{id}.mp4", frames)
        video = {"uri": "s3://where/it/was.mp4", "sha256": file_sha256(path), "frames": len(frames)}
        ledger.write(Record(id=id, index=index, status="ok", video=video))
    failed = ErrorRecord("input", "crop", "no face", "another")
    ledger.write(Record(id="failed", index=len(clips), status="failed", error=failed))
    run = {"settings": RunSettings().model_dump(exclude={"storage_options"}), "model": asdict(INFO)}
    (folder / "run.json").write_text(json.dumps(run))
    return folder


def write_folder(folder: Path, clips: dict[str, Clip]) -> Path:
    for name, frames in clips.items():
        path = folder / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, frames, container_options={"movflags": "faststart"})
    return folder


def eye(length: int, step: int, batch: int = 3) -> Eye:
    """Whose features are a sample's mean colours, 0..1."""
    return Eye(lambda samples: samples.mean((2, 3, 4)), 3, length, step, batch, CPU, "colours.pth", "0" * 64)


def eyes(every: int = 25, batch: int = 3) -> dict[Measure, Eye]:
    return {"fid": eye(1, every, batch), "fvd": eye(16, 16, batch)}


def compared(output: Path, reference: Path, seen_by: dict[Measure, Eye] | None = None, **options: Any) -> SetMetrics:
    with RunProgress(Console(quiet=True), 60) as progress:
        return measure_sets(str(output), str(reference), seen_by or eyes(), RunSettings(), progress, **options)


def greys(folder: Path, which: Measure, seen_by: Eye) -> np.ndarray:
    """The samples' grey levels, as far as count, mean and spread tell them."""
    videos = reference_videos(str(folder), RunSettings(), None)
    seen = see_set(str(folder), videos, {which: seen_by}, SIZE, RunSettings(), lambda failed: None).moments[which]
    return np.array([seen.count, 255 * seen.mean()[0], 255 * seen.covariance()[0, 0] ** 0.5])


def test_fid_takes_every_nth_frame_and_fvd_whole_clips_one_after_the_other(tmp_path: Path) -> None:
    ramp = [20 + 3 * frame for frame in range(60)]
    folder = write_folder(tmp_path, {"a": levels(*ramp), "b/c": levels(*ramp[:20])})

    def expected(values: Sequence[float]) -> np.ndarray:
        return np.array([len(values), np.mean(values), np.std(values, ddof=1)])

    frames = [ramp[at] for at in (0, 25, 50, 0)]
    np.testing.assert_allclose(greys(folder, "fid", eye(1, 25)), expected(frames), atol=2)
    frames = [ramp[at] for at in (0, 7, 14, 21, 28, 35, 42, 49, 56, 0, 7, 14)]
    np.testing.assert_allclose(greys(folder, "fid", eye(1, 7)), expected(frames), atol=2)
    clips = [np.mean(ramp[at : at + 16]) for at in (0, 16, 32, 0)]
    np.testing.assert_allclose(greys(folder, "fvd", eye(16, 16)), expected(clips), atol=2)


def test_equal_sets_are_0_apart_and_a_darker_one_by_the_square_of_the_difference(tmp_path: Path) -> None:
    clips = {"a": levels(*[200] * 50), "b": levels(*[100] * 40)}
    output = write_run(tmp_path / "out", clips)
    same = compared(output, write_folder(tmp_path / "real", clips))
    assert same.values == pytest.approx({"fid": 0, "fvd": 0}, abs=1e-6)
    darker = {name: [frame // 2 for frame in frames] for name, frames in clips.items()}
    found = compared(output, write_folder(tmp_path / "dark", darker))
    # Frames 0 and 25 of each: means 150 and 75, deviations 57.7 and 28.9, of three equal colours.
    spread = np.std([200, 200, 100, 100], ddof=1) / 255
    expected = 3 * (75 / 255) ** 2 + 3 * (spread / 2) ** 2
    assert found.values["fid"] == pytest.approx(expected, rel=0.03)
    assert found.exit_code == same.exit_code == 0


def test_batches_and_reading_for_both_or_one_change_nothing(tmp_path: Path) -> None:
    output = write_run(tmp_path / "out", {"a": moving(1, 50), "b": moving(2, 33)})
    real = write_folder(tmp_path / "real", {"a": moving(3, 50), "b": moving(4, 64)})
    first = compared(output, real, eyes(5, 1))
    assert min(first.values.values(), default=0) > 1e-4
    for batch in (2, 64):
        assert compared(output, real, eyes(5, batch)).values == pytest.approx(first.values, rel=1e-6)
    alone = compared(output, real, {"fid": eye(1, 5)})
    assert alone.values == pytest.approx({"fid": first.values["fid"]}, rel=1e-6)
    assert alone.as_dict()["fvd"] is None


def test_what_is_written_says_of_what_the_numbers_are(tmp_path: Path) -> None:
    output = write_run(tmp_path / "out", {"a": moving(1, 50), "b": moving(2, 33), "c": moving(2, 8)})
    other = write_run(tmp_path / "other", {"x": moving(1, 50), "y": moving(2, 33)})
    found = compared(output, other)
    written = json.loads((output / "set_metrics.json").read_text())
    assert {**written, "measured_at": ""} == {**found.as_dict(), "measured_at": ""}
    ours, theirs = written["samples"]["output"], written["samples"]["reference"]
    assert (ours["videos"], ours["frames"], ours["clips"], ours["unreadable"]) == (3, 5, 5, 0)
    assert (theirs["videos"], theirs["frames"], theirs["clips"], theirs["uri"]) == (2, 4, 5, str(other))
    assert ours["videos_sha256"] != theirs["videos_sha256"]
    assert written["weights_sha256"] == {"inception": "0" * 64, "i3d": "0" * 64}
    assert written["protocol"]["resolution"] == SIZE
    assert written["protocol"]["fid"]["every"] == 25
    assert "FVD: 1 videos of the output are shorter than a clip of 16 frames" in written["notes"]
    assert not any("too few" in note for note in written["notes"])
    few = compared(output, other, limit=1)
    assert few.as_dict()["samples"]["output"]["videos"] == 1
    assert few.as_dict()["samples"]["reference"]["clips"] == 3
    assert any("FID: 2 frames of the output are too few for 3 numbers each" in note for note in few.notes)
    # The same videos by another name are the same set.
    assert few.sets["output"].sha256 == few.sets["reference"].sha256


def test_a_relative_folder_is_remembered_by_its_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = write_run(tmp_path / "out", {"a": moving(1, 2)})
    write_folder(tmp_path / "real", {"a": moving(1, 2)})
    monkeypatch.chdir(tmp_path)
    found = compared(output, Path("real"), {"fid": eye(1, 1)})
    assert found.as_dict()["reference"] == str(tmp_path / "real")


def test_items_are_taken_in_the_manifests_order_and_none_without_a_video(tmp_path: Path) -> None:
    store = Store(str(write_run(tmp_path, {"b": moving(1, 2), "a": moving(2, 2), "c": moving(3, 2)})), {})
    assert [video.name for video in output_videos(store, None)] == ["b", "a", "c"]
    assert [video.uri for video in output_videos(store, 1)] == [f"{tmp_path}/videos/b.mp4"]


def test_a_video_that_cant_be_read_is_named_and_adds_nothing(tmp_path: Path) -> None:
    clips = {"a": moving(1, 50), "b": moving(2, 64)}
    output = write_run(tmp_path / "out", clips | {"changed": moving(3, 50)})
    with (output / "videos" / "changed.mp4").open("ab") as file:
        file.write(b"more")
    real = write_folder(tmp_path / "real", clips | {"long": moving(5, 400)})
    cut_file(real / "long.mp4", real / "cut.mp4", 0.7)
    (real / "long.mp4").unlink()
    (real / "text.mp4").write_text("no video")
    found = compared(output, real)
    assert found.values == pytest.approx({"fid": 0, "fvd": 0}, abs=1e-6)
    assert found.exit_code == 3
    written = json.loads((output / "set_metrics.json").read_text())
    assert [one["video"] for one in written["unreadable"]["output"]] == ["changed"]
    assert [one["video"] for one in written["unreadable"]["reference"]] == ["cut.mp4", "text.mp4"]
    assert written["samples"]["reference"]["unreadable"] == 2
    for text in ("changed: changed: the video is not what", "cut.mp4: ", "text.mp4: ", "2 unreadable"):
        assert text in found.text()


def test_where_one_of_the_two_cant_be_computed_the_other_is(tmp_path: Path) -> None:
    output = write_run(tmp_path / "out", {"a": moving(1, 12), "b": moving(2, 12)})
    found = compared(output, output)
    assert found.values == {"fid": pytest.approx(0, abs=1e-9), "fvd": None}
    assert found.exit_code == 3
    assert "FVD needs 2 clips of 16 frames of the output at least, found 0 in 2 readable videos" in found.notes


def test_where_nothing_can_be_computed_one_line_says_why(tmp_path: Path) -> None:
    output = write_run(tmp_path / "out", {"a": moving(1, 12)})
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "x.mp4").write_text("no video")
    for reference, message in (
        ("absent", r"--reference: folder .*absent: no such folder"),
        ("empty", r"--reference: folder .*empty: expected \.mp4, .* files, found none"),
        (
            "broken",
            r"nothing can be computed: FID needs 2 frames .*; 1 of the reference can't be read, the first x\.mp4",
        ),
    ):
        with pytest.raises(CannotRun, match=message):
            compared(output, tmp_path / reference)
    with pytest.raises(CannotRun, match=r"no run\.json"):
        compared(tmp_path / "broken", output)
    with pytest.raises(CannotRun, match="has no video: none of its items has one"):
        compared(write_run(tmp_path / "none", {}), output)
    assert not (output / "set_metrics.json").exists()


def test_features_that_are_no_numbers_end_it(tmp_path: Path) -> None:
    output = write_run(tmp_path / "out", {"a": moving(1, 2)})
    blind = Eye(lambda samples: samples.mean((2, 3, 4)) / 0, 3, 1, 1, 1, CPU, "strange.pth", "")
    with pytest.raises(CannotRun, match=r"strange\.pth gives numbers that are not finite"):
        compared(output, output, {"fid": blind})


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli.app, ["set-metrics", *map(str, arguments)])


def test_the_command_with_both_networks(tmp_path: Path) -> None:
    """Two clips, of which a frame each is looked at: equal ones, then darker ones."""
    weights = [
        "--inception", write_weights(tmp_path / "inception.pth", FidInception()),
        "--i3d", write_weights(tmp_path / "i3d.pt", I3d()),
    ]  # fmt: skip
    output = write_run(tmp_path / "out", {"a": moving(1, 16), "b": moving(2, 16)})
    real = write_folder(tmp_path / "real", {"a": moving(1, 16), "b": moving(2, 16)})
    same = call(output, "--reference", real, *weights, "--device", "cpu", "--json")
    assert same.exit_code == 0, same.output
    facts = json.loads(same.stdout)
    assert facts == json.loads((output / "set_metrics.json").read_text())
    assert 0 <= facts["fid"] < 1e-3
    assert 0 <= facts["fvd"] < 1e-3
    assert facts["weights_sha256"] == {"inception": file_sha256(weights[1]), "i3d": file_sha256(weights[3])}
    assert "FID: 2 frames of the output are too few for 2048 numbers each" in facts["notes"][0]
    dark = write_folder(tmp_path / "dark", {"a": moving(1, 16, 0.4), "b": moving(2, 16, 0.4)})
    (dark / "c.mp4").write_text("no video")
    other = call(output, "--reference", dark, *weights, "--device", "cpu")
    assert other.exit_code == 3, other.output
    assert other.stdout == ""
    assert "unreadable, reference   c.mp4: " in other.stderr
    facts = json.loads((output / "set_metrics.json").read_text())
    assert facts["fid"] > 1
    assert facts["fvd"] > 1


def test_the_network_gives_the_same_in_any_batch(tmp_path: Path) -> None:
    path = write_weights(tmp_path / "inception.pth", FidInception())
    network = load_eyes(str(path), None, CPU)["fid"]
    frames = np.stack(moving(1, 3))[:, None]
    alone = np.concatenate([network.features(frames[at : at + 1]) for at in range(3)])
    np.testing.assert_allclose(network.features(frames), alone, atol=1e-4)


def test_wrong_usage_and_wrong_files_are_told_from_each_other(tmp_path: Path) -> None:
    usage = call(tmp_path, "--reference", tmp_path)
    assert usage.exit_code == 2
    assert "--inception FILE for FID" in usage.output
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    refused = imtalker("set-metrics", str(tmp_path), "--reference", str(tmp_path), "--i3d", str(tmp_path / "other.pth"))
    assert refused.returncode == 1
    [line] = refused.stderr.splitlines()
    assert line.startswith(f"error: --i3d: {tmp_path}/other.pth doesn't hold I3D on RGB")

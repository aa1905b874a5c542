"""A run in one process: what is made, what is reused, and what happens to items that fail."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from imtalker.engine.network import RenderNetwork
from imtalker.presets import PRESETS, build_seeded
from pipeline.config import RunSettings
from pipeline.errors import CannotRun
from pipeline.execute import Context, Executor, in_process
from pipeline.locks.cell import open_cell
from pipeline.locks.lease import KEY, Lease, LeaseHeld, LeaseLost, leased
from pipeline.media.audio import decode_mono_16k
from pipeline.media.crop_box import crop_around, cut
from pipeline.media.encode import VideoWriter
from pipeline.media.faces import DlibDetector, choose_face
from pipeline.media.image import load_image, resize_square
from pipeline.media.verify import measure_video
from pipeline.stages.base import Stage
from pipeline.stages.render import RenderStage
from pipeline.storage import Store
from pipeline.tasks import ItemTask
from tests.runs import TINY, demo, results, run_manifest, write_manifest

AUDIO_ROW = {"id": "spoken", "image": demo("ana.png"), "audio": demo("english.wav"), "title": "first"}
DRIVER_ROW = {"id": "driven", "image": demo("kofi.jpg"), "driver": demo("driver.mp4"), "title": "second"}
BOTH_ROW = {
    "id": "both",
    "image": demo("ana.png"),
    "audio": demo("french.m4a"),
    "driver": demo("driver.mp4"),
    "motion_from": "driver",
    "title": "third",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run of all three modes."""
    folder = tmp_path_factory.mktemp("run")
    manifest = write_manifest(folder, [AUDIO_ROW, DRIVER_ROW, BOTH_ROW])
    summary = run_manifest(manifest, folder / "out")
    assert (summary.rows, summary.ok, summary.failed, summary.skipped) == (3, 3, 0, 0)
    return folder


def test_every_mode_gives_a_video_with_sound_that_ends_with_it(finished: Path) -> None:
    rows = results(finished / "out")
    assert list(rows) == ["spoken", "driven", "both"]
    for row in rows.values():
        measure = measure_video(Path(row["video"]), TINY.limits)
        assert measure.frames == row["frames"] == 10
        assert (measure.width, measure.height) == (128, 128)
        assert measure.audio_end_s is not None
        assert abs(measure.video_end_s - measure.audio_end_s) <= 1 / 25
    assert [rows[id]["mode"] for id in rows] == ["audio", "driver", "driver"]
    assert rows["both"]["flags"] == ["lips_not_from_audio"]
    assert [rows[id]["title"] for id in rows] == ["first", "second", "third"]
    assert {row["weights"] for row in rows.values()} == {"random"}


def test_frames_are_those_of_the_reference_path(finished: Path, tmp_path: Path) -> None:
    """Everything between the files and the encoder, done again by hand with the plain networks."""
    record = json.loads((finished / "out" / "items" / "spoken.json").read_text())
    renderer, generator = build_seeded(PRESETS["imtalker-tiny"])
    picture = load_image(Path(demo("ana.png")), TINY.limits)
    face = choose_face(DlibDetector().detect(picture), "largest")
    square = resize_square(cut(picture, crop_around(face.box, picture.shape[1::-1], "audio")), 128)
    source = torch.from_numpy(square.copy()).permute(2, 0, 1)[None] / 255
    waveform = torch.from_numpy(decode_mono_16k(Path(demo("english.wav")), TINY.limits, max_seconds=0.4))[None]
    waveform = (waveform - waveform.mean()) / (waveform.var(correction=0) + 1e-7).sqrt()
    with torch.inference_mode():
        prepared = renderer.prepare(source)
        motion = generator.sample(waveform, prepared.motion, seed=record["seed"])[0]
        frames = renderer.render(prepared, motion)
    expected = (frames * 255).byte().permute(0, 2, 3, 1).numpy()
    # Random weights make noise, which the encoder changes a lot: send the expected frames through it too.
    with VideoWriter(
        tmp_path / "expected.mp4", width=128, height=128, settings=TINY.video, limits=TINY.limits
    ) as writer:
        writer.write(expected)
    ours, theirs = decode(Path(record["video"]["uri"])), decode(tmp_path / "expected.mp4")
    # The frames of these weights differ little in time, but by far more than rounding does.
    assert squared_error(ours, theirs) < 0.1 * squared_error(ours[1:], theirs[:-1])


def decode(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def squared_error(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.square(a.astype(float) - b).mean())


def test_a_second_run_makes_nothing(finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (finished / "out" / "videos").iterdir()}

    @contextmanager
    def refuse(context: Context) -> Iterator[Executor]:
        raise AssertionError("nothing is left to make")
        yield

    summary = run_manifest(str(finished / "manifest.parquet"), finished / "out", executor=refuse)
    assert (summary.ok, summary.reused, summary.computed) == (3, 3, {})
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert all(row["reused"] for row in results(finished / "out").values())


@pytest.mark.parametrize(
    ("change", "computed"),
    [
        ({"video": {"crf": 30}}, {"render": 2}),
        ({"cfg_scale": 1.5}, {"motion": 1, "render": 1}),
        ({"seed": 7}, {"motion": 1, "render": 1}),
        ({"crop": False}, {"crop": 2, "features": 2, "motion": 1, "render": 2}),
    ],
    ids=["crf", "guidance", "seed", "crop"],
)
def test_changed_settings_redo_what_they_shape_and_nothing_else(
    tmp_path: Path, change: dict[str, Any], computed: dict[str, int]
) -> None:
    manifest = write_manifest(tmp_path, [AUDIO_ROW, DRIVER_ROW])
    run_manifest(manifest, tmp_path / "out")
    first = results(tmp_path / "out")
    summary = run_manifest(manifest, tmp_path / "out", RunSettings(**TINY.model_dump() | change))
    assert summary.computed == computed
    second = results(tmp_path / "out")
    changed = {id for id in first if first[id]["sha256"] != second[id]["sha256"]}
    assert len(changed) == computed["render"]


def test_a_changed_input_is_made_again(tmp_path: Path) -> None:
    portrait = tmp_path / "portrait.png"
    portrait.write_bytes(Path(demo("ana.png")).read_bytes())
    manifest = write_manifest(tmp_path, [{**AUDIO_ROW, "image": str(portrait)}, DRIVER_ROW])
    run_manifest(manifest, tmp_path / "out")
    before = results(tmp_path / "out")
    portrait.write_bytes(Path(demo("mei.webp")).read_bytes())
    summary = run_manifest(manifest, tmp_path / "out")
    after = results(tmp_path / "out")
    assert summary.computed == {"crop": 1, "features": 1, "motion": 1, "render": 1}
    assert after["spoken"]["frames_sha256"] != before["spoken"]["frames_sha256"]
    assert after["driven"]["sha256"] == before["driven"]["sha256"]


def broken_rows(folder: Path) -> list[dict[str, Any]]:
    (folder / "broken.png").write_bytes(Path(demo("ana.png")).read_bytes()[:5000])
    (folder / "broken.wav").write_bytes(b"RIFF????WAVEnothing that is sound")
    faceless = folder / "faceless.png"
    Image.new("RGB", (300, 300), (90, 120, 200)).save(faceless)
    return [
        {**AUDIO_ROW, "id": "broken-image", "image": str(folder / "broken.png")},
        {**AUDIO_ROW, "id": "broken-audio", "audio": str(folder / "broken.wav")},
        {**AUDIO_ROW, "id": "no-face", "image": str(faceless)},
        {**AUDIO_ROW, "id": "missing", "audio": str(folder / "nowhere.wav")},
        {**AUDIO_ROW, "id": "../escape"},
    ]


def test_a_broken_item_fails_alone_with_a_typed_error(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, [AUDIO_ROW, *broken_rows(tmp_path), DRIVER_ROW])
    summary = run_manifest(manifest, tmp_path / "out")
    assert (summary.rows, summary.ok, summary.failed) == (7, 2, 5)
    assert summary.exit_code == 3
    rows = results(tmp_path / "out")
    assert {id: (row["error_kind"], row["error_stage"]) for id, row in rows.items() if row["status"] == "failed"} == {
        "broken-image": ("input", "crop"),
        "broken-audio": ("input", "features"),
        "no-face": ("input", "crop"),
        "missing": ("input", "features"),
        "../escape": ("input", "plan"),
    }
    for row in rows.values():
        if row["status"] == "failed":
            assert row["error_message"]
            assert row["error_hint"]
            assert row["video"] is None
    assert "crop=false" in rows["no-face"]["error_hint"]
    assert str(tmp_path / "broken.png") in rows["broken-image"]["error_message"]
    assert sorted(path.name for path in (tmp_path / "out" / "videos").iterdir()) == ["driven.mp4", "spoken.mp4"]
    assert (tmp_path / "out" / "items" / "_invalid" / "5.json").is_file()
    assert not list(tmp_path.glob("escape*"))

    told = (tmp_path / "out" / "items" / "_invalid" / "5.json").stat().st_ino
    again = run_manifest(manifest, tmp_path / "out")
    assert (again.ok, again.failed, again.reused, again.computed) == (2, 5, 2, {})
    assert (tmp_path / "out" / "items" / "_invalid" / "5.json").stat().st_ino == told, "said once"
    Path(tmp_path / "nowhere.wav").write_bytes(Path(demo("english.wav")).read_bytes())
    mended = run_manifest(manifest, tmp_path / "out")
    assert (mended.ok, mended.failed) == (3, 4)


def with_stage(executor: Executor, old: type[Stage[Any]], new: type[Stage[Any]]) -> Executor:
    """The executor, with one stage in the place of another."""
    run_stages = executor.run

    def run(
        tasks: Sequence[Any], stages: Sequence[type[Stage[Any]]], *, alone: bool = False
    ) -> Generator[Any, None, None]:
        return run_stages(tasks, [new if stage is old else stage for stage in stages], alone=alone)

    executor.run = run  # type: ignore[method-assign]
    return executor


def test_portraits_and_recordings_are_made_once(tmp_path: Path) -> None:
    portraits = [demo("ana.png"), demo("mei.webp")]
    recordings = [demo("english.wav"), demo("spanish.flac"), demo("french.m4a")]
    rows = [{"image": image, "audio": audio} for image in portraits for audio in recordings]
    prepared: list[str] = []

    class Counting(RenderStage):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            prepare = self.talker.prepare
            self.talker.prepare = lambda image, arrays: prepared.append("one") or prepare(image, arrays)  # type: ignore

    @contextmanager
    def counting(context: Context) -> Iterator[Executor]:
        with in_process(context) as executor:
            yield with_stage(executor, RenderStage, Counting)

    summary = run_manifest(write_manifest(tmp_path, rows), tmp_path / "out", executor=counting)
    assert summary.ok == 6
    assert summary.computed == {"crop": 2, "features": 5, "motion": 6, "render": 6}
    assert len(prepared) == 2


def test_limit_skips_the_rest_and_the_rows_add_up(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, [AUDIO_ROW, DRIVER_ROW, BOTH_ROW])
    summary = run_manifest(manifest, tmp_path / "out", limit=1)
    assert (summary.rows, summary.ok, summary.failed, summary.skipped, summary.exit_code) == (3, 1, 0, 2, 0)
    assert [row["status"] for row in results(tmp_path / "out").values()] == ["ok", "skipped", "skipped"]
    assert pq.read_table(tmp_path / "out" / "results.parquet").num_rows == 3


def test_an_items_seed_follows_its_content_not_its_name(tmp_path: Path) -> None:
    copy = tmp_path / "copy.wav"
    copy.write_bytes(Path(demo("english.wav")).read_bytes())
    manifest = write_manifest(
        tmp_path,
        [AUDIO_ROW, {**AUDIO_ROW, "id": "other", "audio": str(copy)}, {**AUDIO_ROW, "id": "seeded", "seed": 5}],
    )
    run_manifest(manifest, tmp_path / "out")
    rows = results(tmp_path / "out")
    assert rows["spoken"]["seed"] == rows["other"]["seed"]
    assert rows["spoken"]["frames_sha256"] == rows["other"]["frames_sha256"]
    assert rows["seeded"]["seed"] == 5
    assert rows["seeded"]["frames_sha256"] != rows["spoken"]["frames_sha256"]


def test_pose_and_gaze_shape_the_motion(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "pose.npy", rng.normal(size=(10, 3)).astype(np.float32))
    np.save(tmp_path / "gaze.npy", rng.normal(size=(4, 2)).astype(np.float32))
    torch.save({"pose_params": torch.randn(10, 3), "cam": torch.randn(10, 3)}, tmp_path / "smirk.pt")
    np.save(tmp_path / "wrong.npy", np.zeros((10, 5), np.float32))
    row = {**AUDIO_ROW, "seed": 1}
    manifest = write_manifest(
        tmp_path,
        [
            row,
            {**row, "id": "posed", "pose": "pose.npy", "gaze": "gaze.npy"},
            {**row, "id": "smirk", "pose": "smirk.pt"},
            {**row, "id": "wrong", "gaze": "wrong.npy"},
        ],
    )
    run_manifest(manifest, tmp_path / "out")
    rows = results(tmp_path / "out")
    assert len({rows[id]["frames_sha256"] for id in ("spoken", "posed", "smirk")}) == 3
    assert (rows["wrong"]["error_kind"], rows["wrong"]["error_stage"]) == ("input", "motion")
    assert "[frames, 2]" in rows["wrong"]["error_message"]


def test_an_output_that_cannot_be_written_stops_the_run(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, [AUDIO_ROW])
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CannotRun, match="can't be written"):
        run_manifest(manifest, tmp_path / "file" / "out")


class LosingExecutor:
    """Loses the tasks that it is told to, as Ray does with a block whose actor died too often."""

    def __init__(self, inner: Executor, lost: set[str], for_ever: bool) -> None:
        self.inner, self.lost, self.for_ever = inner, lost, for_ever
        self.alone: list[bool] = []
        self.placement = inner.placement

    def run(
        self, tasks: Sequence[Any], stages: Sequence[type[Stage[Any]]], *, alone: bool = False
    ) -> Generator[Any, None, None]:
        self.alone.append(alone)
        kept = [task for task in tasks if task.key not in self.lost or (alone and not self.for_ever)]
        return self.inner.run(kept, stages, alone=alone)


@pytest.mark.parametrize("for_ever", [False, True])
def test_a_lost_item_is_tried_alone_and_then_given_up(tmp_path: Path, for_ever: bool) -> None:
    manifest = write_manifest(tmp_path, [AUDIO_ROW, DRIVER_ROW])

    @contextmanager
    def losing(context: Context) -> Iterator[Executor]:
        with in_process(context) as executor:
            yield LosingExecutor(executor, {"spoken"}, for_ever)

    summary = run_manifest(manifest, tmp_path / "out", executor=losing)
    rows = results(tmp_path / "out")
    assert rows["driven"]["status"] == "ok"
    if for_ever:
        assert (rows["spoken"]["error_kind"], rows["spoken"]["error_stage"]) == ("infrastructure", "render")
        assert summary.exit_code == 3
        # Infrastructure failures are tried again by the next run.
        assert run_manifest(manifest, tmp_path / "out").ok == 2
    else:
        assert (summary.ok, summary.failed) == (2, 0)


def test_a_run_beside_another_one_stops_before_it_makes_anything(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, [AUDIO_ROW])
    with leased(Store(str(tmp_path / "out"), {})), pytest.raises(LeaseHeld, match="in use by another run"):
        run_manifest(manifest, tmp_path / "out")
    assert not (tmp_path / "out" / "items").exists()
    assert run_manifest(manifest, tmp_path / "out").ok == 1
    assert json.loads((tmp_path / "out" / "items" / "spoken.json").read_text())["fence"] == 2


def test_a_run_that_was_replaced_commits_nothing_more(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, [AUDIO_ROW, DRIVER_ROW, BOTH_ROW])
    store = Store(str(tmp_path / "out"), {})
    successor = Lease(open_cell(store, KEY), clock=lambda: time.time() + 100)

    class Replaced(RenderStage):
        def finish(self, task: ItemTask) -> None:
            super().finish(task)
            if store.list("items") == {f"items/{task.key}.json"}:
                successor.take()

    @contextmanager
    def replaced(context: Context) -> Iterator[Executor]:
        with in_process(context) as executor:
            yield with_stage(executor, RenderStage, Replaced)

    with pytest.raises(LeaseLost, match="another run has taken it over"):
        run_manifest(manifest, tmp_path / "out", executor=replaced)
    (record,) = (tmp_path / "out" / "items").iterdir()
    (video,) = (tmp_path / "out" / "videos").iterdir()
    assert (record.stem, json.loads(record.read_text())["fence"]) == (video.stem, 1)
    assert not (tmp_path / "out" / "results.parquet").exists()
    successor.confirm()
    successor.release()
    assert run_manifest(manifest, tmp_path / "out").reused == 1


def test_failures_are_made_again_on_demand(tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_bytes(b"RIFF????WAVEnothing that is sound")
    manifest = write_manifest(tmp_path, [{**AUDIO_ROW, "audio": str(tmp_path / "broken.wav")}, DRIVER_ROW])
    written = []
    for retry in (None, None, "model", "input", "failed"):
        summary = run_manifest(manifest, tmp_path / "out", retry=retry)
        assert (summary.ok, summary.errors) == (1, {"input": 1})
        written.append((tmp_path / "out" / "items" / "spoken.json").stat().st_mtime_ns)
    assert written[0] == written[1] == written[2] < written[3] < written[4]


def test_too_little_memory_on_a_gpu_makes_batches_smaller_and_every_item(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = write_manifest(tmp_path, [{"id": "one", "image": demo("ana.png"), "audio": demo("english.wav")}])
    settings = TINY.model_copy(update={"max_seconds": 0.5, "batch_size": 4})
    run_manifest(manifest, tmp_path / "roomy", settings)
    pictures = RenderNetwork.pictures

    def limited(self: RenderNetwork, motion: torch.Tensor, *rest: Any) -> Any:
        if len(motion) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return pictures(self, motion, *rest)

    monkeypatch.setattr(RenderNetwork, "pictures", limited)
    run_manifest(manifest, tmp_path / "short", settings)
    whole, made = results(tmp_path / "roomy")["one"], results(tmp_path / "short")["one"]
    assert made["status"] == whole["status"] == "ok" and made["frames"] == whole["frames"] == 13
    assert list(made["flags"]) == ["smaller_batches"] and list(whole["flags"]) == []

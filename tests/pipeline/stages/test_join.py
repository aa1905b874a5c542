"""An item in parts and in one go, by the real stages: the same video; and what becomes of its parts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import RenderResources, Resources, RunSettings, VideoSettings
from pipeline.errors import ItemError
from pipeline.ledger import Ledger, Record
from pipeline.media.verify import measure_video
from pipeline.parts import gathered, split
from pipeline.stages import render
from pipeline.stages.join import JoinStage
from pipeline.stages.render import RenderStage
from pipeline.storage import Store
from pipeline.talker import Arrays, TalkerInfo
from pipeline.tasks import MIXED_DEVICES, AssetTask, ItemTask

INFO = TalkerInfo("batches", version=1, resolution=64, fps=25, weights="random")
FRAMES = 55
SETTINGS = RunSettings(
    batch_size=4,
    video=VideoSettings(segment_seconds=0.4),
    resources=Resources(render=RenderResources(split_seconds=0.8)),
)


class Batches:
    """A model whose frames tell their code, and their place in the batch."""

    info = INFO
    precision = "float32"
    shrunk = False

    def __init__(self) -> None:
        self.size = 4
        self.rendered = 0
        self.fails_at: int | None = None

    def warm(self, stage: str) -> None:
        assert stage == "render"

    def prepare(self, image: np.ndarray, portrait: Arrays) -> int:
        return 0

    def render(self, prepared: int, motion: Arrays) -> Iterator[np.ndarray]:
        for start in range(0, len(motion["motion"]), self.size):
            codes = motion["motion"][start : start + self.size]
            if self.fails_at in codes:
                raise ItemError("model", f"frame {self.fails_at} is not finite")
            levels = 4 * codes + np.arange(len(codes))
            self.rendered += len(codes)
            yield np.broadcast_to(levels.astype(np.uint8)[:, None, None, None], (len(codes), 64, 64, 3)).copy()

    def inspect(self, frames: np.ndarray) -> Arrays:
        return {"motion": frames[:, 0, 0, :1].astype(np.float32)}


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> Batches:
    batches = Batches()
    monkeypatch.setattr(render, "load", lambda model, settings, info: batches)
    return batches


def item(folder: Path, key: str = "long") -> ItemTask:
    """An item as the motion stage leaves it."""
    store = Store(str(folder), {})
    store.put_arrays("cache/picture.npz", {"image": np.zeros((64, 64, 3), np.uint8)})
    store.put_arrays("cache/arrays.npz", {"motion": np.zeros((1, 1))})
    store.put_arrays("cache/motion.npz", {"motion": np.arange(FRAMES)})
    portrait = AssetTask(key="portrait", kind="portrait", uri="a.png")
    portrait.picture, portrait.arrays = "cache/picture.npz", "cache/arrays.npz"
    task = ItemTask(key=key, index=0, mode="audio", portrait=portrait, cfg_scale=3.0, nfe=10, request="r")
    task.motion, task.frames, task.fingerprint = "cache/motion.npz", FRAMES, "f"
    return task


def renderer(folder: Path, settings: RunSettings = SETTINGS) -> RenderStage:
    return RenderStage(settings, INFO, str(folder), 1, 2)


def joiner(folder: Path) -> JoinStage:
    return JoinStage(SETTINGS, INFO, str(folder), 1, 1)


def record(folder: Path, key: str = "long") -> Record:
    return Ledger(Store(str(folder), {})).read([key])[key]


def stored_parts(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "cache" / "parts").glob("*"))


@pytest.mark.parametrize("size", [4, 7], ids=["parts begin with a batch", "parts begin within a batch"])
def test_an_item_in_parts_is_the_item_in_one_go(tmp_path: Path, batches: Batches, size: int) -> None:
    batches.size = size
    settings = SETTINGS.model_copy(update={"batch_size": size})
    renderer(tmp_path / "whole", settings).run(item(tmp_path / "whole"))
    stage = renderer(tmp_path / "parts", settings)
    parts = [stage.run(part) for part in reversed(split(item(tmp_path / "parts"), settings, 25))]
    assert len(parts) == len(stored_parts(tmp_path / "parts")) == 3
    assert not (tmp_path / "parts" / "items").exists(), "no part is a commit"
    done = joiner(tmp_path / "parts").run(gathered(parts))
    assert done.error is None
    whole, joined = record(tmp_path / "whole").video, record(tmp_path / "parts").video
    assert whole is not None and joined is not None
    for fact in ("frames", "frames_sha256", "sha256", "size", "duration_s", "has_audio", "precision", "width"):
        assert joined[fact] == whole[fact], fact
    assert [(part["first"], part["frames"]) for part in joined["parts"]] == [(0, 20), (20, 20), (40, 15)]
    assert measure_video(tmp_path / "parts" / "videos" / "long.mp4", settings.limits).frames == FRAMES
    assert stored_parts(tmp_path / "parts") == []
    assert "render" in done.computed
    rendered, read = record(tmp_path / "whole").metrics, record(tmp_path / "parts").metrics
    assert (rendered["metrics_from"], read["metrics_from"]) == ("frames", "video")
    assert rendered["frames_missing"] == read["frames_missing"] == 0
    assert rendered["motion_jitter"] == read["motion_jitter"] is not None
    assert read["brightness_shift"] == pytest.approx(rendered["brightness_shift"], abs=1)


def test_parts_that_are_there_are_not_rendered_again(tmp_path: Path, batches: Batches) -> None:
    _, second, _ = split(item(tmp_path), SETTINGS, 25)
    renderer(tmp_path).run(second)
    assert batches.rendered == 20
    # A run that was killed, and started again.
    parts = [renderer(tmp_path).run(part) for part in split(item(tmp_path), SETTINGS, 25)]
    assert batches.rendered == FRAMES
    assert joiner(tmp_path).run(gathered(parts)).error is None
    found = record(tmp_path).video
    renderer(tmp_path / "whole").run(item(tmp_path / "whole"))
    assert found is not None and found["sha256"] == record(tmp_path / "whole").video["sha256"]  # type: ignore[index]


def test_other_threads_and_other_inputs_make_other_parts(tmp_path: Path, batches: Batches) -> None:
    """Equal frames are promised for equal threads only: such parts are never mixed."""
    part = split(item(tmp_path), SETTINGS, 25)[0]
    other = part.model_copy(update={"fingerprint": "g"}, deep=True)
    two_threads = RenderStage(SETTINGS, INFO, str(tmp_path), 2, 1)
    for stage, task in ((renderer(tmp_path), part), (two_threads, part), (renderer(tmp_path), other)):
        stage.run(task.model_copy(deep=True))
    assert len(stored_parts(tmp_path)) == 3


def test_a_part_that_fails_makes_one_record_of_its_item(tmp_path: Path, batches: Batches) -> None:
    batches.fails_at = 30
    parts = [renderer(tmp_path).run(part) for part in split(item(tmp_path), SETTINGS, 25)]
    done = joiner(tmp_path).run(gathered(parts))
    found = record(tmp_path)
    assert (found.status, found.video) == ("failed", None)
    assert found.error is not None and done.error == found.error
    assert (found.error.kind, found.error.stage, found.error.message) == ("model", "render", "frame 30 is not finite")
    assert not (tmp_path / "videos").exists()


def test_a_part_that_is_gone_fails_the_item_for_now(tmp_path: Path, batches: Batches) -> None:
    parts = [renderer(tmp_path).run(part) for part in split(item(tmp_path), SETTINGS, 25)]
    assert parts[1].part is not None and parts[1].part.key is not None
    Store(str(tmp_path), {}).delete(parts[1].part.key)
    joiner(tmp_path).run(gathered(parts))
    found = record(tmp_path)
    assert found.error is not None
    assert (found.error.kind, found.error.stage) == ("infrastructure", "render")
    assert found.error.message.startswith("part 2 of 3 is not in the cache any more")
    assert not (tmp_path / "videos").exists()


def test_parts_from_devices_of_several_kinds_are_flagged(
    tmp_path: Path, batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = split(item(tmp_path), SETTINGS, 25)
    parts = [renderer(tmp_path).run(tasks[0])]
    monkeypatch.setattr(render, "gpu_name", lambda: "Another GPU")
    parts += [renderer(tmp_path).run(task) for task in tasks[1:]]
    joiner(tmp_path).run(gathered(parts))
    assert MIXED_DEVICES in record(tmp_path).flags

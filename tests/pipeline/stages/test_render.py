"""The render stage with items side by side: one on the device, the others encoded and stored."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import RunSettings, VideoSettings
from pipeline.errors import CannotRun, ItemError
from pipeline.ledger import Ledger
from pipeline.media.verify import measure_video
from pipeline.stages import render
from pipeline.stages.render import RenderStage
from pipeline.storage import Store
from pipeline.talker import Arrays, TalkerInfo
from pipeline.tasks import AssetTask, ItemTask

INFO = TalkerInfo("numbers", version=1, resolution=64, fps=25, weights="random")
SETTINGS = RunSettings(batch_size=4, video=VideoSettings(segment_seconds=0.4))
FRAMES = 23


class Numbers:
    """A model whose frames are the levels that the motion says, if the device is its own."""

    info = INFO
    precision = "float16"
    shrunk = False

    def __init__(self) -> None:
        self.on_device = 0
        self.prepared = 0
        self.begun: dict[int, threading.Event] = {level: threading.Event() for level in range(256)}

    def warm(self, stage: str) -> None:
        assert stage == "render"

    def prepare(self, image: np.ndarray, portrait: Arrays) -> int:
        self.prepared += 1
        return int(image[0, 0, 0])

    def render(self, prepared: int, motion: Arrays) -> Iterator[np.ndarray]:
        self.on_device += 1
        self.begun[int(motion["motion"][0])].set()
        for start in range(0, FRAMES, 4):
            assert self.on_device == 1
            levels = motion["motion"][start : start + 4] + prepared
            if 200 in levels:
                self.on_device -= 1
                raise ItemError("model", "level 200 was reached")
            yield np.broadcast_to(levels.astype(np.uint8)[:, None, None, None], (len(levels), 64, 64, 3)).copy()
        self.on_device -= 1

    def inspect(self, frames: np.ndarray) -> Arrays:
        return {"motion": frames[:, 0, 0, :1].astype(np.float32)}


@pytest.fixture
def numbers(monkeypatch: pytest.MonkeyPatch) -> Numbers:
    numbers = Numbers()
    monkeypatch.setattr(render, "load", lambda model, settings, info: numbers)
    return numbers


def stage(folder: Path, encoders: int) -> RenderStage:
    return RenderStage(SETTINGS, INFO, str(folder), 1, encoders)


def item(folder: Path, level: int, portrait: int = 1) -> ItemTask:
    """An item as the motion stage leaves it."""
    store = Store(str(folder), {})
    store.put_arrays(f"cache/picture-{portrait}.npz", {"image": np.full((64, 64, 3), portrait, np.uint8)})
    store.put_arrays(f"cache/arrays-{portrait}.npz", {"motion": np.zeros((1, 1))})
    store.put_arrays(f"cache/motion-{level}.npz", {"motion": np.arange(level, level + FRAMES)})
    asset = AssetTask(key=f"portrait-{portrait}", kind="portrait", uri="a.png")
    asset.picture, asset.arrays = f"cache/picture-{portrait}.npz", f"cache/arrays-{portrait}.npz"
    return ItemTask(
        key=f"item-{level}",
        index=level,
        mode="audio",
        portrait=asset,
        cfg_scale=3.0,
        nfe=10,
        request="r",
        motion=f"cache/motion-{level}.npz",
        frames=FRAMES,
    )


def run_side_by_side(stage: RenderStage, items: list[ItemTask]) -> None:
    threads = [threading.Thread(target=stage.run, args=(item,)) for item in items]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def test_items_side_by_side_are_those_of_one_after_the_other(tmp_path: Path, numbers: Numbers) -> None:
    alone, together = stage(tmp_path / "alone", 1), stage(tmp_path / "together", 3)
    levels = [0, 30, 60, 90, 120, 150]
    for level in levels:
        alone.run(item(tmp_path / "alone", level))
    run_side_by_side(together, [item(tmp_path / "together", level) for level in levels])
    ids = [f"item-{level}" for level in levels]
    expected = Ledger(Store(str(tmp_path / "alone"), {})).read(ids)
    found = Ledger(Store(str(tmp_path / "together"), {})).read(ids)
    assert list(found) == ids
    for id in ids:
        assert found[id].error is None
        assert found[id].precision == "float16", "what the device had, not what was asked for"
        for fact in ("frames", "frames_sha256", "sha256", "size"):
            assert found[id].video[fact] == expected[id].video[fact], fact  # type: ignore[index]
        assert measure_video(tmp_path / "together" / "videos" / f"{id}.mp4", SETTINGS.limits).frames == FRAMES
    assert numbers.prepared == 2


def test_an_item_renders_while_the_one_before_it_is_stored(
    tmp_path: Path, numbers: Numbers, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_file = Store.put_file

    def late(store: Store, local: Path, key: str) -> None:
        if key == "videos/item-0.mp4":
            assert numbers.begun[30].wait(60), "the next item waits for this one's upload"
        put_file(store, local, key)

    monkeypatch.setattr(Store, "put_file", late)
    first, second = item(tmp_path, 0), item(tmp_path, 30)
    overlapping = stage(tmp_path, 2)
    thread = threading.Thread(target=overlapping.run, args=(first,))
    thread.start()
    assert numbers.begun[0].wait(60)
    overlapping.run(second)
    thread.join(60)
    assert (first.error, second.error) == (None, None)
    assert set(Ledger(Store(str(tmp_path), {})).read(["item-0", "item-30"])) == {"item-0", "item-30"}


def test_an_item_that_fails_takes_no_other_with_it(tmp_path: Path, numbers: Numbers) -> None:
    items = [item(tmp_path, level, portrait) for level, portrait in ((0, 1), (190, 2), (60, 3), (90, 1))]
    run_side_by_side(stage(tmp_path, 2), items)
    assert [task.error and task.error.message for task in items] == [None, "level 200 was reached", None, None]
    records = Ledger(Store(str(tmp_path), {})).read([task.key for task in items])
    assert [records[task.key].status for task in items] == ["ok", "failed", "ok", "ok"]
    assert sorted(path.name for path in (tmp_path / "videos").iterdir()) == ["item-0.mp4", "item-60.mp4", "item-90.mp4"]


def test_waiting_for_the_device_is_not_the_items_time(
    tmp_path: Path, numbers: Numbers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that only moves here: a hundred seconds until the device is free, a second for each of six batches."""
    now = 0.0

    class BusyDevice:
        def __enter__(self) -> None:
            nonlocal now
            now += 100

        def __exit__(self, *error: object) -> None:
            pass

    def rendering(prepared: int, motion: Arrays) -> Iterator[np.ndarray]:
        nonlocal now
        for frames in Numbers.render(numbers, prepared, motion):
            now += 1
            yield frames

    monkeypatch.setattr(numbers, "render", rendering)
    monkeypatch.setattr("time.perf_counter", lambda: now)
    busy, task = stage(tmp_path, 1), item(tmp_path, 0)
    monkeypatch.setattr(busy, "_device", BusyDevice())
    busy.run(task)
    assert task.error is None and task.video is not None
    assert (task.seconds["render"], task.video["render_s"]) == (6.0, 6.0)


def test_an_encoder_that_does_not_work_ends_the_run(
    tmp_path: Path, numbers: Numbers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    settings = SETTINGS.model_copy(update={"video": VideoSettings(encoder="nvenc")})
    with pytest.raises(CannotRun, match=r"^video\.encoder: nvenc .*use video\.encoder: libx264$"):
        RenderStage(settings, INFO, str(tmp_path), 1, 1)

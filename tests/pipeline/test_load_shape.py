"""Large runs by their shape: what is shared is made once, the longest come first, and the driver stays small."""

from __future__ import annotations

import threading
import tracemalloc
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.config import RunSettings
from pipeline.execute import Context, Executor, in_process
from pipeline.ledger import Ledger, Record
from pipeline.machines.cluster import connected
from pipeline.machines.resources import Placement
from pipeline.on_ray import on_ray
from pipeline.stages.base import Stage
from pipeline.stages.features import FeaturesStage
from pipeline.stages.motion import MotionStage
from pipeline.stages.render import RenderStage
from pipeline.storage import Store
from pipeline.summary import RunSummary
from pipeline.talker import Arrays, MotionRequest
from pipeline.tasks import AssetTask, Input, ItemTask
from tests.media_files import sine, write_audio
from tests.pipeline.test_run import with_stage
from tests.runs import run_manifest, write_manifest

UNCROPPED = RunSettings.model_validate(
    {
        "model": "imtalker-tiny",
        "crop": False,
        "resources": {stage: {"threads": 1} for stage in ("crop", "features", "motion", "render")},
    }
)


class CountedFeatures(FeaturesStage):
    """The real stage, whose network's calls are counted."""

    encoded: ClassVar[Counter[str]] = Counter()

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        portrait, audio = self.talker.encode_portrait, self.talker.encode_audio

        def encode_portrait(image: np.ndarray) -> Arrays:
            self.encoded["portrait"] += 1
            return portrait(image)

        def encode_audio(waveforms: Sequence[np.ndarray]) -> list[Arrays]:
            self.encoded["audio"] += len(waveforms)
            return audio(waveforms)

        self.talker.encode_portrait, self.talker.encode_audio = encode_portrait, encode_audio  # type: ignore[method-assign]


class StillMotion(MotionStage):
    """The real stage, but for its network."""

    def compute(self, works: Sequence[MotionRequest]) -> list[Arrays]:
        return [{"motion": np.zeros((len(work.audio["audio"]), 32), np.float32)} for work in works]


class NoRender(RenderStage):
    """Commits items without a video."""

    seen: ClassVar[list[tuple[str, int]]] = []

    def process(self, task: ItemTask) -> None:
        self.seen.append((task.portrait.key, task.due_frames))
        task.video = {"frames": task.frames, "duration_s": 1.0, "render_s": 0.0}


@contextmanager
def counted(context: Context) -> Iterator[Executor]:
    with in_process(context) as executor:
        yield with_stage(still(executor), FeaturesStage, CountedFeatures)


def still(executor: Executor) -> Executor:
    """The executor, whose items come through without the networks that move and render."""
    return with_stage(with_stage(executor, MotionStage, StillMotion), RenderStage, NoRender)


def cross(folder: Path, portraits: int, recordings: int) -> str:
    """A manifest of every portrait with every recording, whose lengths differ."""
    draw = np.random.default_rng(0)
    for index in range(portraits):
        picture = draw.integers(0, 255, (32, 32, 3), np.uint8)
        Image.fromarray(picture).save(folder / f"portrait-{index}.png")
    for index in range(recordings):
        sound = sine(16_000, 3200 + 640 * (index * 7 % recordings))[None]
        write_audio(folder / f"recording-{index}.wav", sound, 16_000, "pcm_s16le")
    pairs = [(image, audio) for image in range(portraits) for audio in range(recordings)]
    rows = [{"image": f"portrait-{image}.png", "audio": f"recording-{audio}.wav"} for image, audio in pairs]
    return write_manifest(folder, rows)


def run_cross(folder: Path, portraits: int, recordings: int) -> RunSummary:
    CountedFeatures.encoded.clear()
    NoRender.seen.clear()
    return run_manifest(cross(folder, portraits, recordings), folder / "out", UNCROPPED, executor=counted)


@pytest.mark.parametrize(
    ("portraits", "recordings"), [(50, 4), pytest.param(1000, 20, marks=pytest.mark.long)], ids=["50x4", "1000x20"]
)
def test_portraits_and_recordings_are_encoded_once_not_for_every_pair(
    tmp_path: Path, portraits: int, recordings: int
) -> None:
    summary = run_cross(tmp_path, portraits, recordings)
    assert (summary.ok, summary.failed) == (portraits * recordings, 0)
    assert CountedFeatures.encoded == {"portrait": portraits, "audio": recordings}
    assert summary.computed["crop"] == portraits
    assert summary.computed["features"] == portraits + recordings
    # A renderer that takes them in this order prepares each portrait once, and meets the longest first.
    groups = [(key, [frames for _, frames in some]) for key, some in groupby(NoRender.seen, lambda seen: seen[0])]
    assert len(groups) == len({key for key, _ in groups}) == portraits
    assert all(before >= after for _, lengths in groups for before, after in pairwise(lengths))
    assert all(len(set(lengths)) == recordings for _, lengths in groups)
    CountedFeatures.encoded.clear()
    again = run_manifest(str(tmp_path / "manifest.parquet"), tmp_path / "out", UNCROPPED, executor=counted)
    assert (again.reused, again.computed, CountedFeatures.encoded) == (portraits * recordings, {}, {})


class Instant:
    """Does a run's tasks without any stage, from their text, as they come back from Ray; and looks at the memory."""

    def __init__(self, context: Context, placement: Placement, look: Callable[[], None]) -> None:
        self.context, self.placement, self.look = context, placement, look
        self.ledger = Ledger(Store(context.output, {}))

    def run(
        self, tasks: Sequence[Any], stages: Sequence[type[Stage[Any]]], *, alone: bool = False
    ) -> Generator[Any, None, None]:
        for task in tasks:
            came = type(task).model_validate_json(task.model_dump_json())
            if isinstance(came, AssetTask):
                came.input, came.frames = Input(uri=came.uri, size=1, sha256="0" * 64), 10
            else:
                self.look()
                came.frames, came.video = 10, {"frames": 10, "duration_s": 0.4, "render_s": 1.0}
                self.ledger.write(Record.of(came, self.context.settings, self.context.info))
            yield came

    def beside(self, stage: Any, task: Any, *, alone: bool = False) -> Any:
        raise AssertionError("no item is long")


def instant(look: Callable[[], None]) -> Callable[[Context], AbstractContextManager[Executor]]:
    @contextmanager
    def opened(context: Context) -> Iterator[Executor]:
        with in_process(context) as executor:
            yield Instant(context, executor.placement, look)

    return opened


@pytest.mark.parametrize("items", [600, pytest.param(10_000, marks=pytest.mark.long)])
def test_the_driver_does_not_grow_with_the_items_that_come_back(tmp_path: Path, items: int) -> None:
    """The plan is there from the start, some kilobytes an item; after that nothing is added but counts."""
    for name in ("a.png", "a.wav"):
        (tmp_path / name).write_bytes(b"never read")
    manifest = write_manifest(tmp_path, [{"image": "a.png", "audio": "a.wav", "seed": seed} for seed in range(items)])
    held: list[int] = []
    tracemalloc.start()
    try:
        # Not before the first compaction has loaded what it needs.
        summary = run_manifest(
            manifest, tmp_path / "out", executor=instant(lambda: held.append(tracemalloc.get_traced_memory()[0]))
        )
    finally:
        tracemalloc.stop()
    assert summary.ok == len(held) == items
    grown = held[-1] - held[items // 6]
    assert grown / items < 2_000, f"{grown} bytes for the last {items - items // 6} items"
    assert held[0] / items < 20_000, f"{held[0]} bytes of plan for {items} items"


@contextmanager
def on_ray_without_networks(context: Context) -> Iterator[Executor]:
    with on_ray(context) as executor:
        yield still(executor)


@pytest.mark.long
def test_the_driver_hardly_grows_with_the_items_that_come_back_from_ray(tmp_path: Path) -> None:
    """Ray keeps books of what its actors did, 14 KB an item; a result that stayed would be as much again."""
    items, held = 3000, list[int]()
    manifest = cross(tmp_path, 1, 1)
    (row,) = pq.read_table(manifest).to_pylist()
    write_manifest(tmp_path, [{**row, "seed": seed} for seed in range(items)])
    finished, driver = threading.Event(), psutil.Process()

    def watch() -> None:
        records = tmp_path / "out" / "items"
        while not finished.wait(1.0):
            # Not what the table of results needs at the end.
            if records.is_dir() and items // 6 < sum(1 for _ in records.iterdir()) < items:
                held.append(driver.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with connected(num_cpus=4, num_gpus=0):
            summary = run_manifest(manifest, tmp_path / "out", UNCROPPED, executor=on_ray_without_networks)
    finally:
        finished.set()
        watcher.join()
    assert summary.ok == items
    assert len(held) > 10
    assert (held[-1] - held[0]) / (items * 5 / 6) < 40_000, [mib >> 20 for mib in (held[0], held[-1])]

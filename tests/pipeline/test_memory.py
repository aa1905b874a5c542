"""What a render worker and Ray's object store hold doesn't grow with the length of an item."""

from __future__ import annotations

import multiprocessing
import threading
import wave
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config import RunSettings
from pipeline.execute import Context, Executor
from pipeline.ledger import Ledger
from pipeline.machines.cluster import connected
from pipeline.on_ray import on_ray
from pipeline.parts import gathered, split
from pipeline.run import prepare
from pipeline.stages.join import JoinStage
from pipeline.stages.render import RenderStage, peak_memory_bytes
from pipeline.storage import Store
from pipeline.talker import Arrays
from pipeline.tasks import AssetTask, ItemTask
from tests.pipeline.test_run import with_stage
from tests.runs import demo, run_manifest, write_manifest

FRAME_BYTES = 128 * 128 * 3
MIB = 1 << 20


def settings(split_seconds: float | None) -> RunSettings:
    return RunSettings.model_validate(
        {"model": "imtalker-tiny", "resources": {"render": {"threads": 1, "split_seconds": split_seconds}}}
    )


class CheapRender(RenderStage):
    """The real stage with the real model loaded, whose frames are a moving pattern: rendering takes no time."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        size = self.info.resolution
        ramp = np.arange(2 * size, dtype=np.uint8)[None, :, None]
        wide = np.broadcast_to(ramp, (size, 2 * size, 3)).copy()

        def render(prepared: Any, motion: Arrays) -> Iterator[np.ndarray]:
            count = len(motion["motion"])
            for start in range(0, count, self.settings.batch_size):
                steps = range(start, min(start + self.settings.batch_size, count))
                yield np.stack([wide[:, step % size : step % size + size] for step in steps])

        self.talker.render = render  # type: ignore[method-assign]


def rendered(folder: Path, frames: int, chosen: RunSettings) -> int:
    """Make an item of so many frames with sound, as the motion stage leaves it; the peak memory of this process."""
    info, store = prepare(chosen), Store(str(folder / "out"), {})
    store.put_arrays("cache/picture.npz", {"image": np.zeros((info.resolution, info.resolution, 3), np.uint8)})
    store.put_arrays("cache/arrays.npz", {"motion": np.zeros((1, 32), np.float32)})
    store.put_arrays("cache/motion.npz", {"motion": np.zeros((frames, 32), np.float32)})
    portrait = AssetTask(key="p", kind="portrait", uri="a.png", picture="cache/picture.npz", arrays="cache/arrays.npz")
    audio = AssetTask(key="a", kind="audio", uri=str(folder / "a.wav"), frames=frames)
    task = ItemTask(
        key="item", index=0, mode="audio", portrait=portrait, audio=audio, cfg_scale=3.0, nfe=10, request="r"
    )
    task.motion, task.frames, task.fingerprint = "cache/motion.npz", frames, "f"
    stage = CheapRender(chosen, info, store.uri, 1, 1)
    done = [stage.run(part) for part in split(task, chosen, info.fps)]
    if len(done) > 1:
        JoinStage(chosen, info, store.uri, 1, 1).run(gathered(done))
    found = Ledger(store).read(["item"])["item"]
    assert found.error is None and found.video is not None, found.error
    assert (found.video["frames"], found.video["has_audio"]) == (frames, True)
    return peak_memory_bytes()


def peak_of(folder: Path, frames: int, split_seconds: float | None) -> int:
    """`rendered` in a process of its own."""
    folder.mkdir()
    with wave.open(str(folder / "a.wav"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16_000)
        for _ in range(frames):
            sound.writeframes(bytes(2 * 640))
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(rendered, folder, frames, settings(split_seconds)).result()


@pytest.mark.parametrize(
    ("short", "long", "split_seconds"),
    [
        (300, 3000, 60.0),
        pytest.param(1500, 90_000, 300.0, marks=pytest.mark.long),
        pytest.param(1500, 90_000, None, marks=pytest.mark.long),
    ],
    ids=["two minutes in parts", "an hour in parts", "an hour in one go"],
)
def test_a_worker_holds_no_more_for_a_long_item(
    tmp_path: Path, short: int, long: int, split_seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Else glibc's heap keeps large buffers that were freed, as many as luck has it: some 20 MB in an hour.
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "262144")
    peaks = [peak_of(tmp_path / str(frames), frames, split_seconds) for frames in (short, long)]
    frames_mib = (long - short) * FRAME_BYTES / MIB
    # Motion codes, the hashes of frames and the MP4's tables of samples: some 250 bytes a frame. Frames are 49,152.
    grown_mib = (peaks[1] - peaks[0]) / MIB
    assert grown_mib < 40 + 300 * (long - short) / MIB < frames_mib / 2, [round(peak / MIB) for peak in peaks]


@contextmanager
def cheap(context: Context) -> Iterator[Executor]:
    with on_ray(context) as executor:
        yield with_stage(executor, RenderStage, CheapRender)


@pytest.mark.long
def test_rays_object_store_holds_no_frames(tmp_path: Path) -> None:
    """Two minutes of video, 147 MB of frames, while somebody watches the store."""
    with wave.open(str(tmp_path / "a.wav"), "wb") as sound:
        sound.setparams((1, 2, 16_000, 0, "NONE", ""))
        noise = np.random.default_rng(0).integers(-3000, 3000, 120 * 16_000, np.int16)
        sound.writeframes(noise.tobytes())
    rows = [{"id": f"item-{i}", "image": demo("ana.png"), "audio": str(tmp_path / "a.wav"), "seed": i} for i in (0, 1)]
    seen: list[int] = []
    finished = threading.Event()
    with connected(num_cpus=4, num_gpus=0):

        def watch() -> None:
            while not finished.wait(0.2):
                seen.append(stored_bytes())

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            summary = run_manifest(write_manifest(tmp_path, rows), tmp_path / "out", settings(30.0), executor=cheap)
        finally:
            finished.set()
            watcher.join()
    assert summary.ok == 2
    assert summary.frames == 6000
    assert len(seen) > 10
    assert 0 < max(seen) < 5 * MIB, "the tasks, and nothing of the frames' size"


def stored_bytes() -> int:
    """What is in the object stores of the cluster."""
    import ray
    from ray._private.internal_api import get_memory_info_reply, get_state_from_address

    reply = get_memory_info_reply(get_state_from_address(ray.get_runtime_context().gcs_address))
    return int(reply.store_stats.object_store_bytes_used)

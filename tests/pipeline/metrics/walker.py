"""A model whose frames are a picture that walks as its motion says, for the stages that measure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.config import RunSettings, VideoSettings
from pipeline.inputs.fetch import file_sha256
from pipeline.media.wav import write_wav
from pipeline.stages.render import RenderStage
from pipeline.storage import Store
from pipeline.talker import Arrays, TalkerInfo
from pipeline.tasks import AssetTask, Input, ItemTask
from tests.media_files import smooth_picture

INFO = TalkerInfo("walker", version=1, resolution=64, fps=25, weights="trained", window=50)
SETTINGS = RunSettings(batch_size=8, video=VideoSettings(preset="ultrafast"))
FRAMES = 120
PORTRAIT = smooth_picture(5, 64, 64)


class Walker:
    """Motion [T, 1] is how many pixels right the picture stands; ``defect`` spoils a batch of frames."""

    info = INFO
    precision = "float32"
    shrunk = False

    def __init__(self) -> None:
        self.inspected = 0

    def warm(self, stage: str) -> None:
        pass

    def prepare(self, image: np.ndarray, portrait: Arrays) -> np.ndarray:
        return image

    def render(self, prepared: np.ndarray, motion: Arrays) -> Iterator[np.ndarray]:
        steps = motion["motion"][:, 0].astype(int)
        for start in range(0, len(steps), 8):
            yield self.defect(np.stack([np.roll(prepared, step, axis=1) for step in steps[start : start + 8]]), start)

    def defect(self, frames: np.ndarray, start: int) -> np.ndarray:
        return frames

    def inspect(self, frames: np.ndarray) -> Arrays:
        """Where the picture stands, and how bright it is in either half."""
        self.inspected += len(frames)
        found = [
            min(range(-9, 10), key=lambda step: np.abs(np.roll(PORTRAIT, step, axis=1) - f.astype(int)).sum())
            for f in frames
        ]
        halves = np.stack([frames[:, :32].mean((1, 2, 3)), frames[:, 32:].mean((1, 2, 3))], axis=1)
        return {"motion": np.array(found, dtype=np.float32)[:, None], "identity": halves}


def walk() -> np.ndarray:
    """float32 [T, 1]: a pixel a frame, to and fro."""
    at = np.arange(FRAMES) % 16
    return np.where(at < 8, at, 16 - at).astype(np.float32)[:, None]


def task(folder: Path, name: str = "a") -> ItemTask:
    """An item as the motion stage leaves it, with sound."""
    store = Store(str(folder), {})
    store.put_arrays("cache/picture.npz", {"image": PORTRAIT})
    store.put_arrays("cache/arrays.npz", {"motion": np.zeros((1, 1))})
    store.put_arrays("cache/motion.npz", {"motion": walk()})
    t = np.arange(int(FRAMES / 25 * 16_000)) / 16_000
    write_wav(folder / "sound.wav", (0.3 * np.sin(2 * np.pi * 440 * t) * (t % 2 < 1)).astype(np.float32), 16_000)
    portrait = AssetTask(key="portrait", kind="portrait", uri="a.png")
    portrait.picture, portrait.arrays = "cache/picture.npz", "cache/arrays.npz"
    sound = folder / "sound.wav"
    return ItemTask(
        key=name,
        index=0,
        mode="audio",
        portrait=portrait,
        audio=AssetTask(key="audio", kind="audio", uri=str(folder / "sound.wav")),
        cfg_scale=3.0,
        nfe=10,
        request="r",
        motion="cache/motion.npz",
        frames=FRAMES,
        inputs={"audio": Input(uri=str(sound), size=sound.stat().st_size, sha256=file_sha256(sound))},
    )


def stage(folder: Path, settings: RunSettings = SETTINGS) -> RenderStage:
    return RenderStage(settings, INFO, str(folder), 1, 1)

"""Crop, decode and encode alone, as the stages do them, on the demo's files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from imtalker.engine.bench.measure import Measurement, best_seconds
from imtalker.presets import find_preset
from pipeline.bench.material import DRIVER, PORTRAITS, VOICES
from pipeline.bench.options import BenchOptions
from pipeline.config import RunSettings
from pipeline.media.audio import SAMPLE_RATE, decode_mono_16k
from pipeline.media.crop_box import crop_around, cut
from pipeline.media.driver import DriverReader
from pipeline.media.encode import VideoWriter
from pipeline.media.faces import choose_face, load_detector
from pipeline.media.image import load_image, resize_square


def bench_media(options: BenchOptions) -> list[Measurement]:
    """Rows of those of crop, decode and encode that are wanted; one worker, one thread but for the decoders' own.

    They have no ratio: nothing was made faster than something else here.
    """
    size = find_preset(options.networks.model).renderer.resolution
    settings = RunSettings()
    rows: list[Measurement] = []

    def add(name: str, amount: float, unit: str, work: Callable[[], Any]) -> None:
        times = best_seconds({name: work}, rounds=options.networks.rounds, device=torch.device("cpu"))
        rows.append(Measurement(name, amount / times[name], unit))

    if "crop" in options.only:
        detector = load_detector(settings.detector)

        def crop() -> None:
            for path in PORTRAITS:
                image = load_image(path, settings.limits)
                face = choose_face(detector.detect(image), settings.face)
                height, width = image.shape[:2]
                resize_square(cut(image, crop_around(face.box, (width, height), "audio")), size)

        add("crop", len(PORTRAITS), "portraits", crop)
    if "decode" in options.only:
        add("decode driver", len(_driver(size, options)), "frames", lambda: _driver(size, options))
        add("decode audio", _voices(options), "seconds of audio", lambda: _voices(options))
    if "encode" in options.only:
        frames = _driver(size, options)
        with TemporaryDirectory(prefix="imtalker-bench-") as folder:
            path = Path(folder) / "video.mp4"
            add("encode", len(frames), "frames", lambda: _encode(path, frames, settings))
    return rows


def _driver(size: int, options: BenchOptions) -> np.ndarray:
    """The driver's frames, uint8 [n, size, size, 3]."""
    reader = DriverReader(DRIVER, size, RunSettings().limits, max_seconds=options.media_seconds)
    return np.concatenate(list(reader))


def _voices(options: BenchOptions) -> float:
    """Decode the recordings; how many seconds they last."""
    limits = RunSettings().limits
    return sum(len(decode_mono_16k(path, limits, options.media_seconds)) for path in VOICES) / SAMPLE_RATE


def _encode(path: Path, frames: np.ndarray, settings: RunSettings) -> None:
    size = frames.shape[1]
    with VideoWriter(
        path, width=size, height=size, settings=settings.video, limits=settings.limits, audio=DRIVER
    ) as writer:
        writer.write(frames)

"""Real files to measure with: the demo's, and recordings of any length made from its voices."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

import manifests
from pipeline.config import InputLimits
from pipeline.media.audio import SAMPLE_RATE, decode_mono_16k
from pipeline.media.wav import write_wav

_DEMO = Path(manifests.__file__).parent / "demo"
PORTRAITS = tuple(_DEMO / name for name in ("ana.png", "kofi.jpg", "mei.webp"))
VOICES = tuple(_DEMO / name for name in ("english.wav", "spanish.flac", "french.m4a"))
DRIVER = _DEMO / "driver.mp4"


def rows(folder: Path, items: int, seconds: float) -> Iterator[dict[str, Any]]:
    """Manifest rows of so many items: the three portraits in turn, each item with a recording of its own."""
    limits = InputLimits()
    voices = [decode_mono_16k(path, limits) for path in VOICES]
    for index, portrait, voice in zip(range(items), cycle(PORTRAITS), cycle(voices), strict=False):
        path = folder / f"{index}.wav"
        # Another beginning for each: no two recordings are the same file.
        write_wav(path, np.resize(np.roll(voice, -1000 * index), max(1, round(seconds * SAMPLE_RATE))), SAMPLE_RATE)
        yield {"id": f"item-{index}", "image": str(portrait), "audio": str(path)}

"""WAV files: written, and checked for being whole; FFmpeg takes a cut-off one for a short one."""

from __future__ import annotations

import struct
import wave
from pathlib import Path

import numpy as np

from pipeline.errors import InputError

_UNKNOWN_BYTES = 0x7FFF_0000
"""Sizes from here on are what programs write that stream and don't know the size yet."""


def check_wav(path: Path) -> None:
    """Raise `InputError` if the samples that a RIFF WAVE file announces aren't all there."""
    with path.open("rb") as file:
        end = path.stat().st_size
        if file.read(12)[:4] != b"RIFF":
            return  # RF64 and the like
        while len(header := file.read(8)) == 8:
            name, size = header[:4], struct.unpack("<I", header[4:])[0]
            start = file.tell()
            if name == b"data":
                if size < _UNKNOWN_BYTES and start + size > end:
                    raise InputError(
                        f"expected {size} bytes of samples by the header, found {end - start}: {path.name} is cut off",
                        hint="upload the file again, or export it again if it is meant to be this long",
                    )
                return
            file.seek(start + size + size % 2)


def write_wav(path: Path, samples: np.ndarray, rate: int) -> None:
    """Write float [N] in -1..1 as mono PCM of 16 bits at ``rate`` Hz; what is louder is clipped."""
    with path.open("wb") as target, wave.open(target, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples.clip(-1, 1) * 32767).round().astype("<i2").tobytes())

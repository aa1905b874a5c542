"""A decoder with faults: `pipeline.media.decoder`, which crashes or hangs over files that ask for it.

A file asks with a word anywhere in it, so that the same file is broken on every attempt and its neighbours are not.
"""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.config import InputLimits
from pipeline.media import decoder
from pipeline.media.decoder import Job
from pipeline.media.pieces import Piece

COMMAND = (sys.executable, "-P", "-m", "tests.faulty_decoder")

CRASHES, HANGS, FILLS = b"segmentation-fault-please", b"hang-please", b"all-memory-please"
CRASHES_LATE = b"fault-in-the-sound-track-please"


def _faulty(name: str, job: Job) -> Job:
    def run(path: Path, limits: InputLimits, **options: Any) -> Iterator[Piece]:
        content = path.read_bytes()
        if CRASHES in content or (CRASHES_LATE in content and name == "sound"):
            ctypes.string_at(0)
        if HANGS in content:
            signal.pause()
        if FILLS in content:
            bytearray(limits.max_decoder_bytes)
        return job(path, limits, **options)

    return run


if __name__ == "__main__":
    decoder.JOBS.update({name: _faulty(name, job) for name, job in decoder.JOBS.items()})
    decoder.main(sys.argv[1:])

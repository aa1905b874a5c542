"""Reading back the videos that a run has made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

_BATCH = 16


def stored_frames(path: Path) -> Iterator[np.ndarray]:
    """Every frame of a video of `pipeline.media.encode`, in batches: uint8 [n, H, W, 3] RGB.

    For files of our own only: nothing guards this process against those of strangers. Raises `av.FFmpegError`.
    """
    with av.open(str(path)) as container:
        batch: list[np.ndarray] = []
        for frame in container.decode(video=0):
            batch.append(frame.to_ndarray(format="rgb24"))
            if len(batch) == _BATCH:
                yield np.stack(batch)
                batch = []
        if batch:
            yield np.stack(batch)

"""Whether the video's sound is the recording's, and ends with the pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from pipeline.metrics.correlation import correlation
from pipeline.metrics.speech import SAMPLE_RATE

_AUDIBLE = 0.03
"""Seconds whose level is 30 dB below the loudest are not compared: there a codec's noise counts as much."""


@dataclass(frozen=True)
class Preserved:
    """``correlation``: the worst second's, -1..1; ``level_db``: the video's sound over the recording's, all of it."""

    correlation: float
    level_db: float


def preserved(recording: np.ndarray, heard: np.ndarray) -> Preserved | None:
    """Compare two waveforms [N], [M] at 16 kHz that begin together; None for a silent recording.

    As far as ``recording`` goes; what ``heard`` lacks at its end is silence. Pearson's correlation of every whole
    second of the recording that is no more than 30 dB below its loudest, or of all of it where it is shorter.
    """
    heard = np.pad(heard[: len(recording)], (0, max(len(recording) - len(heard), 0))).astype(np.float64)
    length = min(len(recording), SAMPLE_RATE)
    count = len(recording) // length if length else 0
    if not count:
        return None
    ours = recording[: count * length].reshape(count, length).astype(np.float64)
    theirs = heard[: count * length].reshape(count, length)
    levels = np.sqrt(np.square(ours).mean(1))
    if levels.max() < 1e-5:
        return None
    loud = levels >= _AUDIBLE * levels.max()
    correlations = [correlation(a, b) for a, b in zip(ours[loud], theirs[loud], strict=True)]
    ratio = np.sqrt(np.square(heard).mean()) / np.sqrt(np.square(recording.astype(np.float64)).mean())
    return Preserved(min(correlations), float(20 * np.log10(max(ratio, 1e-6))))


def end_gap_s(path: Path) -> float | None:
    """Seconds by which the sound ends after the pictures (negative: before), by an MP4's index.

    None without sound. Nothing is decoded, so the file has to be one that this program wrote.
    """
    with av.open(str(path)) as container:
        ends = [
            float(((stream.start_time or 0) + stream.duration) * stream.time_base)
            for stream in (*container.streams.video[:1], *container.streams.audio[:1])
            if stream.duration is not None and stream.time_base is not None
        ]
    return ends[1] - ends[0] if len(ends) == 2 else None

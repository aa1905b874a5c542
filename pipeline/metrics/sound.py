"""Whether the video's sound is the recording's, and ends with the pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from pipeline.metrics.correlation import correlation
from pipeline.metrics.speech import SAMPLE_RATE

_AUDIBLE = 0.03
"""Pieces whose level is 30 dB below the loudest are not compared: there a codec's noise counts as much."""
_PIECE = SAMPLE_RATE // 4
_SILENT = 1e-5


@dataclass(frozen=True)
class Preserved:
    """``correlation``: of the worst quarter second, -1..1; ``level_db``: the video over the recording, in all."""

    correlation: float
    level_db: float


def preserved(recording: np.ndarray, heard: np.ndarray) -> Preserved | None:
    """Compare two waveforms [N], [M] at 16 kHz that begin together; None for a silent recording.

    As far as ``recording`` goes; what ``heard`` lacks at its end is silence. Pearson's correlation of every quarter
    of a second of the recording that is no more than 30 dB below its loudest; the last
    one may be half as long again.
    """
    count = max(round(len(recording) / _PIECE), 1)
    bounds = [(k * _PIECE, (k + 1) * _PIECE if k < count - 1 else len(recording)) for k in range(count)]

    def piece(waveform: np.ndarray, start: int, end: int) -> np.ndarray:
        """In double precision, which an hour has no room for as a whole."""
        there = waveform[start:end].astype(np.float64)
        return np.pad(there, (0, end - start - len(there)))

    levels = [_level(piece(recording, *bound)) for bound in bounds]
    if max(levels) < _SILENT:
        return None
    loud = [bound for bound, level in zip(bounds, levels, strict=True) if level >= _AUDIBLE * max(levels)]
    worst = min(correlation(piece(recording, *bound), piece(heard, *bound)) for bound in loud)
    lengths = [end - start for start, end in bounds]
    ours = np.average(np.square(levels), weights=lengths)
    theirs = np.average([_level(piece(heard, *bound)) ** 2 for bound in bounds], weights=lengths)
    return Preserved(worst, float(10 * np.log10(max(theirs / ours, 1e-12))))


def _level(samples: np.ndarray) -> float:
    """Root mean square; 0 for none."""
    return float(np.sqrt(np.square(samples).mean())) if len(samples) else 0.0


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

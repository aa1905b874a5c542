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


class SoundComparison:
    """Compares two waveforms at 16 kHz that begin together, in pieces, as far as the recording goes.

    Pearson's correlation of every quarter of a second of the recording that is no more than 30 dB below its loudest;
    the last one may be half as long again.
    """

    def __init__(self) -> None:
        self._recording = self._heard = np.zeros(0)
        self._quarters: list[tuple[int, float, float, float]] = []
        """Of each: samples, both levels and the correlation."""

    def add(self, recording: np.ndarray, heard: np.ndarray) -> None:
        """The next samples of both, float [n] and [m]. What ``heard`` lacks is silence, what it has beyond is left."""
        missing = max(len(recording) - len(heard), 0)
        heard = np.pad(heard[: len(recording)], (0, missing))
        self._recording = np.concatenate([self._recording, recording.astype(np.float64)])
        self._heard = np.concatenate([self._heard, heard.astype(np.float64)])
        # The last quarter takes what is left, so that one stays back until it is known not to be the last.
        while len(self._recording) >= 3 * _PIECE / 2:
            self._compare(_PIECE)

    def result(self) -> Preserved | None:
        """None for a silent recording. Nothing can be added afterwards."""
        if len(self._recording):
            self._compare(len(self._recording))
        if not self._quarters:
            return None
        samples, ours, theirs, correlations = np.array(self._quarters).T
        if ours.max() < _SILENT:
            return None
        power, kept = (np.average(np.square(levels), weights=samples) for levels in (ours, theirs))
        worst = correlations[ours >= _AUDIBLE * ours.max()].min()
        return Preserved(float(worst), float(10 * np.log10(max(kept / power, 1e-12))))

    def _compare(self, samples: int) -> None:
        recording, heard = self._recording[:samples], self._heard[:samples]
        self._quarters.append((samples, _level(recording), _level(heard), correlation(recording, heard)))
        self._recording, self._heard = self._recording[samples:], self._heard[samples:]


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

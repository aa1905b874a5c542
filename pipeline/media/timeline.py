"""When a source frame is shown: any frame rate, constant or not, onto a clock of 25 ticks a second."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Any

from pipeline.media.audio import SAMPLE_RATE, samples_within
from pipeline.media.probe import start_time

FPS = 25
"""Ticks a second: the frame rate of the model and of every output."""


@dataclass(frozen=True)
class Timeline:
    """Maps a stream's time stamps to ticks; tick t is the moment ``t / 25`` s after the start of the file."""

    time_base: Fraction
    """Seconds of one unit of the time stamps."""
    start: Fraction
    """Seconds, in the stream's own time, that count as tick 0."""

    @classmethod
    def of(cls, container: Any, stream: Any) -> Timeline:
        return cls(stream.time_base, start_time(container))

    def first_tick(self, pts: int) -> int:
        """The first tick that shows a frame stamped ``pts``; with the end of the last frame, the number of ticks.

        Exact in integers, but for half a unit of the time base: time stamps were rounded to it when the file was
        written, and may lie that much too late.
        """
        return ceil(((pts - Fraction(1, 2)) * self.time_base - self.start) * FPS)


def ticks_within(seconds: float) -> int:
    """Ticks of an item cut to ``seconds``: as many as audio of that length has, ``ceil(n * 25 / 16000)``."""
    return -(-samples_within(seconds) * FPS // SAMPLE_RATE)

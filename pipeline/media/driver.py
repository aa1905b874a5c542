"""Driver videos: square frames at 25 a second, a window at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.config import InputLimits
from pipeline.media.image import resize_square
from pipeline.media.timeline import ticks_within
from pipeline.media.video import Decoder, DecordError, open_pictures


class DriverReader:
    """Reads a driver as the published video-driven command line does: the whole frame scaled to a square.

    Frame t is what the file shows at t / 25 s: the last source frame that starts at or before that moment (the first
    one, if none does), whatever the source's frame rate. Rotation is obeyed. One window of frames and a few full-size
    ones are held, never the clip.

    Attributes:
        decoder: who read the file, ``"decord"`` or ``"pyav"``; final once the frames are read.
        frames: how many frames were read; ``None`` until all are.
    """

    def __init__(
        self,
        path: Path,
        size: int,
        limits: InputLimits,
        *,
        max_seconds: float | None = None,
        every: int = 1,
        window: int = 32,
        decoder: Decoder | None = None,
    ) -> None:
        """Open ``path`` for every ``every``-th frame, ``size`` x ``size``; ``decoder="pyav"`` leaves decord out.

        Raises `InputError` if the file isn't a readable video within ``limits``.
        """
        self._path, self._size, self._limits, self._window = path, size, limits, window
        self._every = every
        self._stop = None if max_seconds is None else ticks_within(max_seconds)
        self._pictures = open_pictures(path, limits, decoder)
        self.frames: int | None = None

    @property
    def decoder(self) -> Decoder:
        return self._pictures.decoder

    def __iter__(self) -> Iterator[np.ndarray]:
        """Windows of frames: uint8 [n, size, size, 3] RGB, 1 <= n <= window.

        Raises `InputError` where the file is damaged, cut off, or longer than the limits.
        """
        done = 0
        window: list[np.ndarray] = []
        for frame in self._squares():
            window.append(frame)
            if len(window) == self._window:
                done += len(window)
                yield np.stack(window)
                window = []
        if window:
            done += len(window)
            yield np.stack(window)
        self.frames = done

    def _squares(self) -> Iterator[np.ndarray]:
        tick = 0
        try:
            for square in self._squares_from(0):
                yield square
                tick += self._every
        except DecordError:
            self._pictures = open_pictures(self._path, self._limits, "pyav")
            yield from self._squares_from(tick)

    def _squares_from(self, tick: int) -> Iterator[np.ndarray]:
        last: np.ndarray | None = None
        square = np.empty(0, dtype=np.uint8)
        for _, picture in self._pictures.at(tick, self._every, self._stop):
            if picture is not last:
                last, square = picture, resize_square(picture, self._size)
            yield square


def sample_frames(path: Path, limits: InputLimits, every: int = 15) -> Iterator[np.ndarray]:
    """Every ``every``-th frame of the 25 a second, full size and upright: uint8 [H, W, 3] RGB.

    For looking at a driver (is there a face?). Raises `InputError` as `DriverReader` does.
    """
    start = 0
    try:
        for tick, picture in open_pictures(path, limits).at(start, every, None):
            yield picture
            start = tick + every
    except DecordError:
        for _, picture in open_pictures(path, limits, "pyav").at(start, every, None):
            yield picture

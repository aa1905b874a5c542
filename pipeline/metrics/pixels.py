"""What frames show by themselves: streaming, in memory that grows by a few numbers a frame."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.metrics.mouth import FollowedMouth
from pipeline.metrics.regions import FRAMED_FACE, Box, head_of

_SIDE = 128
"""Pictures are looked at through a grid of so many pixels a side, taken without averaging."""
_CELLS = 16
_HEAD_GRID = (48, 48)
_SHARPNESS_EVERY = 10
_COLOURS = 8
"""The portrait's colours are compared with the frames' in so many cells a side."""
_BLACK_LEVEL = 16.0
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""BT.601, as in the video."""


@dataclass(frozen=True)
class SourceLook:
    """What is compared with the portrait: taken once for each."""

    face: Box
    brightness: float
    sharpness: float
    head: np.ndarray
    """The spectrum of the face and what is around it, see `_spectrum`."""
    colours: np.ndarray
    """Of 8 x 8 cells, float [8, 8, 3], grey levels."""

    @classmethod
    def of(cls, image: np.ndarray, face: Box = FRAMED_FACE) -> SourceLook:
        """``image`` uint8 [R, R, 3]: the portrait as the renderer gets it."""
        small = _small(image[None])[0]
        spectrum = _spectrum(_patch(small, head_of(face)))
        return cls(face, float(small.mean()), sharpness(image), spectrum, colours(image))


class PixelMeter:
    """Takes frames in order and keeps, of each, a few numbers; nothing else grows.

    Attributes (one entry a frame unless said otherwise):
        brightness: mean luma, grey levels 0..255.
        brightest: 98th percentile of luma.
        change: mean absolute change of luma from the frame before; the first frame's is 0.
        sharpnesses: `sharpness` of every tenth frame.
        strangeness: mean absolute difference of `colours` from the portrait's, of every tenth frame, grey levels.
    """

    def __init__(self, source: SourceLook) -> None:
        self._source = source
        self._mouth, self._head = FollowedMouth(source.face), head_of(source.face)
        self.brightness = array("d")
        self.brightest = array("d")
        self.change = array("d")
        self.sharpnesses: list[float] = []
        self.strangeness: list[float] = []
        self._last: list[np.ndarray] = []
        self._wobble = np.zeros((_CELLS, _CELLS))
        self._moved = np.zeros((_CELLS, _CELLS))
        self._wobbles = 0

    def __len__(self) -> int:
        return len(self.brightness)

    def add(self, frames: np.ndarray) -> None:
        """uint8 [n, R, R, 3] RGB, which are only read."""
        small = _small(frames)
        first = len(self)
        self.brightness.extend(small.mean((1, 2)).tolist())
        self.brightest.extend(np.percentile(small[:, ::2, ::2], 98, axis=(1, 2)).tolist())
        shifts = [_shift(self._source.head, _patch(picture, self._head), self._head) for picture in small]
        rows, columns = self._mouth.grid((frames.shape[1], frames.shape[2]))
        self._mouth.add(frames[:, rows[:, None], columns[None]] @ _LUMA, shifts)
        for index, picture in enumerate(small, first):
            self._compare(picture)
            if index % _SHARPNESS_EVERY == 0:
                self.sharpnesses.append(sharpness(frames[index - first]))
                strange = np.abs(colours(frames[index - first]) - self._source.colours)
                self.strangeness.append(float(strange.mean()))

    def _compare(self, picture: np.ndarray) -> None:
        """With the two frames before."""
        if not self._last:
            self.change.append(0.0)
        else:
            moved = np.abs(picture - self._last[-1])
            self.change.append(float(moved.mean()))
            self._moved += _cells(moved)
        if len(self._last) == 2:
            before, middle = self._last
            self._wobble += _cells(np.abs(middle - (before + picture) / 2))
            self._wobbles += 1
        self._last = [*self._last[-1:], picture]

    @property
    def shifts(self) -> list[tuple[float, float]]:
        """(right, down) of the face against the portrait in picture widths, of each frame."""
        return self._mouth.shifts

    @property
    def opening(self) -> np.ndarray:
        """float [T], grey levels: see `FollowedMouth`."""
        return self._mouth.opening

    @property
    def black_frames(self) -> int:
        """Frames of which 98 % are darker than 16 of 255."""
        return int((np.array(self.brightest) < _BLACK_LEVEL).sum())

    @property
    def flicker(self) -> float | None:
        """Grey levels by which a frame leaves the mean of its neighbours, where the picture is stillest.

        The mean over the quarter of 16 x 16 cells that change least from frame to frame.
        """
        if not self._wobbles:
            return None
        still = np.argsort(self._moved, axis=None)[: _CELLS * _CELLS // 4]
        return float(self._wobble.flat[still].mean() / self._wobbles)

    @property
    def head_range(self) -> float:
        """From the 5th to the 95th percentile of `shifts`, along the axis where that is more."""
        return float(np.ptp(np.percentile(np.array(self.shifts), [5, 95], axis=0), axis=0).max())


def sharpness(image: np.ndarray) -> float:
    """Variance of the Laplacian (4 neighbours) of the middle half's green channel; uint8 [R, R, 3]."""
    quarter = image.shape[0] // 4
    green = image[quarter:-quarter, quarter:-quarter, 1].astype(np.float32)
    around = green[:-2, 1:-1] + green[2:, 1:-1] + green[1:-1, :-2] + green[1:-1, 2:]
    return float((around - 4 * green[1:-1, 1:-1]).var())


def colours(image: np.ndarray) -> np.ndarray:
    """uint8 [R, R, 3] -> means of 8 x 8 cells, float [8, 8, 3], of at most 128 x 128 of its pixels."""
    return _cells(_thinned(image[None])[0].astype(np.float32), _COLOURS)


def largest_step(change: np.ndarray) -> float | None:
    """The largest of changes [T] from frame to frame by their median; None for a clip that mostly stays."""
    steps = change[1:]
    usual = float(np.median(steps)) if len(steps) else 0.0
    return float(steps.max()) / usual if usual > 1e-9 else None


def frozen(change: Sequence[float], asked: np.ndarray | None) -> np.ndarray:
    """Bool [T]: frames that repeat the one before though they should not.

    A frame repeats if it changes by less than 0.02 grey levels, or by less than a fiftieth of the median. ``asked``
    are the steps [T] between the requested motion codes: a frame that was asked to stay, by less than a tenth of
    the median step, is not frozen.
    """
    changes = np.array(change)
    still = changes < max(0.02, 0.02 * float(np.median(changes)) if len(changes) else 0.0)
    still[:1] = False
    if asked is not None:
        still &= asked >= 0.1 * max(float(np.median(asked)), 1e-9)
    return still


def longest_run(marked: np.ndarray) -> int:
    """Length of the longest run of True."""
    longest = run = 0
    for value in marked:
        run = run + 1 if value else 0
        longest = max(longest, run)
    return longest


def _small(frames: np.ndarray) -> np.ndarray:
    """uint8 [n, R, R, 3] -> luma float32 [n, 128, 128], or R x R where that is less than twice as much."""
    small: np.ndarray = _thinned(frames) @ _LUMA
    return small


def _thinned(frames: np.ndarray) -> np.ndarray:
    """[n, R, R, 3] -> [n, 128, 128, 3], or R x R where that is less than twice as much."""
    step = max(frames.shape[1] // _SIDE, 1)
    return frames[:, ::step, ::step]


def _cells(picture: np.ndarray, count: int = _CELLS) -> np.ndarray:
    """[H, W, ...] -> means of cells [count, count, ...]; what is left over at the right and the bottom is left out."""
    high, wide = picture.shape[0] // count, picture.shape[1] // count
    cut = picture[: high * count, : wide * count]
    means: np.ndarray = cut.reshape(count, high, count, wide, *picture.shape[2:]).mean((1, 3))
    return means


def _patch(picture: np.ndarray, head: Box) -> np.ndarray:
    rows, columns = head.grid(*_HEAD_GRID, (picture.shape[0], picture.shape[1]))
    patch: np.ndarray = picture[rows[:, None], columns[None]]
    return patch


_WINDOW = np.hanning(_HEAD_GRID[0])[:, None] * np.hanning(_HEAD_GRID[1])[None]


def _spectrum(patch: np.ndarray) -> np.ndarray:
    return np.fft.rfft2((patch - patch.mean()) * _WINDOW)


def _shift(source: np.ndarray, patch: np.ndarray, head: Box) -> tuple[float, float]:
    """How far a face lies right of and below the portrait's, in picture widths.

    Correlation of the two spectra, half whitened: a compromise between a sharp peak and one that noise can't move. Its
    top is that of a parabola through the highest value and its neighbours.
    """
    cross = _spectrum(patch) * np.conj(source)
    found = np.fft.irfft2(cross / (np.sqrt(np.abs(cross)) + 1e-6), _HEAD_GRID)
    down, right = np.unravel_index(int(found.argmax()), found.shape)
    rows, columns = _HEAD_GRID
    return (
        _peak(found[down], int(right)) * (head.right - head.left) / (columns - 1),
        _peak(found[:, right], int(down)) * (head.bottom - head.top) / (rows - 1),
    )


def _peak(values: np.ndarray, top: int) -> float:
    """Where between the neighbours of the highest of ``values``, which go round in a ring, the top is; -n/2..n/2."""
    before, at, after = (float(values[(top + step) % len(values)]) for step in (-1, 0, 1))
    bend = before - 2 * at + after
    place = top + (0.5 * (before - after) / bend if bend else 0.0)
    return place - len(values) if place > len(values) / 2 else place

"""Masks of eyes and mouth from facial landmarks, for losses that look there more closely."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

RIGHT_EYE, LEFT_EYE, MOUTH = slice(36, 42), slice(42, 48), slice(48, 60)
"""Of the 68 iBUG landmarks; the mouth's outer lips."""

_ELEMENT = 7
"""Side of the square that masks grow and shrink by."""


def eye_mask(landmarks: Tensor, size: int, *, erosion: int = 0, dilation: int = 2) -> Tensor:
    """bool [size, size]: both eyes, shrunk and then grown by so many steps of three pixels.

    landmarks: float [68, 2], x and y in 0..1 of the picture.
    """
    pixels = _pixels(landmarks, size)
    mask = polygon(pixels[RIGHT_EYE], size) | polygon(pixels[LEFT_EYE], size)
    return grown(shrunk(mask, erosion), dilation)


def mouth_mask(landmarks: Tensor, size: int, *, dilation: int = 2) -> Tensor:
    """bool [size, size]: the convex hull of the outer lips, grown. landmarks as for `eye_mask`."""
    return grown(polygon(convex_hull(_pixels(landmarks, size)[MOUTH]), size), dilation)


def grown(mask: Tensor, steps: int) -> Tensor:
    """bool [H, W] -> every pixel within ``steps`` times three of the mask, by rows and columns."""
    for _ in range(steps):
        mask = F.max_pool2d(mask[None, None].float(), _ELEMENT, 1, _ELEMENT // 2)[0, 0] > 0
    return mask


def shrunk(mask: Tensor, steps: int) -> Tensor:
    """The mask without what is within ``steps`` times three of its outside; the picture's border doesn't count."""
    return ~grown(~mask, steps) if steps else mask


def polygon(corners: Tensor, size: int) -> Tensor:
    """bool [size, size]: a convex polygon with its boundary. corners: int [n, 2], x and y, in order round it.

    A row is filled from the leftmost to the rightmost pixel of the edges on it, drawn as lines from pixel to pixel.
    """
    drawn = torch.zeros(size, size, dtype=torch.bool)
    for start, end in zip(corners.tolist(), corners.roll(-1, 0).tolist(), strict=True):
        x, y = line(start, end)
        inside = (x >= 0) & (x < size) & (y >= 0) & (y < size)
        drawn[y[inside], x[inside]] = True
    before = drawn.cummax(1).values
    after = drawn.flip(1).cummax(1).values.flip(1)
    return before & after


def line(start: list[int], end: list[int]) -> tuple[Tensor, Tensor]:
    """x and y, int64 [n], of the pixels between two pixels, one for each step along the longer axis.

    From the left; of two pixels equally near, the one that the line comes from (as the published masks were drawn).
    """
    (x0, y0), (x1, y1) = sorted((start, end), key=lambda pixel: pixel[0])
    steps = max(abs(x1 - x0), abs(y1 - y0))
    along = torch.arange(steps + 1)
    if not steps:
        return torch.tensor([x0]), torch.tensor([y0])

    def axis(a: int, b: int) -> Tensor:
        return a + torch.sign(torch.tensor(b - a)) * ((2 * along * abs(b - a) + steps - 1) // (2 * steps))

    return axis(x0, x1), axis(y0, y1)


def convex_hull(points: Tensor) -> Tensor:
    """int [n, 2] -> the corners of their hull in order (Andrew's monotone chain)."""
    unique = sorted(set(map(tuple, points.tolist())))
    if len(unique) < 3:
        return torch.tensor(unique)

    def chain(ordered: list[tuple[int, int]]) -> list[tuple[int, int]]:
        kept: list[tuple[int, int]] = []
        for p in ordered:
            while len(kept) > 1 and _turn(kept[-2], kept[-1], p) <= 0:
                kept.pop()
            kept.append(p)
        return kept[:-1]

    return torch.tensor(chain(unique) + chain(unique[::-1]))


def _turn(a: tuple[int, int], b: tuple[int, int], c: tuple[int, int]) -> int:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _pixels(landmarks: Tensor, size: int) -> Tensor:
    if landmarks.shape != (68, 2):
        raise ValueError(f"landmarks must be [68, 2], found {list(landmarks.shape)}")
    return (landmarks * size).long()

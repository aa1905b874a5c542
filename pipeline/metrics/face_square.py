"""Faces as networks that judge them want them: squares of one size, cut where the portrait's face is."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor, from_numpy


def cut_square(
    frames: np.ndarray, left: int, top: int, side: int, size: int, *, outside: int, antialias: bool = False
) -> Tensor:
    """A square of ``side`` pixels, scaled to ``size``: uint8 [n, H, W, 3] -> 0..255, float32 [n, 3, size, size].

    The square may reach outside the picture, where all is as grey as ``outside`` says. Bilinear; ``antialias``
    averages what becomes smaller.
    """
    height, width = frames.shape[1:3]
    before, after = (max(-left, 0), max(-top, 0)), (max(left + side - width, 0), max(top + side - height, 0))
    inside = frames[:, max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)]
    pixels = from_numpy(inside.copy()).permute(0, 3, 1, 2).float()
    square = F.pad(pixels, (before[0], after[0], before[1], after[1]), value=outside)
    return F.interpolate(square, (size, size), mode="bilinear", antialias=antialias)

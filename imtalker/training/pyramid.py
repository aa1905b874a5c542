"""Image pyramids of the perceptual loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SCALES = (1.0, 0.5, 0.25, 0.125)


def pyramid(pictures: Tensor, scales: tuple[float, ...] = SCALES) -> list[Tensor]:
    """Pictures [B, C, H, W] at every scale, which is 1 or one by a whole number (published implementation).

    A Gaussian of deviation ``(1 / scale - 1) / 2`` over zero padding, then every ``1 / scale``-th pixel.
    """
    return [pictures if scale == 1 else _reduced(pictures, round(1 / scale)) for scale in scales]


def _reduced(pictures: Tensor, factor: int) -> Tensor:
    sigma = (factor - 1) / 2
    reach = round(4 * sigma)
    offsets = torch.arange(-reach, reach + 1, dtype=pictures.dtype, device=pictures.device)
    taps = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = taps[:, None] * taps
    channels = pictures.shape[1]
    kernel = (kernel / kernel.sum()).expand(channels, 1, -1, -1)
    return F.conv2d(pictures, kernel, stride=factor, padding=reach, groups=channels)

"""How alike pictures are, and curves."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_SIGMA, _REACH = 1.5, 5
_C1, _C2 = 0.01**2, 0.03**2


def psnr(pictures: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, [B]; both [B, 3, H, W] in 0..1. Infinite for equal pictures."""
    return -10 * (pictures - truth).square().mean((1, 2, 3)).log10()


def ssim(pictures: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity [B], 1 for equal pictures; both [B, C, H, W] in 0..1.

    Wang et al., "Image quality assessment", 2004: Gaussian windows of deviation 1.5 over 11 x 11 pixels, only where
    they fit, mean over places and channels.
    """
    offsets = torch.arange(-_REACH, _REACH + 1, dtype=pictures.dtype, device=pictures.device)
    taps = torch.exp(-(offsets**2) / (2 * _SIGMA**2))
    taps = taps / taps.sum()

    def local(x: Tensor) -> Tensor:
        planes = x.flatten(0, 1)[:, None]
        return F.conv2d(F.conv2d(planes, taps[None, None, :, None]), taps[None, None, None, :])

    mean, true_mean = local(pictures), local(truth)
    variance = local(pictures.square()) - mean.square()
    true_variance = local(truth.square()) - true_mean.square()
    covariance = local(pictures * truth) - mean * true_mean
    similarity = ((2 * mean * true_mean + _C1) * (2 * covariance + _C2)) / (
        (mean.square() + true_mean.square() + _C1) * (variance + true_variance + _C2)
    )
    return similarity.mean((1, 2, 3)).view(len(pictures), -1).mean(1)


def correlation(one: Tensor, other: Tensor) -> float:
    """Pearson's, of two sequences [T]; 0 where one does not change."""
    return torch.corrcoef(torch.stack([one, other]))[0, 1].nan_to_num().item()

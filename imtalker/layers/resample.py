"""The guided resampler of the motion transfer: fine features follow the coarse map's best match."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def pool_cells(feature: Tensor, ratio: int) -> Tensor:
    """[B, C, r·R, r·R] -> [B, C, R²]: the mean of every r x r block; done once per source."""
    return F.avg_pool2d(feature, ratio).flatten(2)


def resample(pooled: Tensor, best: Tensor, ratio: int) -> Tensor:
    """Give every coarse cell the block mean of its best-matching source cell, and enlarge.

    With one match a cell, the published weighting is a plain mean over the block, so the result is constant
    inside each block.

    pooled [B or 1, C, R²], best int64 [B, R²] -> [B, C, r·R, r·R].
    """
    batch, cells = best.shape
    channels = pooled.shape[1]
    side = int(cells**0.5)
    index = best[:, None, :].expand(-1, channels, -1)
    moved = pooled.expand(batch, -1, -1).gather(2, index).unflatten(2, (side, side))
    return F.interpolate(moved, scale_factor=ratio, mode="nearest")

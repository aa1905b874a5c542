"""Pictures beside each other on one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_GAP = 2


def contact_sheet(columns: Sequence[Tensor]) -> Tensor:
    """k columns of n pictures [n, 3, R, R] in 0..1 -> float32 [3, n (R + 2) + 2, k (R + 2) + 2], white between them."""
    pictures = torch.stack([column.detach().float().cpu().clamp(0, 1) for column in columns], 1)
    framed = F.pad(pictures, (0, _GAP, 0, _GAP), value=1.0)
    rows, across, channels, height, width = framed.shape
    sheet = framed.permute(2, 0, 3, 1, 4).reshape(channels, rows * height, across * width)
    return F.pad(sheet, (_GAP, 0, _GAP, 0), value=1.0)

"""Attention inside windows, plain and shifted (Swin Transformer, arXiv 2103.14030, section 3.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def to_windows(x: Tensor, size: int) -> Tensor:
    """[B, C, H, W] -> [B·windows, size², C], windows and tokens row-major."""
    b, c, h, w = x.shape
    x = x.view(b, c, h // size, size, w // size, size)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(-1, size * size, c)


def from_windows(windows: Tensor, size: int, height: int, width: int) -> Tensor:
    """The inverse of `to_windows`."""
    c = windows.shape[-1]
    x = windows.view(-1, height // size, width // size, size, size, c)
    return x.permute(0, 5, 1, 3, 2, 4).reshape(-1, c, height, width)


def relative_position_index(size: int) -> Tensor:
    """int64 [size², size²]: the row of the bias table for query and key, ``(Δy+size-1)(2 size-1) + Δx+size-1``."""
    cells = torch.stack(torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")).flatten(1)
    delta = cells[:, :, None] - cells[:, None, :] + size - 1
    return delta[0] * (2 * size - 1) + delta[1]


def shift_mask(resolution: int, size: int, shift: int) -> Tensor:
    """float32 [windows, size², size²]: 0 between cells that were neighbours before the roll, else -100."""
    region = torch.zeros(resolution)
    region[resolution - size :] = 1
    region[resolution - shift :] = 2
    regions = (3 * region[:, None] + region[None, :])[None, None]
    cells = to_windows(regions, size)[..., 0]
    return torch.where(cells[:, :, None] == cells[:, None, :], 0.0, -100.0)


class WindowAttention(nn.Module):
    """Multi-head attention inside windows with a relative position bias."""

    relative_position_index: Tensor

    def __init__(self, dim: int, size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.relative_position_bias_table = nn.Parameter(torch.randn((2 * size - 1) ** 2, num_heads) * 0.02)
        self.register_buffer("relative_position_index", relative_position_index(size))
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def bias(self) -> Tensor:
        """[heads, size², size²]."""
        return self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)

    def forward(self, query: Tensor, key_value: Tensor, mask: Tensor | None) -> Tensor:
        """query, key_value [B·windows, size², C]; mask [windows, size², size²] -> [B·windows, size², C]."""
        q, k, v = (
            t.unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for t in (self.q(query), self.k(key_value), self.v(key_value))
        )
        bias = self.bias().to(q.dtype)
        if mask is not None:
            count = mask.shape[0]
            bias = bias + mask[:, None].to(q.dtype)
            q, k, v = (t.unflatten(0, (-1, count)) for t in (q, k, v))
            x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias).flatten(0, 1)
        else:
            x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.proj(x.transpose(1, 2).flatten(2))


class WindowBlock(nn.Module):
    """Window attention, then an MLP. [B, C, R, R] -> [B, C, R, R]. Queries have their own norm."""

    attn_mask: Tensor | None

    def __init__(self, dim: int, resolution: int, size: int, num_heads: int, *, shifted: bool) -> None:
        super().__init__()
        # One window covers the whole map: nothing to shift.
        self.size = min(size, resolution)
        self.shift = self.size // 2 if shifted and resolution > size else 0
        self.register_buffer("attn_mask", shift_mask(resolution, self.size, self.shift) if self.shift else None)
        self.norm_q = nn.LayerNorm(dim)
        self.norm_kv = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, self.size, num_heads)
        self.norm_ffn = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        rolled = x.roll((-self.shift, -self.shift), (2, 3)) if self.shift else x
        t = to_windows(rolled, self.size)
        t = t + self.attn(self.norm_q(t), self.norm_kv(t), self.attn_mask)
        t = t + self.mlp(self.norm_ffn(t))
        x = from_windows(t, self.size, height, width)
        return x.roll((self.shift, self.shift), (2, 3)) if self.shift else x

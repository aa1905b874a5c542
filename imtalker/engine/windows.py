"""The plain and the shifted window block of a level, computed as a pair."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imtalker.engine import fold
from imtalker.engine.attention import FoldedMLP, Linear, normalised
from imtalker.engine.convolution import as_map, tokens
from imtalker.layers.windows import WindowBlock

# Rows of windows of a tile on CPUs: 4 MiB of logits at the finest level.
_TILE_ROWS = 8
# Fused attention kernels want a head's vector to fill 16 bytes in half precision.
_HEAD_ALIGNMENT = 8


def window_order(resolution: int, size: int, shift: int) -> Tensor:
    """int64 [R²]: the row-major pixel at every place of the windows of a map rolled by ``-shift``."""
    pixels = torch.arange(resolution**2).view(resolution, resolution).roll((-shift, -shift), (0, 1))
    count = resolution // size
    return pixels.view(count, size, count, size).transpose(1, 2).flatten()


class FoldedWindowAttention(nn.Module):
    """Attention inside the windows of a map whose pixels are in window order. [B, R², C] -> [B, R², C].

    Queries, keys and values share one normalisation and one product. Bias and shift mask together are only four
    tables, for inner windows, the last column, the last row and the corner; kept as two rows of windows.
    """

    bias: Tensor
    """[1 or 2, heads, n, cells, cells]: an ordinary row of n windows and, if shifted, the last one."""

    def __init__(self, block: WindowBlock, resolution: int) -> None:
        super().__init__()
        attention = block.attn
        scale = (attention.q.weight.shape[0] // attention.num_heads) ** -0.5
        query, query_bias = fold.layer_norm(block.norm_q, attention.q)
        key, _ = fold.layer_norm(block.norm_kv, attention.k)
        value, value_bias = fold.layer_norm(block.norm_kv, attention.v)
        none = torch.zeros_like(query_bias)
        self.qkv = Linear(torch.cat([query * scale, key, value]), torch.cat([query_bias * scale, none, none]))
        self.out = Linear(*fold.value_bias(attention.proj, value_bias))
        self.heads = attention.num_heads
        self.eps = block.norm_q.eps
        self.row = resolution // block.size
        self.cells = block.size**2
        bias = attention.bias().detach()[:, None].expand(1, -1, self.row, -1, -1)
        if block.attn_mask is not None:
            masks = block.attn_mask.unflatten(0, (self.row, self.row))
            # The published -100 leaves weights of 1e-44: nothing beside 1, but denormal, which CPUs compute slowly.
            apart = torch.stack([masks[0], masks[-1]])[:, None] < 0
            bias = bias.masked_fill(apart, -torch.inf)
        self.register_buffer("bias", bias.contiguous())

    def forward(self, t: Tensor) -> Tensor:
        pixels = normalised(t, self.eps).flatten(0, 1)
        mixed = self.fused(pixels) if t.is_cuda or torch.compiler.is_compiling() else self.tiled(pixels)
        return self.out(mixed).view(t.shape)

    def tiled(self, pixels: Tensor) -> Tensor:
        """A head of a few rows of windows at a time, so that its logits stay in a core's cache.

        CPU kernels for fused attention are made for long sequences; on windows they take several times longer. Here
        queries, keys and values have their channels first: windows are strips of them, and no product needs a copy.

        pixels [B R², C] -> the same.
        """
        channels = self.qkv.channels_first(pixels)
        # [3, heads, D, rows of windows, windows in a row, cells]
        q, k, v = channels.view(3, self.heads, -1, len(pixels) // (self.row * self.cells), self.row, self.cells)
        out = torch.empty_like(q)
        count = math.gcd(self.row, _TILE_ROWS)
        logits = q.new_empty(count * self.row, self.cells, self.cells)
        for first in range(0, q.shape[2], count):
            rows = slice(first, first + count)
            # The map's last row of windows is the last of its tile.
            ordinary = count - int((first + count) % self.row == 0)
            for head in range(self.heads):
                # [D, windows, cells]
                x, y, z = (t[head, :, rows].flatten(1, 2) for t in (q, k, v))
                torch.bmm(x.permute(1, 2, 0), y.transpose(0, 1), out=logits)
                by_row = logits.unflatten(0, (count, self.row))
                by_row[:ordinary].add_(self.bias[0, head])
                by_row[ordinary:].add_(self.bias[-1, head])
                torch.softmax(logits, -1, out=logits)
                mixed = torch.bmm(z.transpose(0, 1), logits.transpose(1, 2))
                out[head, :, rows] = mixed.transpose(0, 1).unflatten(1, (count, self.row))
        return out.view(pixels.shape[1], -1).t()

    def fused(self, pixels: Tensor) -> Tensor:
        """All windows in one fused attention with the inner table; then again those at the end of a shifted map.

        As `tiled`.
        """
        split = self.qkv(pixels).view(-1, self.row, self.row, self.cells, 3, self.heads, pixels.shape[1] // self.heads)
        size = split.shape[-1]
        q, k, v = F.pad(split, (0, -size % _HEAD_ALIGNMENT)).permute(4, 0, 1, 2, 5, 3, 6)
        every, last = slice(None), slice(-1, None)
        out = attend(q, k, v, self.bias[0, :, 0])
        if len(self.bias) > 1:
            for rows, columns, table in (
                (every, last, self.bias[0, :, -1]),
                (last, every, self.bias[-1, :, 0]),
                (last, last, self.bias[-1, :, -1]),
            ):
                ends = (slice(None), rows, columns)
                out[ends] = attend(q[ends], k[ends], v[ends], table)
        return out[..., :size].transpose(3, 4).reshape(pixels.shape)


def attend(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
    """q, k, v [B, rows, columns, heads, cells, D] of windows that share a bias table -> same shape."""
    flat = [x.flatten(0, 2) for x in (q, k, v)]
    mixed = F.scaled_dot_product_attention(flat[0], flat[1], flat[2], attn_mask=table[None], scale=1.0)
    return mixed.view(q.shape)


class FoldedWindowBlock(nn.Module):
    """`WindowBlock` on pixels in window order."""

    def __init__(self, block: WindowBlock, resolution: int) -> None:
        super().__init__()
        self.attention = FoldedWindowAttention(block, resolution)
        self.mlp = FoldedMLP(block.norm_ffn, *fold.parts((block.mlp[0], block.mlp[2]), nn.Linear))

    def forward(self, t: Tensor) -> Tensor:
        t = t + self.attention(t)
        return t + self.mlp(t)


class FoldedWindowPair(nn.Module):
    """Both blocks of a level, [B, C, R, R] -> [B, C, R, R].

    Everything but the attention works pixel by pixel, so pixels are put into the order of a block's windows once,
    roll included, and taken from there straight into the next block's order.
    """

    into: Tensor
    across: Tensor
    back: Tensor

    def __init__(self, first: WindowBlock, second: WindowBlock, resolution: int) -> None:
        super().__init__()
        into = window_order(resolution, first.size, first.shift)
        then = window_order(resolution, second.size, second.shift)
        self.register_buffer("into", into)
        self.register_buffer("across", into.argsort()[then])
        self.register_buffer("back", then.argsort())
        self.first = FoldedWindowBlock(first, resolution)
        self.second = FoldedWindowBlock(second, resolution)

    def forward(self, x: Tensor) -> Tensor:
        t = self.first(tokens(x).index_select(1, self.into))
        t = self.second(t.index_select(1, self.across))
        return as_map(t.index_select(1, self.back), x.shape[2])

"""The plain and the shifted window block of a level, computed as a pair."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imtalker.engine import fold
from imtalker.engine.attention import FoldedMLP, Linear, normalised
from imtalker.engine.convolution import as_map, tokens
from imtalker.layers.windows import WindowBlock

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
    """[1 or 2, n, heads, cells, cells]: an ordinary row of n windows and, if shifted, the last one."""

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
        bias = attention.bias().detach().expand(1, self.row, -1, -1, -1)
        if block.attn_mask is not None:
            masks = block.attn_mask.unflatten(0, (self.row, self.row))
            # The published -100 leaves weights of 1e-44: nothing beside 1, but denormal, which CPUs compute slowly.
            apart = torch.stack([masks[0], masks[-1]])[:, :, None] < 0
            bias = bias.masked_fill(apart, -torch.inf)
        self.register_buffer("bias", bias.clone())

    def forward(self, t: Tensor) -> Tensor:
        qkv = self.qkv(normalised(t, self.eps)).unflatten(1, (self.row, self.row, -1))
        mixed = self.fused(qkv) if t.is_cuda or torch.compiler.is_compiling() else self.tiled(qkv)
        return self.out(mixed)

    def tiled(self, qkv: Tensor) -> Tensor:
        """One row of windows at a time, so that its logits stay in a core's cache.

        CPU kernels for fused attention are made for long sequences; on windows they take several times longer.

        qkv [B, n, n, cells, 3 C] -> [B, R², C].
        """
        rows = qkv.flatten(0, 1).unflatten(3, (3, self.heads, -1)).permute(0, 3, 1, 4, 2, 5)
        out = qkv.new_empty(len(rows), self.row, qkv.shape[3], qkv.shape[4] // 3)
        tables = self.bias.flatten(1, 2)
        logits = torch.empty_like(tables[0])
        for i, row in enumerate(rows):
            q, k, v = row.contiguous().flatten(1, 2)
            table = tables[-1 if i % self.row == self.row - 1 else 0]
            torch.baddbmm(table, q, k.transpose(1, 2), out=logits)
            mixed = torch.bmm(torch.softmax(logits, -1, out=logits), v)
            out[i].unflatten(2, (self.heads, -1)).copy_(mixed.unflatten(0, (self.row, self.heads)).transpose(1, 2))
        return out.view(len(qkv), -1, out.shape[-1])

    def fused(self, qkv: Tensor) -> Tensor:
        """All windows in one fused attention with the inner table; then again those at the end of a shifted map.

        qkv as for `tiled`.
        """
        split = qkv.unflatten(4, (3, self.heads, -1))
        size = split.shape[-1]
        q, k, v = F.pad(split, (0, -size % _HEAD_ALIGNMENT)).permute(4, 0, 1, 2, 5, 3, 6)
        every, last = slice(None), slice(-1, None)
        out = attend(q, k, v, self.bias[0, 0])
        if len(self.bias) > 1:
            for rows, columns, table in (
                (every, last, self.bias[0, -1]),
                (last, every, self.bias[-1, 0]),
                (last, last, self.bias[-1, -1]),
            ):
                ends = (slice(None), rows, columns)
                out[ends] = attend(q[ends], k[ends], v[ends], table)
        return out[..., :size].transpose(3, 4).flatten(4).flatten(1, 3)


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

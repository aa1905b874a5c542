"""Implicit motion transfer against a source whose side of the work is done."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imtalker.engine import fold
from imtalker.engine.attention import Linear, heads
from imtalker.engine.convolution import tokens
from imtalker.engine.ranked import centred, ranked_attention
from imtalker.engine.source import SourceTables
from imtalker.layers.attention import MultiHeadAttention
from imtalker.renderer.transfer import CrossAttentionLevel, ImplicitMotionTransfer, ResampledLevel


class FoldedCrossAttention(nn.Module):
    """One attention level. The key bias drops out of the softmax, the value bias moves into the output's."""

    def __init__(self, attention: MultiHeadAttention) -> None:
        super().__init__()
        query, output = attention.q_proj, attention.proj
        scale = (query.weight.shape[0] // attention.num_heads) ** -0.5
        self.heads = attention.num_heads
        self.query = Linear(query.weight * scale, query.bias * scale)
        self.key = Linear(attention.k_proj.weight, None)
        self.value = Linear(attention.v_proj.weight, None)
        self.out = Linear(*fold.value_bias(output, attention.v_proj.bias))

    def project(self, layer: Linear, x: Tensor) -> Tensor:
        """[B, C, r, r] of any type -> [B, heads, r², C / heads] of the level's type."""
        return heads(layer(tokens(x).to(layer.weight.dtype)), self.heads)

    def join(self, mixed: Tensor) -> Tensor:
        """[B, heads, r², C / heads] -> aligned features [B, r, r, C]."""
        cells = self.out(mixed.transpose(1, 2).flatten(2))
        return cells.unflatten(1, (int(cells.shape[1] ** 0.5), -1))


class FoldedTransfer(nn.Module):
    """`ImplicitMotionTransfer`, its output as cells: [B, h, h, C] with h at most the level's resolution.

    ``dtype`` is that of the output. The level whose best matches steer the finer ones stays float32: the choice is
    discontinuous in its logits.
    """

    def __init__(self, transfer: ImplicitMotionTransfer, dtype: torch.dtype) -> None:
        super().__init__()
        attending = [level for level in transfer if isinstance(level, CrossAttentionLevel)]
        self.levels = nn.ModuleList(FoldedCrossAttention(level.block_efc) for level in attending)
        self.ratios = [level.ratio for level in transfer if isinstance(level, ResampledLevel)]
        self.dtype = dtype
        for level in self._attending[:-1] if self.ratios else self._attending:
            level.to(dtype)

    @property
    def _attending(self) -> list[FoldedCrossAttention]:
        return fold.parts(self.levels, FoldedCrossAttention)

    def prepare(self, source_motion: list[Tensor], features: list[Tensor]) -> SourceTables:
        """Source motion maps and features, coarse to fine, float32 [1, C, r, r]."""
        count = len(self.levels)
        keys = [level.project(level.key, x) for level, x in zip(self._attending, source_motion, strict=True)]
        values = [level.project(level.value, x) for level, x in zip(self._attending, features[:count], strict=True)]
        # With one match a cell, the published weighting of its block is the plain mean: pool here, gather later.
        fine = zip(self.ratios, features[count:], strict=True)
        pooled = [tokens(F.avg_pool2d(x, ratio))[0].to(self.dtype) for ratio, x in fine]
        return SourceTables([centred(k) for k in keys], values, pooled)

    def forward(self, motion: list[Tensor], source: SourceTables) -> tuple[list[Tensor], Tensor | None]:
        """Driving motion maps float32 [B, C, r, r] of the attention levels.

        Returns the aligned features of all levels, and the best source cell of every cell of the last attention
        level, int64 [B, N], or None if every level attends.
        """
        aligned: list[Tensor] = []
        best: Tensor | None = None
        for level, x, k, v in zip(self._attending, motion, source.keys, source.values, strict=True):
            q = level.project(level.query, x)
            if self.ratios and level is self.levels[-1]:
                mixed, best = ranked_attention(q, k, v)
            else:
                k, v = (t.expand(len(q), -1, -1, -1) for t in (k, v))
                mixed = F.scaled_dot_product_attention(q, k, v, scale=1.0)
            aligned.append(level.join(mixed).to(self.dtype))
        if best is not None:
            aligned += [table[best].unflatten(1, motion[-1].shape[2:]) for table in source.pooled]
        return aligned, best

"""Implicit motion transfer: source features move to where the driving motion wants them.

IMTalker (arXiv 2511.22167), section 3.2: coarse levels by cross-attention between driving and source motion maps,
fine levels by the best match of the last attention map.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from imtalker.config import RendererConfig
from imtalker.layers.attention import MultiHeadAttention, to_map, to_tokens
from imtalker.layers.resample import pool_cells, resample


class CrossAttentionLevel(nn.Module):
    """One attention level. Query: driving motion; key: source motion; value: source feature. No residual."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.block_efc = MultiHeadAttention(width, num_heads)


class ResampledLevel(nn.Module):
    """One fine level; it has no weights."""

    ratio: int

    def __init__(self, ratio: int) -> None:
        super().__init__()
        self.ratio = ratio


@dataclass(frozen=True)
class SourceMaps:
    """What the transfer needs of a source, made once: batch 1, or one per driving frame."""

    keys: list[Tensor]
    """Projected source motion of each attention level, [B, heads, N, C / heads]."""
    values: list[Tensor]
    """Projected source features of each attention level, same shapes."""
    pooled: list[Tensor]
    """Block means of the finer levels' features, [B, C, N] with N the cells of the last attention level."""


class ImplicitMotionTransfer(nn.ModuleList):
    """A list of levels, coarse to fine, under the published keys (``imt.<level>``)."""

    def __init__(self, config: RendererConfig) -> None:
        super().__init__()
        self.attention_levels = config.attention_levels
        for level, (width, resolution) in enumerate(zip(config.channels, config.level_resolutions, strict=True)):
            if level < self.attention_levels:
                self.append(CrossAttentionLevel(width, config.num_heads))
            else:
                self.append(ResampledLevel(2 * resolution // config.swin_res_threshold))

    def prepare(self, source_motion: list[Tensor], features: list[Tensor]) -> SourceMaps:
        """Motion maps and features of the source, coarse to fine -> what `forward` needs of them."""
        keys: list[Tensor] = []
        values: list[Tensor] = []
        pooled: list[Tensor] = []
        for level, feature in zip(self, features, strict=True):
            if isinstance(level, CrossAttentionLevel):
                keys.append(level.block_efc.keys(to_tokens(source_motion[len(keys)])))
                values.append(level.block_efc.values(to_tokens(feature)))
            elif isinstance(level, ResampledLevel):
                pooled.append(pool_cells(feature, level.ratio))
        return SourceMaps(keys, values, pooled)

    def forward(self, driving_motion: list[Tensor], source: SourceMaps) -> list[Tensor]:
        """Driving motion maps [B, C, r, r] of the attention levels -> aligned features of all levels."""
        aligned: list[Tensor] = []
        best: Tensor | None = None
        for i, level in enumerate(self):
            if isinstance(level, CrossAttentionLevel):
                attention, query = level.block_efc, to_tokens(driving_motion[i])
                if i == self.attention_levels - 1 and source.pooled:
                    tokens, best = attention.ranked(query, source.keys[i], source.values[i])
                else:
                    tokens = attention(query, source.keys[i], source.values[i])
                aligned.append(to_map(tokens, driving_motion[i].shape[2]))
            else:
                assert best is not None and isinstance(level, ResampledLevel)  # noqa: S101  (narrows the type)
                aligned.append(resample(source.pooled[i - self.attention_levels], best, level.ratio))
        return aligned

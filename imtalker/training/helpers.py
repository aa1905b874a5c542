"""Losses that pictures with known geometry allow: where features come from, and what a motion code says.

The transfer has to learn routing by position before anything else pays. Both losses are for the beginning of a
training and fade; the networks that result are those of the published model.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imtalker.avatars import NEUTRAL, STATE_FIELDS
from imtalker.layers.attention import to_map, to_tokens
from imtalker.layers.resample import resample
from imtalker.renderer.transfer import CrossAttentionLevel, ImplicitMotionTransfer, ResampledLevel, SourceMaps
from imtalker.training.pictures import Truth

# Of a state around neutral, what counts as one.
_UNIT = {"x": 0.1, "y": 0.1, "scale": 0.1, "yaw": 0.4, "pitch": 0.25, "roll": 0.25}
# Queries of a level that are looked at in a step.
_QUERIES = 64
# In cells: content further away than this is hidden in the source.
_NEAR = 1.5


class StateReadout(nn.Module):
    """A linear map from motion codes [B, dim_motion] to states, and how wrong it is."""

    neutral: Tensor
    unit: Tensor

    def __init__(self, dim_motion: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim_motion, len(STATE_FIELDS))
        # What the codes say at first is noise.
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.register_buffer("neutral", torch.tensor(NEUTRAL), persistent=False)
        self.register_buffer("unit", torch.tensor([_UNIT.get(name, 1.0) for name in STATE_FIELDS]), persistent=False)

    def forward(self, codes: Tensor, states: Tensor) -> Tensor:
        """Mean absolute error of the read states, each field in its own unit. states [B, 14]."""
        return (self.linear(codes) - (states - self.neutral) / self.unit).abs().mean()


def routing_loss(
    transfer: ImplicitMotionTransfer, driving: list[Tensor], source: SourceMaps, truth: Truth, draw: torch.Generator
) -> Tensor:
    """How little the attention levels look at the cell of the source that shows a cell's content.

    Mean of ``-log`` of the attention weight there, which is averaged over heads first, for random cells whose content
    the source shows. driving [B, C, r, r] of the attention levels; source of the same batch.
    """
    losses = []
    for level, maps, keys in zip(transfer, driving, source.keys, strict=False):
        if not isinstance(level, CrossAttentionLevel):
            break
        side = maps.shape[-1]
        queries = torch.randperm(side * side, generator=draw)[:_QUERIES].to(maps.device)
        wanted, shown = true_cells(truth, side, queries)
        attention = level.block_efc
        q = attention.split(attention.q_proj(to_tokens(maps)[:, queries]))
        logits = (q @ keys.transpose(2, 3)).float() * q.shape[-1] ** -0.5
        log_weights = logits.log_softmax(-1).logsumexp(1) - torch.log(torch.tensor(float(logits.shape[1])))
        found = -log_weights.gather(2, wanted[..., None])[..., 0]
        losses.append((found * shown).sum() / shown.sum().clamp(min=1))
    return torch.stack(losses).mean()


def guided_transfer(
    transfer: ImplicitMotionTransfer,
    driving: list[Tensor],
    source: SourceMaps,
    truth: Truth,
    strength: float,
    draw: torch.Generator,
) -> list[Tensor]:
    """`ImplicitMotionTransfer.forward`, drawn towards the truth: what the networks around it learn from meanwhile.

    Where the source shows a cell's content, its true cell's value has the weight ``strength`` (0..1) and attention
    has the rest; at the finer levels that many of the cells, drawn at random, follow the truth instead of the best
    match.
    """
    aligned: list[Tensor] = []
    best: Tensor | None = None
    for i, level in enumerate(transfer):
        if isinstance(level, CrossAttentionLevel):
            attention, side = level.block_efc, driving[i].shape[-1]
            query, values = to_tokens(driving[i]), source.values[i]
            cells, shown = true_cells(truth, side, torch.arange(side * side, device=driving[i].device))
            q = attention.split(attention.q_proj(query))
            found = F.scaled_dot_product_attention(q, source.keys[i], values)
            true = values.gather(2, cells[:, None, :, None].expand(-1, values.shape[1], -1, values.shape[3]))
            weight = (strength * shown)[:, None, :, None].to(found.dtype)
            aligned.append(to_map(attention.join(found.lerp(true.to(found.dtype), weight)), side))
            if i == transfer.attention_levels - 1 and source.pooled:
                told = torch.rand(cells.shape, generator=draw).to(cells.device) < strength
                best = torch.where(told & shown.bool(), cells, attention.best(query, source.keys[i]))
        else:
            assert best is not None and isinstance(level, ResampledLevel)  # noqa: S101  (narrows the type)
            aligned.append(resample(source.pooled[i - transfer.attention_levels], best, level.ratio))
    return aligned


def true_cells(truth: Truth, side: int, queries: Tensor) -> tuple[Tensor, Tensor]:
    """For the target's cells ``queries`` [n] of a map of ``side`` x ``side``: the source's cell with the same content.

    Returns int64 [B, n], and float [B, n] with 0 where the source does not show it.
    """
    target, source = (_at(coordinates, side) for coordinates in (truth.target_coordinates, truth.reference_coordinates))
    distance = torch.cdist(target[:, queries], source)
    nearest, cells = distance.min(-1)
    return cells, (nearest < _NEAR * 2 / side).float()


def _at(coordinates: Tensor, side: int) -> Tensor:
    """[B, 2, n, n] in the middles of n x n cells -> [B, side², 2] near those of a coarser map."""
    apart = coordinates.shape[-1] // side
    middle = slice(apart // 2, None, apart)
    return coordinates[..., middle, middle].flatten(2).transpose(1, 2)

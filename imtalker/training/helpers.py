"""Losses that pictures with known geometry allow: where features come from, and what a motion code says.

The transfer has to learn routing by position before anything else pays. Both losses are for the beginning of a
training and fade; the networks that result are those of the published model.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imtalker.avatars import NEUTRAL, STATE_FIELDS
from imtalker.layers.attention import to_map, to_tokens
from imtalker.layers.resample import resample
from imtalker.renderer.transfer import CrossAttentionLevel, ImplicitMotionTransfer, ResampledLevel, SourceMaps
from imtalker.training.pictures import Truth

# Of a state around neutral, what counts as one.
_UNIT = {"x": 0.03, "y": 0.03, "scale": 0.04, "yaw": 0.3, "pitch": 0.2, "roll": 0.15}
# In cells: content further away than this is hidden in the source.
_NEAR = 1.5
# In cells: attention that is spread so far about a place tells where between the cells it lies.
_SPREAD = 0.5


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
    transfer: ImplicitMotionTransfer,
    driving: list[Tensor],
    source: SourceMaps,
    truth: Truth,
    draw: torch.Generator,
    *,
    queries: int = 64,
) -> Tensor:
    """How little the attention levels look at the place in the source that shows a cell's content.

    Mean of the divergence (Kullback-Leibler, nats) of the attention weights, which are averaged over heads first, from
    `true_weights`, for ``queries`` random cells of each level whose content the source shows. driving [B, C, r, r] of
    the attention levels; source of the same batch.
    """
    losses = []
    for level, maps, keys in zip(transfer, driving, source.keys, strict=False):
        if not isinstance(level, CrossAttentionLevel):
            break
        side = maps.shape[-1]
        drawn = torch.randperm(side * side, generator=draw)[:queries].to(maps.device)
        wanted, shown = true_weights(truth, side, drawn)
        attention = level.block_efc
        q = attention.split(attention.q_proj(to_tokens(maps)[:, drawn]))
        logits = (q @ keys.transpose(2, 3)).float() * q.shape[-1] ** -0.5
        log_weights = logits.log_softmax(-1).logsumexp(1) - math.log(logits.shape[1])
        apart = F.kl_div(log_weights, wanted, reduction="none").sum(-1)
        losses.append((apart * shown).sum() / shown.sum().clamp(min=1))
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

    Where the source shows a cell's content, attention by `true_weights` has the weight ``strength`` (0..1) and the
    transfer's own has the rest; at the finer levels that many of the cells, drawn at random, follow the truth instead
    of the best match.
    """
    aligned: list[Tensor] = []
    best: Tensor | None = None
    for i, level in enumerate(transfer):
        if isinstance(level, CrossAttentionLevel):
            attention, side = level.block_efc, driving[i].shape[-1]
            query, values = to_tokens(driving[i]), source.values[i]
            wanted, shown = true_weights(truth, side, torch.arange(side * side, device=driving[i].device))
            q = attention.split(attention.q_proj(query))
            found = F.scaled_dot_product_attention(q, source.keys[i], values)
            true = wanted[:, None].to(found.dtype) @ values.to(found.dtype)
            weight = (strength * shown)[:, None, :, None].to(found.dtype)
            aligned.append(to_map(attention.join(found.lerp(true, weight)), side))
            if i == transfer.attention_levels - 1 and source.pooled:
                told = torch.rand(shown.shape, generator=draw).to(shown.device) < strength
                best = torch.where(told & shown.bool(), wanted.argmax(-1), attention.best(query, source.keys[i]))
        else:
            assert best is not None and isinstance(level, ResampledLevel)  # noqa: S101  (narrows the type)
            aligned.append(resample(source.pooled[i - transfer.attention_levels], best, level.ratio))
    return aligned


def true_weights(truth: Truth, side: int, queries: Tensor) -> tuple[Tensor, Tensor]:
    """For the target's cells ``queries`` [n] of a map of ``side`` x ``side``: how to look at the source's N cells.

    Returns [B, n, N], a bell about the place with the same content that sums to 1, so that places between cells can be
    told; and float [B, n] with 0 where the source does not show it.
    """
    target, source = (_at(coordinates, side) for coordinates in (truth.target_coordinates, truth.reference_coordinates))
    distance = torch.cdist(target[:, queries], source) * (side / 2)
    weights = (-0.5 * (distance / _SPREAD).square()).softmax(-1)
    return weights, (distance.amin(-1) < _NEAR).float()


def _at(coordinates: Tensor, side: int) -> Tensor:
    """[B, 2, n, n] in the middles of n x n cells -> [B, side², 2] near those of a coarser map."""
    apart = coordinates.shape[-1] // side
    middle = slice(apart // 2, None, apart)
    return coordinates[..., middle, middle].flatten(2).transpose(1, 2)

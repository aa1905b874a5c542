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
from imtalker.training.places import true_places, true_weights

# Of a state around neutral, what counts as one.
_UNIT = {"x": 0.03, "y": 0.03, "scale": 0.04, "yaw": 0.3, "pitch": 0.2, "roll": 0.15}


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

    Where the source shows a cell's content, what lies at its true place has the weight ``strength`` (0..1) and what the
    transfer's own attention gives has the rest; at the finer levels that many of the cells, drawn at random, follow the
    truth instead of the best match. At strength 1 the transfer's own attention is not computed, and hidden cells get
    the content most like theirs.
    """
    known = true_places(truth, (maps.shape[-1] for maps in driving))
    aligned: list[Tensor] = []
    best: Tensor | None = None
    for i, level in enumerate(transfer):
        if isinstance(level, CrossAttentionLevel):
            attention, side = level.block_efc, driving[i].shape[-1]
            query, values = to_tokens(driving[i]), source.values[i]
            places = known[side]
            found, best = _sampled(values, places.points), places.nearest
            if strength < 1:
                q = attention.split(attention.q_proj(query))
                own = F.scaled_dot_product_attention(q, source.keys[i], values)
                found = own.lerp(found, (strength * places.shown)[:, None, :, None].to(own.dtype))
                if i == transfer.attention_levels - 1 and source.pooled:
                    told = torch.rand(places.shown.shape, generator=draw).to(places.shown.device) < strength
                    best = torch.where(told & places.shown.bool(), best, attention.best(query, source.keys[i]))
            aligned.append(to_map(attention.join(found), side))
        else:
            assert best is not None and isinstance(level, ResampledLevel)  # noqa: S101  (narrows the type)
            aligned.append(resample(source.pooled[i - transfer.attention_levels], best, level.ratio))
    return aligned


def _sampled(values: Tensor, points: Tensor) -> Tensor:
    """Values [B, heads, side², c] between cells, at points [B, side², 2] in -1..1."""
    side = math.isqrt(values.shape[2])
    maps = values.transpose(2, 3).flatten(1, 2).unflatten(2, (side, side))
    found = F.grid_sample(maps.float(), points.unflatten(1, (side, side)), padding_mode="border", align_corners=False)
    return found.flatten(2).unflatten(1, (values.shape[1], -1)).transpose(2, 3).to(values.dtype)

"""Losses that pictures with known geometry allow: where features come from, and what a motion code says.

The transfer has to learn routing by position before anything else pays. Both losses are for the beginning of a
training and fade; the networks that result are those of the published model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imtalker.avatars import NEUTRAL, STATE_FIELDS
from imtalker.layers.attention import to_map, to_tokens
from imtalker.layers.resample import resample
from imtalker.renderer.transfer import CrossAttentionLevel, ImplicitMotionTransfer, ResampledLevel, SourceMaps
from imtalker.training.pictures import Truth
from imtalker.training.places import true_places, true_weights

# Of a state around neutral, what counts as one: about the deviations of `avatar_pictures.draw_states`, so that a head's
# turns, which are easily seen, don't keep lids, gaze and lips from being learnt.
_UNIT = {
    **{"yaw": 0.13, "pitch": 0.06, "roll": 0.05, "x": 0.012, "y": 0.009, "scale": 0.016},
    **{"gaze_x": 0.2, "gaze_y": 0.11, "blink": 0.35, "brows": 0.47},
    **{"mouth_open": 0.32, "mouth_width": 0.53, "mouth_round": 0.32, "jaw": 0.27},
}

# Eyes and mouth are some hundredths of a picture.
_RARE = 5.0


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
        self.register_buffer("unit", torch.tensor([_UNIT[name] for name in STATE_FIELDS]), persistent=False)

    def forward(self, codes: Tensor, states: Tensor) -> Tensor:
        """Mean absolute error of the read states, each field in its own unit. states [B, 14]."""
        return (self.linear(codes) - (states - self.neutral) / self.unit).abs().mean()


class FaceFinder(nn.Module):
    """Tells from a network's maps where a picture shows eyes and mouth, and how wrong it is."""

    rare: Tensor

    def __init__(self, channels: Iterable[int]) -> None:
        """``channels`` of each of the maps."""
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(count, 1, 1) for count in channels)
        self.register_buffer("rare", torch.tensor(_RARE), persistent=False)

    def forward(self, maps: Iterable[Tensor], masks: Tensor) -> Tensor:
        """Mean binary cross-entropy; ``maps`` [B, C, r, r] each, ``masks`` [B, 1, R, R] in 0..1."""
        losses = []
        for convolution, features in zip(self.convolutions, maps, strict=True):
            wanted = F.adaptive_avg_pool2d(masks, features.shape[-1])
            found = convolution(features).float()
            losses.append(F.binary_cross_entropy_with_logits(found, wanted, pos_weight=self.rare))
        return torch.stack(losses).mean()


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

"""What pictures with known geometry allow: losses that tell where things are, and transfers that are told.

The transfer has to learn routing by position before anything else pays. The help is for the beginning of a training
and fades; the networks that result are those of the published model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imtalker.layers.attention import MultiHeadAttention, to_map, to_tokens
from imtalker.layers.resample import resample
from imtalker.renderer.transfer import CrossAttentionLevel, ImplicitMotionTransfer, ResampledLevel, SourceMaps
from imtalker.training.pictures import Truth
from imtalker.training.places import Places, is_fine, near_cells, near_weights, taken, true_weights

# Eyes and mouth are some hundredths of a picture.
_RARE = 5.0
# A look at few keys is cheap: there are so many for each at all of them.
_NEAR_QUERIES = 8
# How much likelier than others a cell is looked at that has eyes or mouth in all pictures: a third of all looks.
_FACE = 20.0


class FaceFinder(nn.Module):
    """Tells from maps of a network where a picture shows eyes and mouth, and how wrong that is."""

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
    places: Mapping[int, Places],
    draw: torch.Generator,
    face: Tensor | None = None,
    *,
    queries: int = 128,
) -> Tensor:
    """How little the attention levels look at the place in the source that shows a cell's content.

    Mean of the divergence (Kullback-Leibler, nats) of the attention weights, which are averaged over heads first, from
    `true_weights`, for ``queries`` random cells of each level; of the fine levels also that among the few cells near
    the true place, for eight times as many. Cells whose content the source hides look at what is most like it:
    something they have to look at. driving [B, C, r, r] of the attention levels; source and `true_places` of the same
    batch, and ``face``, the targets' masks of eyes and mouth [B, 1, R, R]: where these are, cells are drawn more often.
    """
    losses = []
    for attention, maps, keys in zip(_attentions(transfer, len(driving)), driving, source.keys, strict=True):
        side = maps.shape[-1]
        many = _drawn(side, _NEAR_QUERIES * queries, face, draw).to(maps.device)
        few = many[:queries]
        q = attention.split(attention.q_proj(to_tokens(maps)[:, many]))
        losses.append(_divergence(q[:, :, : len(few)] @ keys.transpose(2, 3), true_weights(truth, side, few), q))
        if is_fine(side):
            cells = near_cells(places[side])[:, many]
            losses.append(_divergence(_near_logits(q, keys, cells), near_weights(truth, side, cells, many), q))
    return torch.stack(losses).mean()


def told_transfer(transfer: ImplicitMotionTransfer, source: SourceMaps, places: Mapping[int, Places]) -> list[Tensor]:
    """`ImplicitMotionTransfer.forward` by the truth: every cell takes what lies at the place with its content.

    The transfer's own attention is not computed. source and `true_places` of the same batch.
    """

    def told(attention: MultiHeadAttention, i: int) -> Tensor:
        values = source.values[i]
        return attention.join(_sampled(values, places[math.isqrt(values.shape[2])].points))

    return _aligned(transfer, source, places, told)


def near_transfer(
    transfer: ImplicitMotionTransfer,
    driving: list[Tensor],
    source: SourceMaps,
    places: Mapping[int, Places],
    alone: torch.Generator | None = None,
) -> list[Tensor]:
    """`ImplicitMotionTransfer.forward`, the fine levels looking only at the few cells near the true place.

    The attention's own, at a fraction of its cost: what it learns is to tell where between the cells a place is. With
    ``alone``, a source of chance, it is left alone in a quarter of each fine map: one in the middle, where faces are,
    or anywhere, as often.
    """

    def near(attention: MultiHeadAttention, i: int) -> Tensor:
        keys, values, query, side = source.keys[i], source.values[i], to_tokens(driving[i]), driving[i].shape[-1]
        if not is_fine(side):
            return attention(query, keys, values)
        cells = near_cells(places[side])
        q = attention.split(attention.q_proj(query))
        weights = (_near_logits(q, keys, cells) * q.shape[-1] ** -0.5).softmax(-1)
        mixed = (weights[..., None].to(values.dtype) * _near(values, cells)).sum(3)
        if alone is not None:
            part = _quarter(side, alone).to(q.device)
            own = F.scaled_dot_product_attention(q[:, :, part], keys, values)
            mixed = mixed.index_copy(2, part, own.to(mixed.dtype))
        return attention.join(mixed)

    return _aligned(transfer, source, places, near)


def _attentions(transfer: ImplicitMotionTransfer, levels: int) -> list[MultiHeadAttention]:
    """Of the first ``levels``, those that attend."""
    return [cast(CrossAttentionLevel, level).block_efc for level in list(transfer)[:levels]]


def _aligned(
    transfer: ImplicitMotionTransfer,
    source: SourceMaps,
    places: Mapping[int, Places],
    attend: Callable[[MultiHeadAttention, int], Tensor],
) -> list[Tensor]:
    """Aligned features of all levels, coarse to fine; ``attend`` makes the tokens of a level that attends."""
    sides = [math.isqrt(values.shape[2]) for values in source.values]
    attentions = _attentions(transfer, len(sides))
    tokens = [
        to_map(attend(attention, i), side) for i, (attention, side) in enumerate(zip(attentions, sides, strict=True))
    ]
    best = places[sides[-1]].nearest
    finer = cast(Sequence[ResampledLevel], list(transfer)[len(sides) :])
    return tokens + [resample(pooled, best, level.ratio) for level, pooled in zip(finer, source.pooled, strict=True)]


def _quarter(side: int, draw: torch.Generator) -> Tensor:
    """The cells of a square of half the side, int64 [side² / 4]."""
    half = side // 2
    middle = torch.rand((), generator=draw) < 0.5
    top, left = ((side - half) // 2,) * 2 if middle else torch.randint(side - half + 1, (2,), generator=draw).tolist()
    along = torch.arange(half)
    return (side * (top + along[:, None]) + left + along).flatten()


def _drawn(side: int, count: int, face: Tensor | None, draw: torch.Generator) -> Tensor:
    """Different random cells of a map, int64 [count] or all there are; more of where the batch has eyes and mouths."""
    weights = torch.ones(side * side)
    if face is not None:
        weights += _FACE * F.adaptive_avg_pool2d(face, side).mean((0, 1)).flatten().cpu()
    return torch.multinomial(weights, min(count, side * side), generator=draw)


def _divergence(products: Tensor, wanted: Tensor, query: Tensor) -> Tensor:
    """Of the weights that products of queries and keys [B, heads, n, k] give, from wanted ones [B, n, k]."""
    logits = products.float() * query.shape[-1] ** -0.5
    found = logits.log_softmax(-1).logsumexp(1) - math.log(logits.shape[1])
    return F.kl_div(found, wanted, reduction="none").sum(-1).mean()


def _near_logits(query: Tensor, keys: Tensor, cells: Tensor) -> Tensor:
    """Queries [B, heads, n, c] with the keys [B, heads, N, c] of their ``cells`` [B, n, k] -> [B, heads, n, k]."""
    return (query[..., None, :] * _near(keys, cells)).sum(-1, dtype=torch.float32)


def _near(rows: Tensor, cells: Tensor) -> Tensor:
    """[B, heads, N, c] at ``cells`` [B, n, k] -> [B, heads, n, k, c]."""
    found = taken(rows.transpose(1, 2).flatten(2), cells)
    return found.unflatten(3, (rows.shape[1], -1)).permute(0, 3, 1, 2, 4)


def _sampled(values: Tensor, points: Tensor) -> Tensor:
    """Values [B, heads, side², c] between cells, at points [B, side², 2] in -1..1."""
    side = math.isqrt(values.shape[2])
    maps = values.transpose(2, 3).flatten(1, 2).unflatten(2, (side, side))
    found = F.grid_sample(maps.float(), points.unflatten(1, (side, side)), padding_mode="border", align_corners=False)
    return found.flatten(2).unflatten(1, (values.shape[1], -1)).transpose(2, 3).to(values.dtype)

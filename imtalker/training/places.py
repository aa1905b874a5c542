"""Where in a source picture the content of a target's cells lies, for pictures with known geometry."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from imtalker.training.pictures import Truth

# In cells: content further away than this is hidden in the source.
_NEAR = 1.5
# In cells: attention that is spread so far about a place tells where between the cells it lies.
_SPREAD = 0.5
# The largest map whose cells are all compared with each other; finer maps look around what it finds.
_COMPARED = 32
_AROUND = 2


class Places(NamedTuple):
    """Of all n = side² cells of B targets, row-major."""

    points: Tensor
    """x and y in the source, -1..1 as ``grid_sample(align_corners=False)`` reads them, [B, n, 2]."""
    nearest: Tensor
    """The source's cell with the most alike content, int64 [B, n]."""
    shown: Tensor
    """1 where the source shows the content, else 0; float [B, n]."""


def true_weights(truth: Truth, side: int, queries: Tensor) -> tuple[Tensor, Tensor]:
    """For the target's cells ``queries`` [n] of a map of ``side`` x ``side``: how to look at the source's N cells.

    Returns [B, n, N], a bell about the place with the same content that sums to 1, so that places between cells can be
    told; and float [B, n] with 0 where the source does not show it.
    """
    target, source = _shows(truth, side)
    return _bell(torch.cdist(target[:, queries], source) * (side / 2))


def true_places(truth: Truth, sides: Iterable[int]) -> dict[int, Places]:
    """Where the content of every cell lies in maps of some ``sides``: the means of the bells of `true_weights`.

    Cells of maps larger than 32 x 32 are sought around the place of the cell of 32 x 32 that they belong to.
    """
    wanted = list(sides)
    fine = [side for side in wanted if side > _COMPARED]
    compared = {side: _compared(truth, side) for side in {*wanted, *([_COMPARED] if fine else [])} - {*fine}}
    sought = {side: _sought(truth, side, compared[_COMPARED].nearest) for side in fine}
    return compared | sought


def _compared(truth: Truth, side: int) -> Places:
    """Each cell is compared with all of the source's."""
    target, source = _shows(truth, side)
    weights, shown = _bell(torch.cdist(target, source) * (side / 2))
    return Places(weights @ _middles(side, weights), weights.argmax(-1), shown)


def _sought(truth: Truth, side: int, parents: Tensor) -> Places:
    """Each cell is compared with those around where its parent, of 32 x 32, found its content."""
    target, source = _shows(truth, side)
    candidates = _candidates(parents, side)
    apart = _taken(source, candidates) - target[:, :, None]
    weights, shown = _bell(apart.norm(dim=-1) * (side / 2))
    nearest = candidates.gather(2, weights.argmax(-1, keepdim=True))[..., 0]
    points = (weights[..., None] * _middles(side, weights)[candidates]).sum(2)
    return Places(points, nearest, shown)


def _bell(distance: Tensor) -> tuple[Tensor, Tensor]:
    """Weights by distances in cells, over the last axis, and whether anything is near."""
    weights = (-0.5 * (distance / _SPREAD).square()).softmax(-1)
    return weights, (distance.amin(-1) < _NEAR).float()


def _candidates(parents: Tensor, side: int) -> Tensor:
    """The source's cells around where each cell's parent found its content, int64 [B, side², k]."""
    ratio = side // _COMPARED
    rows, columns = (
        place.unflatten(1, (_COMPARED, _COMPARED)) for place in (parents // _COMPARED, parents % _COMPARED)
    )
    around = torch.arange(-_AROUND, _AROUND + 1, device=parents.device)

    def finer(coarse: Tensor, within: Tensor) -> Tensor:
        larger = coarse.repeat_interleave(ratio, 1).repeat_interleave(ratio, 2)
        return (ratio * larger + within)[..., None] + around

    within = torch.arange(side, device=parents.device) % ratio
    rows, columns = finer(rows, within[:, None]).clamp(0, side - 1), finer(columns, within).clamp(0, side - 1)
    return (side * rows[..., :, None] + columns[..., None, :]).flatten(3).flatten(1, 2)


def _taken(cells: Tensor, index: Tensor) -> Tensor:
    """[B, N, C] at [B, n, k] -> [B, n, k, C]."""
    flat = index.flatten(1)[..., None].expand(-1, -1, cells.shape[-1])
    return cells.gather(1, flat).unflatten(1, index.shape[1:])


def _middles(side: int, like: Tensor) -> Tensor:
    """x and y of all cells' middles in -1..1, [side², 2]."""
    along = (torch.arange(side, device=like.device, dtype=like.dtype) * 2 + 1) / side - 1
    y, x = torch.meshgrid(along, along, indexing="ij")
    return torch.stack([x, y], -1).flatten(0, 1)


def _shows(truth: Truth, side: int) -> tuple[Tensor, Tensor]:
    """What the cells of target and source show, [B, side², C] each."""
    target, source = (_at(shown, side) for shown in (truth.target_coordinates, truth.reference_coordinates))
    return target, source


def _at(shown: Tensor, side: int) -> Tensor:
    """[B, C, n, n] in the middles of n x n cells -> [B, side², C] near those of a coarser map."""
    if shown.shape[-1] < side:
        raise ValueError(f"expected the geometry of at least {side} x {side} places, found {shown.shape[-1]}")
    apart = shown.shape[-1] // side
    middle = slice(apart // 2, None, apart)
    return shown[..., middle, middle].flatten(2).transpose(1, 2)

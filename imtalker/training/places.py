"""Where in a source picture the content of a target's cells lies, for pictures with known geometry."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from imtalker.training.pictures import Truth

# In cells: attention that is spread so far about a place tells where between the cells it lies.
_SPREAD = 0.5
# The largest map whose cells are all compared with each other; finer maps look around what it finds.
_COMPARED = 32
_AROUND = 2


class Places(NamedTuple):
    """Of all n = side² cells of B targets, row-major. A cell that the source does not show is given the content most
    like its own, which it shows."""

    points: Tensor
    """x and y in the source, -1..1 as ``grid_sample(align_corners=False)`` reads them, [B, n, 2]."""
    nearest: Tensor
    """The source's cell with the most alike content, int64 [B, n]."""


def true_weights(truth: Truth, side: int, queries: Tensor) -> Tensor:
    """For the target's cells ``queries`` [n] of a map of ``side`` x ``side``: how to look at the source's N cells.

    Returns [B, n, N], a bell about the place with the same content that sums to 1, so that places between cells can be
    told.
    """
    target, source = _shows(truth, side)
    return _bell(torch.cdist(target[:, queries], source) * (side / 2))


def true_places(truth: Truth, sides: Iterable[int]) -> dict[int, Places]:
    """Where the content of every cell lies in maps of some ``sides``: the means of the bells of `true_weights`.

    Cells of maps larger than 32 x 32 are sought around the place of the cell of 32 x 32 that they belong to.
    """
    wanted = set(sides)
    # Comparing all cells is what takes its time: once for each size.
    compared = {side: _nearest(truth, side) for side in {min(side, _COMPARED) for side in wanted}}
    return {side: _around(truth, side, compared[min(side, _COMPARED)]) for side in wanted}


def is_fine(side: int) -> bool:
    """Whether a map has so many cells that comparing all of them with each other is dear."""
    return side > _COMPARED


def near_cells(places: Places) -> Tensor:
    """The source's cells around the nearest one, itself among them: int64 [B, n, 9]."""
    return _window(places.nearest, math.isqrt(places.nearest.shape[1]), 3)


def near_weights(truth: Truth, side: int, cells: Tensor, queries: Tensor) -> Tensor:
    """How to look at some ``cells`` [B, n, k] of the source from the target's ``queries`` [n]: float [B, n, k], sums
    are 1."""
    return _bell(_apart(truth, side, cells, queries))


def _nearest(truth: Truth, side: int) -> Tensor:
    """The source's cell with the content most like each target cell's, int64 [B, side²]: all are compared."""
    target, source = _shows(truth, side)
    return torch.cdist(target, source).argmin(-1)


def _around(truth: Truth, side: int, parents: Tensor) -> Places:
    """Each cell is compared with those around where its parent, in the same map or a coarser one, found its content."""
    candidates = _candidates(parents, side)
    weights = _bell(_apart(truth, side, candidates, slice(None)))
    nearest = candidates.gather(2, weights.argmax(-1, keepdim=True))[..., 0]
    points = [(weights * along[candidates]).sum(-1) for along in _middles(side, weights).T.contiguous()]
    return Places(torch.stack(points, -1), nearest)


def _apart(truth: Truth, side: int, cells: Tensor, queries: Tensor | slice) -> Tensor:
    """How far the content of the target's cells ``queries`` is from that of ``cells`` [B, n, k] of the source, in
    cells."""
    target, source = _shows(truth, side)
    rows = _rows(cells, side * side)
    # One coordinate after the other: sums over an axis of three are slow.
    squares = [
        (b.flatten()[rows] - a[..., None]).square()
        for a, b in zip(target[:, queries].unbind(-1), source.unbind(-1), strict=True)
    ]
    return torch.stack(squares).sum(0).sqrt() * (side / 2)


def _bell(distance: Tensor) -> Tensor:
    """Weights by distances in cells, over the last axis."""
    return (-0.5 * (distance / _SPREAD).square()).softmax(-1)


def _candidates(parents: Tensor, side: int) -> Tensor:
    """The source's cells around where each cell's parent found its content, int64 [B, side², k]."""
    coarse = math.isqrt(parents.shape[1])
    ratio = side // coarse
    found = parents.unflatten(1, (coarse, coarse)).repeat_interleave(ratio, 1).repeat_interleave(ratio, 2)
    within = torch.arange(side, device=parents.device) % ratio
    rows, columns = ratio * (found // coarse) + within[:, None], ratio * (found % coarse) + within
    return _window((side * rows + columns).flatten(1), side, 2 * _AROUND + 1)


def _window(cells: Tensor, side: int, width: int) -> Tensor:
    """All cells of a square of ``width`` around each of ``cells`` [B, n], moved where it would leave the map:
    int64 [B, n, width²]."""
    width = min(width, side)
    around = torch.arange(width, device=cells.device)
    rows, columns = (
        (place - width // 2).clamp(0, side - width)[..., None] + around for place in (cells // side, cells % side)
    )
    return (side * rows[..., :, None] + columns[..., None, :]).flatten(2)


def taken(cells: Tensor, index: Tensor) -> Tensor:
    """Rows [B, N, C] at [B, n, k] -> [B, n, k, C]."""
    rows = _rows(index, cells.shape[1]).flatten()
    return cells.flatten(0, 1).index_select(0, rows).unflatten(0, index.shape)


def _rows(index: Tensor, count: int) -> Tensor:
    """Places [B, n, k] in each of B lists of ``count`` -> places in all lists, one after the other."""
    return index + count * torch.arange(len(index), device=index.device)[:, None, None]


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

"""Losses of known geometry, on cases whose answer is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from imtalker.avatars import NEUTRAL, STATE_FIELDS, draw_identity, render
from imtalker.layers.attention import to_map
from imtalker.renderer.renderer import Renderer
from imtalker.renderer.transfer import CrossAttentionLevel, SourceMaps
from imtalker.training import places as places_module
from imtalker.training.helpers import near_transfer, routing_loss, told_transfer
from imtalker.training.pictures import Truth
from imtalker.training.places import Places, near_cells, near_weights, true_places, true_weights
from tests.imtalker.test_renderer import SMALL

SIDE = 8
CELLS = SIDE * SIDE


def grid() -> Tensor:
    """[1, 2, 32, 32]: every cell shows its own place."""
    middles = (torch.arange(32) + 0.5) / 16 - 1
    y, x = torch.meshgrid(middles, middles, indexing="ij")
    return torch.stack([x, y])[None]


def truth(target: Tensor, reference: Tensor) -> Truth:
    states = torch.tensor(NEUTRAL)[None]
    return Truth(states, states, reference, target)


def places_of(known: Truth, *sides: int) -> dict[int, Places]:
    return true_places(known, sides or (SIDE,))


def centres(weights: Tensor) -> Tensor:
    """Where weights [n, side²] look on the average: rows and columns, [n, 2], in cells."""
    side = math.isqrt(weights.shape[1])
    places = torch.stack([torch.arange(side**2) // side, torch.arange(side**2) % side], 1).float()
    return weights @ places


def test_a_cell_of_equal_pictures_looks_at_itself() -> None:
    queries = torch.arange(CELLS)
    weights = true_weights(truth(grid(), grid()), SIDE, queries)
    assert torch.equal(weights[0].argmax(-1), queries)
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, CELLS))
    inside = (queries // SIDE).clamp(1, SIDE - 2) * SIDE + (queries % SIDE).clamp(1, SIDE - 2) == queries
    wanted = torch.stack([queries // SIDE, queries % SIDE], 1).float()
    torch.testing.assert_close(centres(weights[0])[inside], wanted[inside], atol=1e-2, rtol=0)


@pytest.mark.parametrize("cells", [2, 1.5])
def test_shifted_content_lies_where_it_was(cells: float) -> None:
    """The target shows everything further right, by whole cells or half a one: what comes in is not in the source."""
    moved = grid() - torch.tensor([cells * 2 / SIDE, 0.0])[None, :, None, None]
    weights = true_weights(truth(moved, grid()), SIDE, torch.arange(CELLS))
    rows, columns = torch.arange(CELLS) // SIDE, torch.arange(CELLS) % SIDE
    inside = (columns >= 3) & (rows > 0) & (rows < SIDE - 1) & (columns < SIDE - 1)
    wanted = torch.stack([rows, columns - cells], 1).float()
    torch.testing.assert_close(centres(weights[0])[inside], wanted[inside], atol=1e-2, rtol=0)


def test_an_avatar_that_moves_sideways_takes_its_cells_along() -> None:
    neutral = torch.tensor(NEUTRAL)
    moved = neutral.clone()
    moved[STATE_FIELDS.index("x")] = 0.125
    drawn = render(draw_identity(7), torch.stack([neutral, moved]), 256, device="cpu")
    coordinates = drawn.coordinates[..., 4::8, 4::8]
    shift = (drawn.landmarks[1] - drawn.landmarks[0])[:, 0].mean() / 256 * 32
    eyes = (drawn.eyes[1, 0, 4::8, 4::8] > 0.9).flatten().nonzero()[:, 0]
    weights = true_weights(truth(coordinates[1:], coordinates[:1]), 32, eyes)
    assert len(eyes) >= 4 and shift > 1
    found = centres(weights[0])
    assert (eyes % 32 - found[:, 1] - shift).abs().max() <= 0.25 and (eyes // 32 - found[:, 0]).abs().max() <= 0.25


def attending(weights: Tensor, heads: int = 1) -> tuple[nn.ModuleList, SourceMaps]:
    """A transfer of one level that looks from each cell, whose query is its one-hot code, by weights [CELLS, CELLS]."""
    level = CrossAttentionLevel(CELLS, heads)
    nn.init.eye_(level.block_efc.q_proj.weight)
    nn.init.zeros_(level.block_efc.q_proj.bias)
    # A query's code stands in one head only; the others look everywhere alike.
    keys = weights.clamp(min=1e-30).log().T * math.sqrt(CELLS / heads)
    split = level.block_efc.split(keys[None])
    return nn.ModuleList([level]), SourceMaps([split], [split], [])


def one_hot() -> Tensor:
    """[1, CELLS, SIDE, SIDE]"""
    return torch.eye(CELLS).view(1, CELLS, SIDE, SIDE)


def draw() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def moved_right() -> Truth:
    """Everything is two cells further right than in the source; what comes in is far from all that it shows."""
    moved = grid() - torch.tensor([2 * 2 / SIDE, 0.0])[None, :, None, None]
    return truth(torch.where(grid()[:, :1] < -1 + 4 / SIDE, 9.0, moved), grid())


def test_attention_as_it_should_be_costs_nothing() -> None:
    known = moved_right()
    weights = true_weights(known, SIDE, torch.arange(CELLS))[0]
    transfer, source = attending(weights)
    assert routing_loss(transfer, [one_hot()], source, known, places_of(known), draw()) < 1e-5
    wrong = attending(weights.roll(1, 1))[1]
    assert routing_loss(transfer, [one_hot()], wrong, known, places_of(known), draw()) > 1


@pytest.mark.parametrize("heads", [1, 4])
def test_attention_to_everything_costs_what_its_entropy_lacks(heads: int) -> None:
    known = truth(grid(), grid())
    transfer, source = attending(torch.ones(CELLS, CELLS), heads)
    loss = routing_loss(transfer, [one_hot()], source, known, places_of(known), draw(), queries=CELLS)
    weights = true_weights(known, SIDE, torch.arange(CELLS))[0]
    entropy = -(weights * weights.clamp(min=1e-30).log()).sum(1).mean().item()
    assert loss.item() == pytest.approx(math.log(CELLS) - entropy, rel=1e-5)


def test_fine_levels_are_also_judged_by_the_cells_near_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking everywhere alike costs what the bell's entropy lacks to nine cells'."""
    known = moved_right()
    weights = true_weights(known, SIDE, torch.arange(CELLS))[0]
    good, source = attending(weights)
    blind, nowhere = attending(torch.ones(CELLS, CELLS))
    coarse = routing_loss(blind, [one_hot()], nowhere, known, places_of(known), draw()).item()
    monkeypatch.setattr(places_module, "_COMPARED", SIDE // 2)
    assert routing_loss(good, [one_hot()], source, known, places_of(known), draw()) < 1e-3
    both = routing_loss(blind, [one_hot()], nowhere, known, places_of(known), draw()).item()
    cells = near_cells(places_of(known)[SIDE])
    bells = near_weights(known, SIDE, cells, torch.arange(CELLS))
    entropy = -(bells * bells.clamp(min=1e-30).log()).sum(-1).mean().item()
    assert 2 * both - coarse == pytest.approx(math.log(9) - entropy, rel=1e-4)


def test_half_of_the_heads_cost_a_logarithm_of_two() -> None:
    """Weights are averaged over heads: one of two looks at the true place, the other far from it."""
    level = CrossAttentionLevel(CELLS, 2)
    nn.init.zeros_(level.block_efc.q_proj.weight)
    nn.init.ones_(level.block_efc.q_proj.bias)
    here = truth(grid()[..., 2:3, 22:23].expand(1, 2, 32, 32), grid())
    keys = torch.zeros(1, 2, CELLS, CELLS // 2)
    keys[0, 0, :, 0] = true_weights(here, SIDE, torch.zeros(1).long())[0, 0].log() * math.sqrt(CELLS / 2)
    keys[0, 1, CELLS - SIDE, 0] = 1000.0
    source = SourceMaps([keys], [keys], [])
    loss = routing_loss(nn.ModuleList([level]), [one_hot()], source, here, places_of(here), draw())
    assert loss.item() == pytest.approx(math.log(2), rel=1e-3)


def test_what_the_source_hides_is_sought_where_it_is_most_alike() -> None:
    """All content lies beyond the lower right corner."""
    known = truth(grid() + 9, grid())
    corner = torch.zeros(CELLS, CELLS)
    corner[:, -1] = 1
    transfer, source = attending(corner)
    right = routing_loss(transfer, [one_hot()], source, known, places_of(known), draw())
    transfer, source = attending(corner.roll(1, 1))
    assert right < 0.1 < 1 < routing_loss(transfer, [one_hot()], source, known, places_of(known), draw())


def prepared(renderer: Renderer) -> tuple[list[Tensor], SourceMaps]:
    """Motion maps of one picture, and the maps of another."""
    pictures = torch.rand(2, 3, SMALL.resolution, SMALL.resolution, generator=draw())
    source = renderer.prepare(pictures[:1])
    return renderer.motion_maps(renderer.encode_motion(pictures[1:]), source.identity), source.maps


@torch.no_grad()
def test_a_transfer_that_is_told_takes_every_cell_from_its_true_place() -> None:
    torch.manual_seed(0)
    renderer = Renderer(SMALL).eval()
    _, source = prepared(renderer)
    known = truth(grid(), grid())
    told = told_transfer(renderer.imt, source, places_of(known, *attended()))
    fine = 0
    for level, (transfer, found) in enumerate(zip(renderer.imt, told, strict=True)):
        side = found.shape[-1]
        if isinstance(transfer, CrossAttentionLevel):
            wanted = to_map(transfer.block_efc.join(source.values[level]), side)
            # The mean of a bell at the rim lies a little inside.
            inner = (..., slice(1, -1), slice(1, -1))
            found, wanted = found[inner], wanted[inner]
        else:
            cells = source.pooled[fine].unflatten(2, (SMALL.swin_res_threshold // 2,) * 2)
            wanted = nn.functional.interpolate(cells, size=side)
            fine += 1
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
    assert fine


@torch.no_grad()
def test_the_truth_gives_hidden_cells_what_is_most_like_them() -> None:
    """All content lies beyond the lower right corner: every cell gets the corner's."""
    torch.manual_seed(0)
    renderer = Renderer(SMALL).eval()
    _, source = prepared(renderer)
    told = told_transfer(renderer.imt, source, places_of(truth(grid() + 9, grid()), *attended()))
    for level, found in enumerate(told[: renderer.imt.attention_levels]):
        corner = renderer.imt[level].block_efc.join(source.values[level][:, :, -1:])
        torch.testing.assert_close(found.flatten(2), corner.transpose(1, 2).expand(-1, -1, found.shape[-1] ** 2))


@torch.no_grad()
@pytest.mark.parametrize("compared", [1, 64])
def test_near_attention_is_attention_that_sees_a_few_cells_only(compared: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Coarse levels see everything; where all levels are fine, none sees more than the cells near the true place."""
    torch.manual_seed(0)
    renderer = Renderer(SMALL).eval()
    driving, source = prepared(renderer)
    known = truth(grid() - torch.tensor([0.2, 0.1])[None, :, None, None], grid())
    places = places_of(known, *attended())
    monkeypatch.setattr(places_module, "_COMPARED", compared)
    near = near_transfer(renderer.imt, driving, source, places)
    for level in range(renderer.imt.attention_levels):
        attention, side = renderer.imt[level].block_efc, driving[level].shape[-1]
        q = attention.split(attention.q_proj(driving[level].flatten(2).transpose(1, 2)))
        logits = q @ source.keys[level].transpose(2, 3) * q.shape[-1] ** -0.5
        seen = torch.zeros_like(logits[:, :1]).scatter_(3, near_cells(places[side])[:, None], 1.0)
        if compared > side:
            seen = torch.ones_like(seen)
        weights = logits.masked_fill(seen == 0, -math.inf).softmax(-1)
        wanted = to_map(attention.join(weights @ source.values[level]), side)
        torch.testing.assert_close(near[level], wanted, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_attention_is_left_alone_in_a_quarter_and_kept_near_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    renderer = Renderer(SMALL).eval()
    driving, source = prepared(renderer)
    places = places_of(truth(grid() - 0.2, grid()), *attended())
    monkeypatch.setattr(places_module, "_COMPARED", 1)
    own = renderer.imt(driving, source)
    near = near_transfer(renderer.imt, driving, source, places)
    part = near_transfer(renderer.imt, driving, source, places, draw())
    for level in range(renderer.imt.attention_levels):
        alone = (part[level] - own[level]).abs().amax(1) < 1e-5
        kept = (part[level] - near[level]).abs().amax(1) < 1e-5
        assert (alone | kept).all()
        assert (alone & ~kept).sum() == alone.numel() // 4


def attended() -> list[int]:
    return [side for side in SMALL.level_resolutions if side < SMALL.swin_res_threshold]

"""Losses of known geometry, on cases whose answer is known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from imtalker.avatars import NEUTRAL, STATE_FIELDS, draw_identity, render
from imtalker.layers.attention import to_map
from imtalker.renderer.renderer import Renderer
from imtalker.renderer.transfer import CrossAttentionLevel, SourceMaps
from imtalker.training.helpers import StateReadout, guided_transfer, routing_loss, true_cells
from imtalker.training.pictures import Truth
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


def test_equal_pictures_have_equal_cells() -> None:
    queries = torch.arange(CELLS)
    cells, shown = true_cells(truth(grid(), grid()), SIDE, queries)
    assert torch.equal(cells[0], queries) and shown.all()


def test_shifted_content_lies_where_it_was() -> None:
    """The target shows everything two of eight cells further right: what comes in is not in the source."""
    moved = grid() - torch.tensor([2 * 2 / SIDE, 0.0])[None, :, None, None]
    cells, shown = true_cells(truth(moved, grid()), SIDE, torch.arange(CELLS))
    rows, columns = torch.arange(CELLS) // SIDE, torch.arange(CELLS) % SIDE
    inside = columns >= 2
    assert torch.equal(cells[0][inside], (rows * SIDE + columns - 2)[inside])
    assert torch.equal(shown[0].bool(), columns >= 1)


def test_an_avatar_that_moves_sideways_takes_its_cells_along() -> None:
    neutral = torch.tensor(NEUTRAL)
    moved = neutral.clone()
    moved[STATE_FIELDS.index("x")] = 0.125
    drawn = render(draw_identity(7), torch.stack([neutral, moved]), 256, device="cpu")
    coordinates = drawn.coordinates[..., 4::8, 4::8]
    shift = (drawn.landmarks[1] - drawn.landmarks[0])[:, 0].mean() / 256 * 32
    eyes = (drawn.eyes[1, 0, 4::8, 4::8] > 0.9).flatten().nonzero()[:, 0]
    cells, shown = true_cells(truth(coordinates[1:], coordinates[:1]), 32, eyes)
    assert len(eyes) >= 4 and shown.all() and shift > 1
    steps = eyes - cells[0]
    assert (steps % 32 - shift).abs().max() <= 0.5 + 1e-3 and (steps // 32 == 0).all()


def attending(keys: Tensor, heads: int = 1) -> tuple[nn.ModuleList, SourceMaps]:
    """A transfer of one level whose query of a cell is the cell's one-hot code, and these keys [CELLS, CELLS]."""
    level = CrossAttentionLevel(CELLS, heads)
    nn.init.eye_(level.block_efc.q_proj.weight)
    nn.init.zeros_(level.block_efc.q_proj.bias)
    split = level.block_efc.split(keys[None])
    return nn.ModuleList([level]), SourceMaps([split], [split], [])


def one_hot() -> Tensor:
    """[1, CELLS, SIDE, SIDE]"""
    return torch.eye(CELLS).view(1, CELLS, SIDE, SIDE)


def draw() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_attention_to_the_true_cell_costs_nothing() -> None:
    """Keys of the source's cells, shifted as its content is: each target cell looks two cells to the left."""
    moved = grid() - torch.tensor([2 * 2 / SIDE, 0.0])[None, :, None, None]
    keys = 1000 * torch.eye(CELLS).view(SIDE, SIDE, CELLS).roll(-2, 1).reshape(CELLS, CELLS)
    transfer, source = attending(keys)
    # The first two columns are not in the source, though the second is near enough to count as shown.
    known = truth(moved, grid())
    inside = replace(known, target_coordinates=torch.where(grid()[:, :1] < -1 + 4 / SIDE, 9.0, moved))
    assert routing_loss(transfer, [one_hot()], source, inside, draw()) < 1e-6
    wrong = attending(keys.roll(1, 0))[1]
    assert routing_loss(transfer, [one_hot()], wrong, inside, draw()) > 10


@pytest.mark.parametrize("heads", [1, 4])
def test_attention_to_everything_costs_the_logarithm_of_the_cells(heads: int) -> None:
    transfer, source = attending(torch.zeros(CELLS, CELLS), heads)
    loss = routing_loss(transfer, [one_hot()], source, truth(grid(), grid()), draw())
    assert loss.item() == pytest.approx(math.log(CELLS), rel=1e-5)


def test_half_of_the_heads_cost_a_logarithm_of_two() -> None:
    """Weights are averaged over heads: one of two looks at the true cell, the other at its neighbour."""
    level = CrossAttentionLevel(CELLS, 2)
    transfer = nn.ModuleList([level])
    nn.init.zeros_(level.block_efc.q_proj.weight)
    nn.init.ones_(level.block_efc.q_proj.bias)
    keys = torch.zeros(1, 2, CELLS, CELLS // 2)
    keys[0, 0, 5], keys[0, 1, 6] = 1000.0, 1000.0
    here = grid()[..., 2:3, 22:23].expand(1, 2, 32, 32)
    loss = routing_loss(transfer, [one_hot()], SourceMaps([keys], [keys], []), truth(here, grid()), draw())
    assert loss.item() == pytest.approx(math.log(2), rel=1e-4)


def test_what_the_source_hides_costs_nothing() -> None:
    transfer, source = attending(torch.zeros(CELLS, CELLS))
    assert routing_loss(transfer, [one_hot()], source, truth(grid() + 9, grid()), draw()) == 0


def test_a_read_state_is_compared_in_units_of_its_fields() -> None:
    readout = StateReadout(4)
    nn.init.zeros_(readout.linear.weight)
    nn.init.zeros_(readout.linear.bias)
    state = torch.tensor(NEUTRAL)[None]
    assert readout(torch.randn(1, 4), state) == 0
    turned = torch.tensor(NEUTRAL)[None].clone()
    turned[0, STATE_FIELDS.index("yaw")] += 0.4
    assert readout(torch.randn(1, 4), turned).item() == pytest.approx(1 / len(STATE_FIELDS))


def prepared(renderer: Renderer) -> tuple[list[Tensor], SourceMaps]:
    """Motion maps of one picture, and the maps of another."""
    pictures = torch.rand(2, 3, SMALL.resolution, SMALL.resolution, generator=draw())
    source = renderer.prepare(pictures[:1])
    return renderer.motion_maps(renderer.encode_motion(pictures[1:]), source.identity), source.maps


@torch.no_grad()
def test_a_transfer_that_is_shown_nothing_is_the_models_own() -> None:
    torch.manual_seed(0)
    renderer = Renderer(SMALL).eval()
    driving, source = prepared(renderer)
    own = renderer.imt(driving, source)
    for shown, strength in ((grid(), 0.0), (grid() + 9, 1.0)):
        guided = guided_transfer(renderer.imt, driving, source, truth(shown, grid()), strength, draw())
        for found, wanted in zip(guided, own, strict=True):
            torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_transfer_that_is_shown_all_takes_every_cell_from_its_true_place() -> None:
    """Half-way between, coarse levels have half of each."""
    torch.manual_seed(0)
    renderer = Renderer(SMALL).eval()
    driving, source = prepared(renderer)
    own = renderer.imt(driving, source)
    told = guided_transfer(renderer.imt, driving, source, truth(grid(), grid()), 1.0, draw())
    half = guided_transfer(renderer.imt, driving, source, truth(grid(), grid()), 0.5, draw())
    fine = 0
    for level, (transfer, found) in enumerate(zip(renderer.imt, told, strict=True)):
        side = found.shape[-1]
        if isinstance(transfer, CrossAttentionLevel):
            wanted = to_map(transfer.block_efc.join(source.values[level]), side)
            torch.testing.assert_close(half[level], (own[level] + wanted) / 2, atol=1e-5, rtol=1e-4)
        else:
            cells = source.pooled[fine].unflatten(2, (SMALL.swin_res_threshold // 2,) * 2)
            wanted = nn.functional.interpolate(cells, size=side)
            # Half of the cells are drawn.
            kept = (half[level] == wanted).all(1).float().mean()
            assert 0.3 < kept < 0.8
            fine += 1
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
    assert fine

"""Where a target's content lies in its source: on shifted pictures, on fine maps, behind what moves in front."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from imtalker.avatars import NEUTRAL, STATE_FIELDS, draw_identity, render
from imtalker.avatars.canvas import Layer
from imtalker.training.pictures import Truth
from imtalker.training.places import true_places, true_weights


def grid(side: int) -> Tensor:
    """[1, 2, side, side]: every cell shows its own place."""
    middles = (torch.arange(side) * 2 + 1) / side - 1
    y, x = torch.meshgrid(middles, middles, indexing="ij")
    return torch.stack([x, y])[None]


def truth(target: Tensor, reference: Tensor) -> Truth:
    states = torch.tensor(NEUTRAL)[None]
    return Truth(states, states, reference, target)


def visible(known: Truth) -> Tensor:
    """Whether the source shows, within a cell and a half, what each of the target's cells shows: bool [B, side²]."""
    target, source = (x.flatten(2).transpose(1, 2) for x in (known.target_coordinates, known.reference_coordinates))
    return torch.cdist(target, source).amin(-1) < 1.5 * 2 / known.target_coordinates.shape[-1]


@pytest.mark.parametrize("side", [8, 32, 64, 128])
@pytest.mark.parametrize("cells", [0.0, 2.0, 2.5, -7.25])
def test_shifted_content_lies_where_it_was(side: int, cells: float) -> None:
    """The target shows everything further right: in coarse maps and in fine ones, and between cells."""
    cells = cells * side / 64
    shift = torch.tensor([2 * cells / side, 0.0])[None, :, None, None]
    places = true_places(truth(grid(128) - shift, grid(128)), [side])[side]
    points = places.points.unflatten(1, (side, side)).permute(0, 3, 1, 2)
    edge = 2 + int(abs(cells))
    inside = slice(edge, side - edge)
    found, wanted = points[..., inside, inside], (grid(side) - shift)[..., inside, inside]
    # In parts of a cell.
    assert (found - wanted).abs().max() * side / 2 < 0.05


def test_fine_maps_agree_with_comparing_all_cells() -> None:
    states = torch.tensor(NEUTRAL).repeat(2, 1)
    states[1, STATE_FIELDS.index("yaw")], states[1, STATE_FIELDS.index("pitch")] = 0.25, -0.1
    shown = torch.cat([(drawn := render(draw_identity(3), states, 128, device="cpu")).coordinates, drawn.layers], 1)
    known = truth(shown[1:, :, 1::2, 1::2], shown[:1, :, 1::2, 1::2])
    places = true_places(known, [64])[64]
    weights = true_weights(known, 64, torch.arange(64 * 64))
    assert (places.nearest == weights.argmax(-1))[visible(known)].float().mean() > 0.97


def test_a_background_that_a_head_uncovers_is_not_taken_from_the_head() -> None:
    """Content of two layers may have one place in the neutral picture; only layers tell them apart."""
    states = torch.tensor(NEUTRAL).repeat(2, 1)
    states[:, STATE_FIELDS.index("x")] = torch.tensor([-0.08, 0.08])
    drawn = render(draw_identity(1), states, 128, device="cpu")
    shown = torch.cat([drawn.coordinates, 4.0 * drawn.layers], 1)[..., 2::4, 2::4]
    known = truth(shown[1:], shown[:1])
    source, target = (shown[i, 2].flatten() / 4 for i in (0, 1))
    places = true_places(known, [32])[32]
    both = visible(known)[0]
    assert torch.equal(source[places.nearest[0]][both], target[both])
    flat = true_places(truth(shown[1:, :2], shown[:1, :2]), [32])[32]
    mixed = source[flat.nearest[0]] != target
    assert (target[mixed] == Layer.BACKGROUND).sum() > 10


def test_geometry_that_is_too_coarse_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 64 x 64 places, found 32"):
        true_places(truth(grid(32), grid(32)), [64])

"""What the losses are made of, against reference vectors and closed forms."""

from __future__ import annotations

import pytest
import torch

from imtalker.seeded import seeded_state_dict
from imtalker.training.discriminator import Discriminator, TwoScales, with_deviation
from imtalker.training.masks import convex_hull, eye_mask, grown, line, mouth_mask, polygon, shrunk
from imtalker.training.pyramid import SCALES, pyramid
from tests.imtalker.golden import Golden, load, state_spec
from tests.imtalker.pictures import seeded_picture


@pytest.fixture(scope="module")
def golden() -> Golden:
    return load("training")


def test_discriminators_are_the_published_ones(golden: Golden) -> None:
    network = TwoScales()
    assert {k: tuple(v.shape) for k, v in network.state_dict().items()} == state_spec("discriminator")
    assert list(network.state_dict()) == list(state_spec("discriminator"))
    network.load_state_dict(seeded_state_dict(network.state_dict(), golden.seed))
    pictures = torch.cat([seeded_picture("source", golden.seed), seeded_picture("driving0", golden.seed)])
    with torch.no_grad():
        for name, score in zip(("disc_scale1", "disc_scale2"), network(pictures), strict=True):
            golden.check(name, score)


def test_two_or_a_multiple_of_four_pictures_are_a_batch() -> None:
    network = Discriminator(8)
    for batch in (1, 2, 3, 4, 8):
        assert network(torch.rand(batch, 3, 8, 8)).shape == (batch, 1)
    with pytest.raises(ValueError, match="multiple of it, found 6"):
        network(torch.rand(6, 3, 8, 8))
    with pytest.raises(ValueError, match="power of two"):
        Discriminator(24)


def test_the_deviation_is_that_of_pictures_apart() -> None:
    x = torch.randn(8, 2, 3, 3)
    added = with_deviation(x)
    assert torch.equal(added[:, :2], x)
    # Groups are pictures 0, 2, 4, 6 and 1, 3, 5, 7.
    for first in range(2):
        expected = (x[first::2].var(0, correction=0) + 1e-8).sqrt().mean()
        torch.testing.assert_close(added[first::2, 2], expected.expand(4, 3, 3))
    assert with_deviation(x[:1])[:, 2].max() <= 1.01e-4, "one picture has no deviation"


def packed(mask: torch.Tensor) -> torch.Tensor:
    bits = mask.flatten().view(-1, 8).long()
    return (bits * 2 ** torch.arange(7, -1, -1)).sum(1).to(torch.uint8)


def test_masks_are_the_published_ones(golden: Golden) -> None:
    landmarks = golden["landmarks"]
    masks = {
        "eye_mask_0_2": eye_mask(landmarks, 512),
        "eye_mask_1_1": eye_mask(landmarks, 512, erosion=1, dilation=1),
        "mouth_mask_2": mouth_mask(landmarks, 512),
    }
    for name, mask in masks.items():
        assert torch.equal(packed(mask), golden[name]), name


def test_masks_outside_the_picture_are_cut_off() -> None:
    landmarks = torch.rand(68, 2) + 2
    assert not eye_mask(landmarks, 32).any() and not mouth_mask(landmarks, 32).any()
    with pytest.raises(ValueError, match=r"landmarks must be \[68, 2\]"):
        eye_mask(landmarks[:5], 32)


def test_a_polygon_has_its_boundary() -> None:
    square = polygon(torch.tensor([[2, 1], [5, 1], [5, 4], [2, 4]]), 8)
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[1:5, 2:6] = True
    assert torch.equal(square, expected)
    point = polygon(torch.tensor([[3, 3]] * 3), 8)
    assert point.sum() == 1 and point[3, 3]


def test_lines_take_a_step_along_the_longer_axis() -> None:
    x, y = line([0, 0], [6, 3])
    assert x.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert (y - torch.arange(7) / 2).abs().max() <= 0.5
    x, y = line([2, 9], [2, 5])
    assert x.tolist() == [2] * 5 and y.tolist() == [9, 8, 7, 6, 5]
    x, y = line([2, 0], [0, 1])
    assert (x.tolist(), y.tolist()) == ([0, 1, 2], [1, 1, 0])


def test_growing_and_shrinking_a_square() -> None:
    mask = torch.zeros(40, 40, dtype=torch.bool)
    mask[15:25, 15:25] = True
    assert grown(mask, 2).sum() == 22 * 22
    assert shrunk(mask, 1).sum() == 4 * 4
    assert torch.equal(shrunk(mask, 0), mask)
    assert shrunk(torch.ones(9, 9, dtype=torch.bool), 1).all(), "the border of the picture is no outside"


def test_the_hull_of_a_square_with_points_inside() -> None:
    points = torch.tensor([[0, 0], [4, 0], [2, 2], [4, 4], [1, 3], [0, 4], [2, 0]])
    assert sorted(map(tuple, convex_hull(points).tolist())) == [(0, 0), (0, 4), (4, 0), (4, 4)]
    assert convex_hull(torch.tensor([[1, 1], [1, 1]])).tolist() == [[1, 1]]


def test_the_pyramid_is_the_published_one(golden: Golden) -> None:
    source = seeded_picture("source", golden.seed)
    for scale, level in zip(SCALES, pyramid(source), strict=True):
        golden.check(f"pyramid_{scale}", level, atol=1e-6)


def test_a_flat_picture_stays_flat_inside() -> None:
    for level in pyramid(torch.full((1, 3, 128, 128), 0.25), (0.5, 0.25)):
        size = level.shape[-1]
        middle = level[:, :, size // 4 : -size // 4, size // 4 : -size // 4]
        torch.testing.assert_close(middle, torch.full_like(middle, 0.25))

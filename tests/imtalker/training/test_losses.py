"""Training objectives in closed form."""

from __future__ import annotations

import math
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import nn

from imtalker.generator.generator import MotionGenerator
from imtalker.seeded import seeded_state_dict
from imtalker.training.flow_matching import Dropout, Losses, MotionBatch, losses_at, training_losses
from imtalker.training.losses import (
    Distance,
    adversarial_loss,
    discriminator_loss,
    flow_matching_loss,
    identity_distance_loss,
    seam_loss,
    velocity_loss,
)
from imtalker.training.perceptual import VGG19, PerceptualLoss, Structure
from tests.imtalker.test_sampler import CONFIG


def test_adversaries_that_know_nothing_pay_log_two_each() -> None:
    unsure = [torch.zeros(4, 1), torch.zeros(4, 1)]
    assert discriminator_loss(unsure, unsure).item() == pytest.approx(4 * math.log(2))
    assert adversarial_loss(unsure).item() == pytest.approx(2 * math.log(2))
    sure = [torch.full((4, 1), 50.0)]
    assert discriminator_loss(sure, [-s for s in sure]).item() == pytest.approx(0, abs=1e-6)
    assert adversarial_loss([-s for s in sure]).item() == pytest.approx(50)


def test_identity_distance_in_numbers() -> None:
    code = torch.zeros(2, 2)
    own, other = torch.tensor([[3.0, 4.0], [0.0, 1.0]]), torch.tensor([[0.0, 1.0], [0.0, -1.0]])
    assert identity_distance_loss(code, own, other).item() == pytest.approx((4 + 0) / 2)


class Twice(nn.Module):
    def forward(self, pictures: torch.Tensor) -> list[torch.Tensor]:
        return [2 * pictures]


def test_perceptual_loss_of_flat_pictures() -> None:
    """A difference of 0.1 everywhere, doubled by the network: 0.2 at each of four scales, near the border less."""
    predicted, real = torch.full((2, 3, 64, 64), 0.6), torch.full((2, 3, 64, 64), 0.5)
    mask = torch.zeros(2, 1, 64, 64)
    mask[:, :, 24:40, 24:40] = 1
    whole, masked = PerceptualLoss(Twice())(predicted, real, mask)
    assert 0.5 < whole.item() < 4 * 0.2
    # Three channels, all of them counted; at an eighth the filter reaches from the middle beyond the border.
    assert 3 * 3 * 0.2 < masked.item() <= 4 * 3 * 0.2 + 1e-5
    assert PerceptualLoss(Twice())(predicted, real, torch.zeros_like(mask))[1] == 0
    assert PerceptualLoss(Twice())(real, real, mask) == (0, 0)


def test_gradients_go_to_the_prediction_alone() -> None:
    predicted, real = (torch.rand(1, 3, 32, 32, requires_grad=True) for _ in range(2))
    whole, masked = PerceptualLoss(Structure())(predicted, real, torch.ones(1, 1, 32, 32))
    (whole + masked).backward()
    assert predicted.grad is not None and predicted.grad.abs().sum() > 0
    assert real.grad is None


def test_structure_sees_edges_that_means_hide() -> None:
    flat, stripes = torch.full((1, 3, 32, 32), 0.5), torch.full((1, 3, 32, 32), 0.5)
    stripes[..., ::2] += 0.1
    stripes[..., 1::2] -= 0.1
    colours, gradients, contrast = (
        (a - b).abs().mean() for a, b in zip(*map(Structure(), (flat, stripes)), strict=True)
    )
    assert colours.item() == pytest.approx(0.1)
    assert gradients > 0.09
    assert contrast > 0.5


def test_vgg_has_torchvisions_layers(tmp_path: Path) -> None:
    network = VGG19()
    maps = network(torch.rand(1, 3, 32, 32))
    assert [tuple(m.shape[1:]) for m in maps] == [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 2, 2)]
    assert [key for key in network.state_dict() if key.endswith("weight")] == [
        f"features.{n}.weight" for n in (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28)
    ]
    assert not any(p.requires_grad for p in network.parameters())
    path = tmp_path / "vgg19.pth"
    state = network.state_dict() | {"classifier.0.weight": torch.zeros(2)}
    torch.save(state, path)
    loaded = VGG19.load(path)
    assert torch.equal(loaded.features[0].weight, network.features[0].weight)
    del state["features.28.bias"]
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"features\.28\.bias is missing"):
        VGG19.load(path)


@pytest.fixture(scope="module")
def generator() -> MotionGenerator:
    model = MotionGenerator(CONFIG)
    model.load_state_dict(seeded_state_dict(model.state_dict(), 7))
    return model


def batch(rows: int) -> MotionBatch:
    frames = CONFIG.num_prev_frames + CONFIG.window
    draw = torch.Generator().manual_seed(0)

    def sequence(width: int) -> torch.Tensor:
        return torch.randn(rows, frames, width, generator=draw)

    hidden = CONFIG.wav2vec2.hidden_size
    motion = sequence(CONFIG.dim_motion)
    return MotionBatch(motion, sequence(hidden), sequence(3), sequence(3), sequence(2), motion[:, 0])


def test_nothing_dropped_is_the_plain_loss(generator: MotionGenerator) -> None:
    given = batch(3)
    draw = torch.Generator().manual_seed(5)
    t = torch.rand(3, generator=draw)
    noise = torch.randn(3, CONFIG.window, CONFIG.dim_motion, generator=draw)
    conditions = generator.project(given.audio, pose=given.pose, camera=given.camera, gaze=given.gaze)
    expected = losses_at(generator, given, conditions, t, noise)
    found = training_losses(generator, given, torch.Generator().manual_seed(5), Dropout(0, 0))
    assert found.total.item() == pytest.approx(expected.total.item(), rel=1e-6)
    assert found.total == found.flow_matching + found.velocity


def test_everything_dropped_leaves_the_reference(generator: MotionGenerator) -> None:
    """Other conditions and another context change nothing; another reference does."""
    one, two = batch(4), batch(4)
    past = CONFIG.num_prev_frames
    before = torch.cat([torch.ones_like(two.motion[:, :past]), two.motion[:, past:]], 1)
    other = MotionBatch(before, -two.audio, -two.pose, -two.camera, -two.gaze, two.reference)
    losses = [
        training_losses(generator, given, torch.Generator().manual_seed(1), Dropout(1, 1)).total.item()
        for given in (one, other, MotionBatch(one.motion, one.audio, one.pose, one.camera, one.gaze, -one.reference))
    ]
    assert losses[0] == losses[1] != losses[2]


def test_dropout_is_as_frequent_as_asked(generator: MotionGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(generator, "forward", lambda t, state, before, *_: seen.append(before) or state)
    training_losses(generator, batch(2000), torch.Generator().manual_seed(3))
    (before,) = seen
    dropped = (before == 0).all(dim=(1, 2)).float().mean().item()
    assert dropped == pytest.approx(0.5, abs=0.04)


def test_the_seam_counts_where_it_is_weighed_and_there_is_a_context(generator: MotionGenerator) -> None:
    def losses(weight: float, before: float) -> Losses:
        draw = torch.Generator().manual_seed(5)
        return training_losses(generator, batch(3), draw, Dropout(0, before), seam_weight=weight)

    plain, weighed = losses(0.0, 0.0), losses(2.0, 0.0)
    assert weighed.seam == plain.seam > 0
    assert weighed.total.item() == pytest.approx(plain.total.item() + 2 * plain.seam.item())
    assert losses(2.0, 1.0).seam == 0


def test_the_seam_is_the_error_of_the_first_frame() -> None:
    motion, noise, kept = torch.zeros(2, 5, 4), torch.zeros(2, 5, 4), torch.tensor([1.0, 0.0])[:, None, None]
    velocity = torch.zeros(2, 5, 4)
    velocity[:, 1:] = 9.0
    assert seam_loss(velocity, motion, noise, kept) == 0
    velocity[0, 0], velocity[1, 0] = 3.0, 100.0
    assert seam_loss(velocity, motion, noise, kept) == 1.5
    assert seam_loss(velocity, motion, noise, kept, "squared") == 4.5


def test_errors_may_be_squared(generator: MotionGenerator) -> None:
    motion, noise = torch.zeros(1, 3, 2), torch.ones(1, 3, 2)
    # Off by 1, 3 and 3 from the target of -1, and by 2 and 0 from step to step.
    velocity = torch.tensor([0.0, 2.0, 2.0])[None, :, None].expand(1, 3, 2)
    assert flow_matching_loss(velocity, motion, noise).item() == pytest.approx(7 / 3)
    assert flow_matching_loss(velocity, motion, noise, "squared").item() == pytest.approx(19 / 3)
    assert velocity_loss(velocity, motion, noise) == 1
    assert velocity_loss(velocity, motion, noise, "squared") == 2

    absolute, squared = (
        training_losses(generator, batch(3), torch.Generator().manual_seed(5), Dropout(0, 0), distance=distance)
        for distance in get_args(Distance)
    )
    for name in ("flow_matching", "velocity", "seam"):
        assert getattr(squared, name) != getattr(absolute, name)


def test_training_lowers_the_loss(generator: MotionGenerator) -> None:
    """A few steps on one batch, always with the same times and noise."""
    generator.train()
    optimiser = torch.optim.Adam(generator.fmt.parameters(), 2e-3)
    values = []
    for _ in range(25):
        losses = training_losses(generator, batch(4), torch.Generator().manual_seed(0), Dropout(0, 0))
        optimiser.zero_grad()
        losses.total.backward()
        optimiser.step()
        values.append(losses.total.item())
    assert values[-1] < 0.8 * values[0]

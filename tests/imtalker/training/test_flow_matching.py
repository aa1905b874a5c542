"""What is unknown of a clip is dropped, exactly."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from imtalker.generator.generator import MotionGenerator
from imtalker.seeded import seeded_state_dict
from imtalker.training.flow_matching import Dropout, MotionBatch, losses_at, project_known, training_losses
from imtalker.training.generator_run import validated
from tests.imtalker.test_sampler import CONFIG
from tests.imtalker.training.test_losses import batch

CONDITIONS = ("pose", "camera", "gaze")


@pytest.fixture
def generator() -> MotionGenerator:
    model = MotionGenerator(CONFIG)
    model.load_state_dict(seeded_state_dict(model.state_dict(), 7))
    return model


def without(given: MotionBatch, *names: str) -> MotionBatch:
    return replace(given, **{name: torch.full_like(getattr(given, name), torch.nan) for name in names})


@pytest.mark.parametrize("names", [("gaze",), ("pose", "camera"), CONDITIONS])
def test_an_unknown_condition_is_a_dropped_one(generator: MotionGenerator, names: tuple[str, ...]) -> None:
    given = batch(3)
    known = {name: getattr(given, name) for name in CONDITIONS if name not in names}
    draw = torch.Generator().manual_seed(5)
    t = torch.rand(3, generator=draw)
    noise = torch.randn(3, CONFIG.window, CONFIG.dim_motion, generator=draw)
    dropped = losses_at(generator, given, generator.project(given.audio, **known), t, noise)
    found = training_losses(generator, without(given, *names), torch.Generator().manual_seed(5), Dropout(0, 0))
    whole = training_losses(generator, given, torch.Generator().manual_seed(5), Dropout(0, 0))
    assert found.flow_matching == dropped.flow_matching and found.velocity == dropped.velocity
    assert abs(found.total - whole.total) > 1e-6


def test_frames_are_dropped_one_by_one(generator: MotionGenerator) -> None:
    """A row counts as unknown as soon as one of its numbers is; all other rows are as they were."""
    given = batch(2)
    gaze = given.gaze.clone()
    gaze[0, 3, 1] = torch.nan
    gaze[1, 5:] = torch.nan
    whole, found = (project_known(generator, replace(given, gaze=rows)) for rows in (given.gaze, gaze))
    known = torch.ones(2, gaze.shape[1], 1)
    known[0, 3], known[1, 5:] = 0, 0
    assert torch.equal(found.gaze, whole.gaze * known)
    assert all(torch.equal(getattr(found, name), getattr(whole, name)) for name in ("audio", "pose", "camera"))


def test_speech_alone_may_be_what_is_known(generator: MotionGenerator) -> None:
    def losses(given: MotionBatch, speech_only: float) -> torch.Tensor:
        dropout = Dropout(0, 0, speech_only)
        return training_losses(generator, given, torch.Generator().manual_seed(5), dropout).total

    given = batch(3)
    assert losses(given, 1.0) == losses(without(given, *CONDITIONS), 0.0)
    assert losses(given, 1.0) != losses(given, 0.0)


def test_nothing_is_learnt_from_what_is_unknown(generator: MotionGenerator) -> None:
    losses = training_losses(generator, without(batch(3), "gaze"), torch.Generator().manual_seed(1), Dropout(0, 0))
    losses.total.backward()
    gradients = {name: x.grad for name, x in generator.named_parameters() if x.grad is not None}
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    sizes = {name: generator.get_parameter(f"{name}_projection.0.weight").grad.abs().max() for name in ("gaze", "pose")}
    assert sizes["gaze"] == 0 and sizes["pose"] > 0


def test_validation_copes(generator: MotionGenerator) -> None:
    found = validated(generator, without(batch(3), *CONDITIONS), 7).losses
    assert all(torch.tensor(value).isfinite() for value in found.values())
    assert found != validated(generator, batch(3), 7).losses

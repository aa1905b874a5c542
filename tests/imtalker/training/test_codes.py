"""The motion encoder's first lesson."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
import torch

from imtalker.renderer.renderer import Renderer
from imtalker.training.avatar_pictures import AvatarPool
from imtalker.training.codes import CodeTrainer
from imtalker.training.helpers import StateReadout
from imtalker.training.norms import add_norms
from imtalker.training.pictures import PictureBatch
from tests.imtalker.test_renderer import SMALL


@pytest.fixture(scope="module")
def batch() -> PictureBatch:
    pool = AvatarPool.draw(seed=4, groups=2, states=4, size=SMALL.resolution, world="narrow")
    return pool.batch(4, 2, torch.Generator().manual_seed(0))


def trainer(learning_rate: float = 1e-3) -> CodeTrainer:
    torch.manual_seed(0)
    renderer = Renderer(SMALL)
    add_norms(renderer)
    readout = StateReadout(SMALL.dim_motion)
    return CodeTrainer(renderer, readout, steps=100, learning_rate=learning_rate, equalised_rate=10.0)


def test_codes_come_to_tell_states_and_nothing_else_moves(batch: PictureBatch) -> None:
    learner = trainer(2e-2)
    before = {name: p.clone() for name, p in learner.renderer.named_parameters()}
    errors = [learner.step([batch])["readout"] for _ in range(40)]
    assert errors[-1] < 0.75 * errors[0]
    for name, p in learner.renderer.named_parameters():
        assert torch.equal(p, before[name]) != name.startswith("latent_token_encoder."), name


def test_it_goes_on_exactly(batch: PictureBatch) -> None:
    whole, first = trainer(), trainer()
    for _ in range(3):
        whole.step([batch])
    first.step([batch])
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = trainer()
    second.load_state_dict(torch.load(file, weights_only=True))
    second.step([batch])
    second.step([batch])
    for name, value in whole.renderer.state_dict().items():
        assert torch.equal(value, second.renderer.state_dict()[name]), name


def test_pictures_without_a_known_state_are_refused(batch: PictureBatch) -> None:
    with pytest.raises(ValueError, match="states are known"):
        trainer().step([replace(batch, truth=None)])

"""Trainers: one update is what it says, and a run that was stopped goes on as if it had not been."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
import torch

from imtalker.generator.generator import MotionGenerator
from imtalker.renderer.renderer import Renderer
from imtalker.seeded import seeded_state_dict
from imtalker.training import renderer as training
from imtalker.training.discriminator import TwoScales
from imtalker.training.flow_matching import training_losses
from imtalker.training.generator import GeneratorTrainer
from imtalker.training.norms import add_norms
from imtalker.training.perceptual import PerceptualLoss, Structure
from imtalker.training.pictures import PictureBatch
from imtalker.training.renderer import RendererTrainer, RendererWeights, predict
from tests.imtalker.test_renderer import SMALL
from tests.imtalker.test_sampler import CONFIG
from tests.imtalker.training.test_losses import batch as motion_batch

SIZE = SMALL.resolution


def pictures(seed: int, rows: int = 2) -> PictureBatch:
    draw = torch.Generator().manual_seed(seed)
    one, two, three = (torch.rand(rows, 3, SIZE, SIZE, generator=draw) for _ in range(3))
    face = (torch.rand(rows, 1, SIZE, SIZE, generator=draw) > 0.8).float()
    return PictureBatch(one, two, three, face)


def renderer_trainer(**options: Any) -> RendererTrainer:
    torch.manual_seed(0)
    renderer, discriminator = Renderer(SMALL), TwoScales(SIZE, widest=16)
    renderer.load_state_dict(seeded_state_dict(renderer.state_dict(), 1))
    return RendererTrainer(renderer, discriminator, PerceptualLoss(Structure()), **options)


def generator_trainer(**options: Any) -> GeneratorTrainer:
    generator = MotionGenerator(CONFIG)
    generator.load_state_dict(seeded_state_dict(generator.state_dict(), 7))
    return GeneratorTrainer(generator, total_steps=100, **options)


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    kept: dict[str, Any] = torch.load(file, weights_only=True)
    return kept


def same(one: Any, two: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return bool(one == two)


@pytest.mark.parametrize("kind", ["adam", "muon"])
def test_renderer_training_goes_on_exactly(kind: str) -> None:
    whole = renderer_trainer(kind=kind)
    for seed in range(3):
        whole.step([pictures(seed)])
    first = renderer_trainer(kind=kind)
    first.step([pictures(0)])
    second = renderer_trainer(kind=kind, learning_rate=1.0)
    second.load_state_dict(through_a_file(first.state_dict()))
    terms = [second.step([pictures(seed)]) for seed in (1, 2)]
    assert same(whole.state_dict(), second.state_dict())
    assert whole.steps == 3
    assert all(value == value for term in terms for value in term.values())


def test_the_terms_are_weighted_as_published() -> None:
    trainer = renderer_trainer()
    terms = trainer.step([pictures(0)])
    weights = {"pixels": 1, "perceptual": 10, "face": 100, "identity": 1, "adversarial": 1}
    assert terms.keys() == {*weights, "discriminator", "total"}
    assert terms["total"] == pytest.approx(sum(terms[name] * weight for name, weight in weights.items()), rel=1e-5)


def test_squares_count_where_they_are_asked_for() -> None:
    flat = PictureBatch(*(torch.full((2, 3, SIZE, SIZE), level) for level in (0.3, 0.6, 0.9)))
    weights = RendererWeights(pixels=1, squares=4, perceptual=0, face=0, identity=0, adversarial=0)
    trainer = renderer_trainer(weights=weights)
    with torch.no_grad():
        prediction = predict(trainer.renderer.eval(), flat, contrast=False)
        found = trainer.losses(flat, prediction)
    expected = torch.nn.functional.mse_loss(prediction.frames, flat.target)
    assert found["squares"] == pytest.approx(expected.item(), rel=1e-5)
    assert found["total"] == pytest.approx((found["pixels"] + 4 * expected).item(), rel=1e-5)


def test_the_discriminator_learns_from_its_own_loss_alone() -> None:
    """Another renderer's weighting changes the renderer's update, not the discriminator's."""
    one, two = renderer_trainer(), renderer_trainer(weights=RendererWeights(pixels=50, identity=0))
    for trainer in (one, two):
        trainer.step([pictures(0)])
    assert same(one.discriminator.state_dict(), two.discriminator.state_dict())
    assert not same(one.renderer.state_dict(), two.renderer.state_dict())


def test_without_an_adversary_there_is_none() -> None:
    trainer = renderer_trainer(weights=RendererWeights(adversarial=0))
    before = {key: value.clone() for key, value in trainer.discriminator.state_dict().items()}
    terms = trainer.step([replace(pictures(0), face=None)])
    assert "discriminator" not in terms and "adversarial" not in terms
    assert terms["face"] == 0
    assert same(before, trainer.discriminator.state_dict())


def test_a_renderer_learns_one_pair_of_pictures() -> None:
    trainer = renderer_trainer(weights=RendererWeights(adversarial=0), learning_rate=2e-3)
    flat = PictureBatch(*(torch.full((2, 3, SIZE, SIZE), level) for level in (0.3, 0.6, 0.9)))
    values = [trainer.step([flat])["pixels"] for _ in range(12)]
    assert values[-1] < 0.6 * values[0]


def test_fixed_codes_stay_as_they_are() -> None:
    renderer = Renderer(SMALL)
    add_norms(renderer)
    trainer = RendererTrainer(renderer, TwoScales(SIZE, widest=16), PerceptualLoss(Structure()), codes_fixed=True)
    before = through_a_file(renderer.state_dict())
    codes = renderer.eval().encode_motion(pictures(1).target)
    trainer.step([pictures(0)])
    assert torch.equal(renderer.eval().encode_motion(pictures(1).target), codes)
    moved = {name.partition(".")[0] for name, value in renderer.state_dict().items() if not same(value, before[name])}
    assert moved == {"dense_feature_encoder", "latent_token_decoder", "frame_decoder", "adapt", "imt"}


def test_norms_that_keep_their_statistics_see_no_neighbours() -> None:
    """What a step sees is what the finished renderer gives."""
    renderer = Renderer(SMALL)
    add_norms(renderer)
    trainer = RendererTrainer(renderer, TwoScales(SIZE, widest=16), PerceptualLoss(Structure()))
    trainer.step([pictures(0)])
    for learns in (True, False):
        before = {name: value.clone() for name, value in renderer.named_buffers() if "running" in name}
        with torch.no_grad():
            finished = training.predict(renderer.eval(), pictures(1)).frames
        trainer.norms_learn = learns
        found = trainer.step([pictures(1)])["pixels"]
        assert before
        assert same(before, {name: renderer.state_dict()[name] for name in before}) is not learns
        assert (found == pytest.approx((finished - pictures(1).target).abs().mean().item(), rel=1e-4)) is not learns


def test_autocast_trains_in_half_precision() -> None:
    trainer = renderer_trainer(precision=torch.bfloat16)
    terms = trainer.step([pictures(0)])
    exact = renderer_trainer().step([pictures(0)])
    assert terms["pixels"] == pytest.approx(exact["pixels"], rel=0.05)
    assert terms["pixels"] != exact["pixels"]
    assert all(p.dtype == torch.float32 for p in trainer.renderer.parameters())


def test_generator_training_goes_on_exactly() -> None:
    """Chance included: times, noise and dropout are those of the run that was not stopped."""
    whole, first = generator_trainer(seed=3), generator_trainer(seed=3)
    for _ in range(4):
        whole.step([motion_batch(3)])
    first.step([motion_batch(3)])
    second = generator_trainer(seed=99)
    second.load_state_dict(through_a_file(first.state_dict()))
    for _ in range(3):
        second.step([motion_batch(3)])
    assert same(whole.state_dict(), second.state_dict())


def test_accumulated_gradients_are_those_of_the_mean() -> None:
    trainer, by_hand = generator_trainer(seed=4), generator_trainer().generator
    terms = trainer.step([motion_batch(2), motion_batch(3)])
    draw = torch.Generator().manual_seed(4)
    losses = [training_losses(by_hand, batch, draw).total for batch in (motion_batch(2), motion_batch(3))]
    torch.stack(losses).mean().backward()
    assert terms["total"] == pytest.approx(sum(loss.item() for loss in losses) / 2, rel=1e-6)
    for found, expected in zip(trainer.generator.fmt.parameters(), by_hand.fmt.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, atol=1e-6, rtol=1e-4)


def test_the_average_follows_slowly_and_the_encoder_stays() -> None:
    trainer = generator_trainer(learning_rate=1e-2, decay=0.9)
    start = {name: p.clone() for name, p in trainer.generator.named_parameters()}
    for _ in range(3):
        trainer.step([motion_batch(2)])
    average = dict(trainer.average.module.named_parameters())
    for name, p in trainer.generator.named_parameters():
        if name.startswith("audio_encoder."):
            assert torch.equal(p, start[name])
        else:
            assert (average[name] - start[name]).norm() <= (p - start[name]).norm() + 1e-6


@pytest.mark.parametrize(("adversarial", "order"), [(0.0, "pl pl"), (1.0, "pp ll")])
def test_one_batch_is_done_before_the_next_is_begun(
    monkeypatch: pytest.MonkeyPatch, adversarial: float, order: str
) -> None:
    """Unless an adversary has to learn from all of them first."""
    trainer = renderer_trainer(weights=RendererWeights(adversarial=adversarial))
    seen: list[str] = []

    def noted(name: str, function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            seen.append(name)
            return function(*arguments, **options)

        return call

    monkeypatch.setattr(training, "predict", noted("p", training.predict))
    monkeypatch.setattr(trainer, "losses", noted("l", trainer.losses))
    trainer.step([pictures(0), pictures(1)])
    assert seen == list(order.replace(" ", ""))

"""The measures: pictures' likeness in closed form, a reader that reads true avatars, scores of known renderers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from imtalker.avatars import STATE_FIELDS
from imtalker.renderer.renderer import Renderer
from imtalker.training.avatar_pictures import AvatarPool
from imtalker.training.renderer_evaluation import JUDGED, correlations, evaluate_renderer
from imtalker.training.similarity import psnr, ssim
from imtalker.training.state_reader import StateReader, fit_reader
from tests.imtalker.test_renderer import SMALL

CONFIG = replace(SMALL, resolution=64)


@pytest.fixture(scope="module")
def pool() -> AvatarPool:
    return AvatarPool.draw(seed=3, groups=3, states=6, size=64, world="narrow")


def test_likeness_in_closed_form() -> None:
    truth = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.2
    assert psnr(truth + 0.1, truth).tolist() == pytest.approx([20, 20], abs=1e-3)
    torch.testing.assert_close(ssim(truth, truth), torch.ones(2))
    flat, lighter = torch.full((1, 3, 32, 32), 0.4), torch.full((1, 3, 32, 32), 0.6)
    # Without variance only the means count: (2 * 0.4 * 0.6 + C1) / (0.4² + 0.6² + C1).
    assert ssim(flat, lighter).item() == pytest.approx((0.48 + 1e-4) / (0.52 + 1e-4), rel=1e-4)
    # An inverted picture has the opposite covariance.
    assert ssim(0.9 - truth, truth).max() < 0


def test_a_reader_learns_to_read(pool: AvatarPool) -> None:
    losses: list[float] = []
    reader = fit_reader(pool, 60, report=lambda step, loss: losses.append(loss))
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    assert reader(torch.rand(2, 3, 64, 64)).shape == (2, len(STATE_FIELDS))
    again = fit_reader(pool, 2)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), fit_reader(pool, 2).parameters(), strict=True))


def test_correlations_tell_right_from_wrong() -> None:
    true = torch.randn(50, len(STATE_FIELDS), generator=torch.Generator().manual_seed(1))
    assert correlations(2 * true + 3, true) == pytest.approx(dict.fromkeys(JUDGED, 1.0), abs=1e-5)
    assert correlations(-true, true) == pytest.approx(dict.fromkeys(JUDGED, -1.0), abs=1e-5)
    assert max(abs(value) for value in correlations(true.roll(1, 0), true).values()) < 0.5


def test_a_renderer_that_moves_nothing_scores_what_copies_score(pool: AvatarPool) -> None:
    class Still(Renderer):
        """The reference, whatever drives."""

        def prepare(self, source: Tensor, motion: Tensor | None = None) -> Tensor:  # type: ignore[override]
            return source

        def render(self, prepared: Tensor, motion: Tensor) -> Tensor:  # type: ignore[override]
            return prepared.expand(len(motion), -1, -1, -1)

    torch.manual_seed(0)
    scores = evaluate_renderer(Still(CONFIG).eval(), StateReader(64).eval(), identities=3, states=3, world="narrow")
    assert scores.same_psnr_db == scores.other_psnr_db == scores.copied_psnr_db
    assert scores.same == scores.other
    assert 8 < scores.copied_psnr_db < 25
    assert scores.other_identified == 1
    with pytest.raises(ValueError, match="identities must lie in"):
        evaluate_renderer(Still(CONFIG), StateReader(64), identities=1)


def test_a_renderer_that_shows_the_driver_shows_the_wrong_head() -> None:
    class Copy(Renderer):
        """The driver, whoever the portrait shows."""

        def encode_motion(self, image: Tensor) -> Tensor:
            return image

        def prepare(self, source: Tensor, motion: Tensor | None = None) -> Tensor:  # type: ignore[override]
            return source

        def render(self, prepared: Tensor, motion: Tensor) -> Tensor:  # type: ignore[override]
            return motion

    torch.manual_seed(0)
    scores = evaluate_renderer(Copy(CONFIG).eval(), StateReader(64).eval(), identities=3, states=3, world="narrow")
    assert scores.same_psnr_db == float("inf")
    assert scores.other_identified == 0

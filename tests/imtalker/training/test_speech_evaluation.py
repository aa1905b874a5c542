"""The measures of speech: what perfect, late, still and swapped mouths score; and a whole evaluation."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from imtalker.avatars import STATE_FIELDS
from imtalker.avatars.speech.performance import PERFORMANCE_COLUMNS, Performance, enact
from imtalker.config import GeneratorConfig
from imtalker.generator.generator import MotionGenerator
from imtalker.renderer.renderer import Renderer
from imtalker.training.similarity import correlation
from imtalker.training.speech_evaluation import evaluate_speech, lagged, scores, speaking_frames
from imtalker.training.state_reader import StateReader
from tests.imtalker.avatars import recorded_speech
from tests.imtalker.test_renderer import SMALL
from tests.imtalker.training.test_audio import CONFIG as AUDIO

OPENING = STATE_FIELDS.index("mouth_open")


@pytest.fixture(scope="module")
def performances() -> list[Performance]:
    return [
        enact(recorded_speech.utterance(name).padded(1.0, 1.0), seed=number)
        for number, name in enumerate(recorded_speech.NAMES[:3])
    ]


def read(performance: Performance, late: int = 0, head_seed: int | None = None) -> Tensor:
    """The truth as states, the mouth so many frames late, the head another seed's."""
    columns = [PERFORMANCE_COLUMNS.index(name) for name in STATE_FIELDS]
    states = performance.state[:, columns].clone()
    states[:, OPENING] = states[:, OPENING].roll(late)
    if head_seed is not None:
        other = enact(performance.utterance, seed=head_seed).state[:, columns]
        for name in ("yaw", "pitch", "roll"):
            states[:, STATE_FIELDS.index(name)] = other[:, STATE_FIELDS.index(name)]
    return states


def test_perfect_lips_under_two_seeds(performances: list[Performance]) -> None:
    found = scores([[read(p), read(p, head_seed=99)] for p in performances], performances)
    assert found.lip_correlation == pytest.approx(1, abs=1e-5)
    assert found.lip_lag == 0
    assert found.seeds_lips == pytest.approx(1, abs=1e-5)
    assert found.seeds_heads < 0.6
    assert found.wrong_correlation < 0.6
    assert found.silent_motion < 0.05
    assert found.lid_motion == pytest.approx(1)
    yaw = STATE_FIELDS.index("yaw")
    true, other = (sum(read(p, head_seed=seed)[:, yaw].std().item() for p in performances) for seed in (None, 99))
    assert found.head_motion == pytest.approx((true + other) / 2 / true)


def test_late_lips_are_told(performances: list[Performance]) -> None:
    late = scores([[read(p, late=3)] * 2 for p in performances], performances)
    assert late.lip_lag == 3
    assert late.lip_correlation < 0.8
    one = scores([[read(p, late=1)] * 2 for p in performances], performances)
    assert one.lip_correlation > 0.99
    early = scores([[read(p, late=-4)] * 2 for p in performances], performances)
    assert early.lip_lag == -4


def test_a_still_face_follows_nothing(performances: list[Performance]) -> None:
    found = scores([[torch.zeros(len(p.state), len(STATE_FIELDS))] * 2 for p in performances], performances)
    assert found.lip_correlation == found.seeds_heads == found.head_motion == found.lid_motion == 0


def test_half_the_motion_is_half_the_motion(performances: list[Performance]) -> None:
    found = scores([[0.5 * read(p)] * 2 for p in performances], performances)
    assert found.head_motion == found.lid_motion == pytest.approx(0.5)


def test_a_mouth_that_moves_all_the_time_moves_in_silence(performances: list[Performance]) -> None:
    restless = torch.rand(1000, len(STATE_FIELDS), generator=torch.Generator().manual_seed(0))
    found = scores([[restless[: len(p.state)]] * 2 for p in performances], performances)
    assert 0.7 < found.silent_motion < 1.4
    assert abs(found.lip_correlation) < 0.4


def test_silence_is_where_nothing_is_said(performances: list[Performance]) -> None:
    speaking, silent = speaking_frames(performances[0])
    assert silent[:15].all()
    assert silent[-15:].all()
    assert not (speaking & silent).any()
    assert speaking.float().mean() > 0.4


def test_lags_in_closed_form() -> None:
    curve = torch.randn(40, generator=torch.Generator().manual_seed(0))
    assert lagged(curve.roll(2), curve, 2) == pytest.approx(1, abs=1e-5)
    assert lagged(curve.roll(-2), curve, -2) == pytest.approx(1, abs=1e-5)
    assert correlation(curve, -curve) == pytest.approx(-1, abs=1e-5)
    assert correlation(curve, torch.ones(40)) == 0


def test_untrained_networks_are_found_out(performances: list[Performance]) -> None:
    torch.manual_seed(0)
    renderer = Renderer(replace(SMALL, resolution=64)).eval()
    generator = MotionGenerator(
        GeneratorConfig(dim_motion=renderer.config.dim_motion, dim_h=32, fmt_depth=1, num_heads=2, wav2vec2=AUDIO)
    ).eval()
    told: list[tuple[int, int]] = []
    found = evaluate_speech(
        renderer,
        generator,
        StateReader(64).eval(),
        performances[:2],
        nfe=1,
        report=lambda done, total: told.append((done, total)),
    )
    assert found.lip_correlation < 0.5
    assert told == [(1, 2), (2, 2)]
    with pytest.raises(ValueError, match="two performances"):
        evaluate_speech(renderer, generator, StateReader(64).eval(), performances[:1])

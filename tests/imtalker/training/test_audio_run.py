"""A training of the audio encoder: its folder, its validation, and going on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from imtalker.checkpoints import load_audio_encoder
from imtalker.config import GeneratorConfig
from imtalker.generator.generator import MotionGenerator
from imtalker.training.audio_run import WEIGHTS, AudioRun, opening_correlation, train_audio
from imtalker.training.loop import LOG, Pace, Progress
from imtalker.training.speech_clips import SpeechClips
from tests.imtalker.training.test_audio import CONFIG, clips, trainer


def train(folder: Path, steps: int) -> None:
    def ignore(progress: Progress) -> None:
        pass

    train_audio(
        AudioRun(CONFIG, steps=4, batch=2, warmup=1),
        folder,
        "cpu",
        ignore,
        clips=clips(),
        held_out=clips()[:1],
        pace=Pace(report=1, checkpoint=2, validate=2),
        stop=Stop(steps),
    )


class Stop:
    """Asks to stop after so many steps."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    def __call__(self) -> bool:
        self._left -= 1
        return self._left <= 0


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def encoder(folder: Path) -> dict[str, torch.Tensor]:
    generator = MotionGenerator(GeneratorConfig(dim_h=32, fmt_depth=1, num_heads=2, wav2vec2=CONFIG))
    load_audio_encoder(generator, folder / WEIGHTS)
    return generator.audio_encoder.state_dict()


def test_a_run_in_stretches_is_a_run_in_one_piece(tmp_path: Path, one_thread: None) -> None:
    train(tmp_path / "whole", 100)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", 2)
    train(tmp_path / "parts", 100)
    whole, parts = encoder(tmp_path / "whole"), encoder(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    rows = [json.loads(line) for line in (tmp_path / "parts" / LOG).read_text().splitlines()]
    assert [row["step"] for row in rows if "mouth" in row] == [1, 2, 3, 4]
    validations = [row for row in rows if "validation/mouth_open_correlation" in row]
    assert [row["step"] for row in validations] == [2, 4]
    assert all(-1 <= row["validation/mouth_open_correlation"] <= 1 for row in validations)


def test_what_is_learnt_by_heart_correlates() -> None:
    learner = trainer(3e-3)
    before = opening_correlation(learner, clips(), "cpu")
    data = SpeechClips(clips(), shortest=40, longest=60)
    for step in range(80):
        learner.step([data.batch(2, torch.Generator().manual_seed(step))])
    after = opening_correlation(learner, clips(), "cpu")
    assert after > max(0.5, before + 0.2)
    with pytest.raises(ValueError, match="at least one clip"):
        opening_correlation(learner, [], "cpu")

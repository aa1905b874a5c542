"""Audio features in batches: the encoder's numbers, whoever shares the batch."""

from __future__ import annotations

import pytest
import torch

from imtalker.audio.waveform import normalise
from imtalker.engine.audio import AudioBatches, padded_length
from imtalker.generator.generator import MotionGenerator
from imtalker.seeded import seeded_state_dict
from tests.imtalker.test_sampler import CONFIG


@pytest.fixture(scope="module")
def generator() -> MotionGenerator:
    model = MotionGenerator(CONFIG)
    model.load_state_dict(seeded_state_dict(model.state_dict(), 9))
    return model.eval()


def speech(samples: int, seed: int) -> torch.Tensor:
    return normalise(torch.randn(samples, generator=torch.Generator().manual_seed(seed)))


# One sample, one frame, a length that needs no fill, longer ones, and a twin in length.
LENGTHS = [1, 640, 64 * 640, 30_000, 70_001, 41_000, 30_000]


@pytest.mark.parametrize("rows", [1, 3])
def test_features_are_the_encoders(generator: MotionGenerator, rows: int) -> None:
    waveforms = [speech(n, i) for i, n in enumerate(LENGTHS)]
    found = AudioBatches(generator, device="cpu", rows=rows).encode(waveforms)
    for waveform, features in zip(waveforms, found, strict=True):
        torch.testing.assert_close(features, generator.encode_audio(waveform[None])[0], atol=2e-5, rtol=0)


def test_neighbours_and_row_change_no_bit(generator: MotionGenerator) -> None:
    batches = AudioBatches(generator, device="cpu", rows=4)
    mine = speech(30_000, 1)
    alone = batches.encode([mine])[0]
    for before in range(5):
        others = [speech(25_000 + 3000 * n, 10 + n) for n in range(before)]
        assert torch.equal(batches.encode([*others, mine, speech(20_000, 99)])[before], alone)


def test_lengths_are_few_and_close() -> None:
    lengths = [padded_length(n) for n in range(1, 5001)]
    assert len(set(lengths)) < 50
    assert all(n <= padded <= max(n + 63, n * 9 / 8) for n, padded in enumerate(lengths, 1))
    assert lengths == sorted(lengths)


def test_what_cannot_be_encoded_is_refused(generator: MotionGenerator) -> None:
    with pytest.raises(ValueError, match="at least one row and one sample"):
        AudioBatches(generator, device="cpu", rows=2).encode([speech(640, 1), torch.zeros(0)])
    with pytest.raises(ValueError, match="rows"):
        AudioBatches(generator, device="cpu", rows=0)

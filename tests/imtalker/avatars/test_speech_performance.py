from __future__ import annotations

from collections import Counter

import pytest
import torch

from imtalker.avatars.speech.performance import PERFORMANCE_COLUMNS, enact
from imtalker.avatars.speech.utterance import SAMPLE_RATE
from tests.imtalker.avatars import recorded_speech

_MOUTH = PERFORMANCE_COLUMNS.index("mouth_open")


def test_the_columns_are_those_of_an_avatars_state() -> None:
    assert PERFORMANCE_COLUMNS == (
        "yaw", "pitch", "roll", "x", "y", "scale", "gaze_x", "gaze_y", "blink", "brows",
        "mouth_open", "mouth_width", "mouth_round", "jaw",
    )  # fmt: skip


@pytest.mark.parametrize("name", recorded_speech.NAMES)
def test_sound_and_state_have_the_same_length(name: str) -> None:
    spoken = recorded_speech.utterance(name).padded(0.2, 0.1)
    performance = enact(spoken, seed=1)
    samples = len(performance.waveform)
    assert abs(samples - spoken.seconds * SAMPLE_RATE) < 1
    assert performance.state.shape == ((samples * 25 + 15_999) // 16_000, 14)
    assert performance.waveform.dtype == performance.state.dtype == torch.float32
    assert performance.waveform.abs().max() <= 1
    assert performance.unknown == Counter()


def test_two_seeds_differ_in_the_head_only() -> None:
    spoken = recorded_speech.utterance("pfanne")
    first, second = enact(spoken, seed=1), enact(spoken, seed=2)
    assert torch.equal(first.waveform, second.waveform)
    assert torch.equal(first.state[:, _MOUTH:], second.state[:, _MOUTH:])
    assert (first.state - second.state)[:, :3].abs().max() > 0.03


def test_the_same_seed_gives_the_same_performance() -> None:
    first, second = (enact(recorded_speech.utterance("bon"), seed=3) for _ in range(2))
    assert torch.equal(first.state, second.state)
    assert torch.equal(first.waveform, second.waveform)


def test_padding_shifts_everything_and_adds_silence() -> None:
    spoken = recorded_speech.utterance("papa")
    padded = spoken.padded(0.4, 0.2)
    assert padded.seconds == pytest.approx(spoken.seconds + 0.6, abs=1e-4)
    assert [phone.symbol for phone in padded.phones if phone.symbol] == [p.symbol for p in spoken.phones if p.symbol]
    starts = [phone.start_s for phone in padded.phones]
    assert starts[1:] == pytest.approx([phone.end_s for phone in padded.phones][:-1])
    assert padded.phones[-1].end_s == pytest.approx(padded.seconds)
    assert padded.words[0].start_s == pytest.approx(spoken.words[0].start_s + 0.4, abs=1e-4)
    plain, later = enact(spoken, seed=1).state[:, _MOUTH:], enact(padded, seed=1).state[:, _MOUTH:]
    # From the second phoneme on nothing of the silence before is felt.
    assert torch.allclose(plain[5:-10], later[15 : 15 + len(plain) - 15], atol=2e-3)
    assert later[:5].abs().max() == 0

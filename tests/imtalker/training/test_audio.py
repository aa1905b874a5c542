"""Training of the audio encoder: what it is told about speech, and that it learns it."""

from __future__ import annotations

import io

import pytest
import torch

from imtalker.audio.encoder import FRAME_SAMPLES, AudioEncoder
from imtalker.avatars.speech.articulation import MOUTH_COLUMNS
from imtalker.avatars.speech.performance import PERFORMANCE_COLUMNS, enact
from imtalker.avatars.speech.utterance import PAUSE
from imtalker.avatars.speech.visemes import LETTERS, letter_of
from imtalker.config import AudioEncoderConfig
from imtalker.training.audio import AudioTrainer
from imtalker.training.speech_clips import SpeechClip, SpeechClips, speech_clip
from tests.imtalker.avatars import recorded_speech

CONFIG = AudioEncoderConfig(
    hidden_size=32,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=32,
    conv_dim=(16,) * 7,
    num_conv_pos_embeddings=8,
    num_conv_pos_embedding_groups=2,
)


def clips() -> list[SpeechClip]:
    return [speech_clip(enact(recorded_speech.utterance(name), seed=0)) for name in recorded_speech.NAMES[:2]]


def trainer(learning_rate: float = 1e-3) -> AudioTrainer:
    torch.manual_seed(0)
    return AudioTrainer(AudioEncoder(CONFIG), learning_rate=learning_rate)


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_clip_says_which_sound_is_spoken_in_each_frame() -> None:
    performance = enact(recorded_speech.utterance("papa"), seed=0)
    clip = speech_clip(performance)
    columns = [PERFORMANCE_COLUMNS.index(name) for name in MOUTH_COLUMNS]
    assert torch.equal(clip.mouth, performance.state[:, columns])
    for frame, sound in enumerate(clip.sound.tolist()):
        time = (frame + 0.5) / 25
        phone = next((p for p in performance.utterance.phones if p.start_s <= time < p.end_s), None)
        if phone is not None:
            assert (letter_of(phone.symbol) or PAUSE) == (LETTERS[sound] if sound < len(LETTERS) else PAUSE)
    assert len(clip.sound.unique()) > 5


def test_a_batch_holds_the_sound_of_its_mouths() -> None:
    parts = SpeechClips(clips()[:1], shortest=20, longest=30)
    batch = parts.batch(3, drawn(1), noise=0.0)
    frames = batch.mouth.shape[1]
    assert 20 <= frames <= 30
    assert batch.waveform.shape == (3, frames * FRAME_SAMPLES)
    assert batch.sound.shape == (3, frames)
    torch.testing.assert_close(batch.waveform.mean(1), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(batch.waveform.std(1), torch.ones(3), atol=1e-2, rtol=0)
    clip = clips()[0]
    for row in range(3):
        runs = clip.mouth.unfold(0, frames, 1).transpose(1, 2)
        first = int((runs - batch.mouth[row]).abs().sum((1, 2)).argmin())
        heard = clip.waveform[first * FRAME_SAMPLES : (first + frames) * FRAME_SAMPLES]
        assert torch.corrcoef(torch.stack([heard, batch.waveform[row]]))[0, 1] > 0.999


def test_parts_longer_than_a_clip_go_on_with_another() -> None:
    whole = sum(len(clip.waveform) // FRAME_SAMPLES for clip in clips())
    batch = SpeechClips(clips(), shortest=whole + 10, longest=whole + 10).batch(2, drawn(3))
    assert batch.mouth.shape[:2] == (2, whole + 10)


def test_no_clips_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one clip"):
        SpeechClips([])


def test_the_encoder_learns_a_batch_by_heart() -> None:
    learner = trainer(3e-3)
    batch = SpeechClips(clips(), shortest=25, longest=25).batch(2, drawn(2))
    first = learner.step([batch])
    for _ in range(60):
        last = learner.step([batch])
    assert last["sound"] < 0.6 * first["sound"]
    assert last["mouth"] < 0.8 * first["mouth"]
    read = learner.read_mouth(batch.waveform)
    assert read.shape == batch.mouth.shape
    # The mean error that the read-out of these very frames makes is part of the loss over all neighbours.
    assert (read - batch.mouth).abs().mean() < 1.3 * last["mouth"]


def test_training_goes_on_exactly() -> None:
    parts = SpeechClips(clips(), shortest=15, longest=20)
    whole = trainer()
    for step in range(3):
        whole.step([parts.batch(2, drawn(step))])
    first = trainer()
    first.step([parts.batch(2, drawn(0))])
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = trainer(learning_rate=1.0)
    second.load_state_dict(torch.load(file, weights_only=True))
    for step in (1, 2):
        second.step([parts.batch(2, drawn(step))])
    for name, value in whole.encoder.state_dict().items():
        assert torch.equal(value, second.encoder.state_dict()[name]), name


def test_an_encoder_that_is_not_trained_takes_no_gradient() -> None:
    encoder = AudioEncoder(CONFIG)
    assert not encoder(torch.randn(1, 10 * FRAME_SAMPLES), 10).requires_grad

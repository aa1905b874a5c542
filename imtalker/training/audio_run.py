"""A training of a small audio encoder, from its settings to its checkpoint and a folder that `load_generator` takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from imtalker.audio.encoder import FRAME_SAMPLES, AudioEncoder
from imtalker.audio.waveform import normalise
from imtalker.checkpoints import save_audio_encoder
from imtalker.config import AudioEncoderConfig
from imtalker.training.audio import AudioTrainer
from imtalker.training.loop import Pace, Report, Validation, Watch, train
from imtalker.training.schedule import scheduled
from imtalker.training.similarity import correlation
from imtalker.training.speech_clips import SpeechBatch, SpeechClip, SpeechClips

WEIGHTS = "audio_encoder"
"""The encoder in a run's folder, as the hub lays out a wav2vec2 model."""


@dataclass(frozen=True)
class AudioRun:
    """Settings. The rate follows a warm-up, then a cosine to ``floor``."""

    encoder: AudioEncoderConfig
    steps: int
    seed: int = 0
    batch: int = 16
    """Parts of clips in an update."""
    learning_rate: float = 1e-3
    floor: float = 1e-5
    warmup: int = 200
    sounds: float = 0.2
    """Weight of the cross-entropy of the sounds."""


def train_audio(
    run: AudioRun,
    folder: Path,
    device: torch.device | str,
    report: Report,
    *,
    clips: Sequence[SpeechClip],
    held_out: Sequence[SpeechClip],
    watch: Watch | None = None,
    pace: Pace | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> AudioTrainer:
    """Train, or go on training, in ``folder``, with clips for it and others for validation; see `loop.train`.

    Validation reports how the opening of the mouth, as a linear map reads it off the features, correlates with the
    true one: the mean over the held-out clips. Raises ValueError without clips.
    """
    torch.manual_seed(run.seed)
    trainer = AudioTrainer(AudioEncoder(run.encoder).to(device), learning_rate=run.learning_rate, sounds=run.sounds)
    data = SpeechClips(clips)

    def batches(step: int) -> list[SpeechBatch]:
        batch = data.batch(run.batch, torch.Generator().manual_seed(run.seed * 1_000_003 + step))
        return [SpeechBatch(batch.waveform.to(device), batch.mouth.to(device), batch.sound.to(device))]

    def before(step: int) -> None:
        trainer.set_learning_rate(scheduled(step, run.steps, run.learning_rate, run.floor, run.warmup))

    train(
        trainer,
        batches,
        folder,
        steps=run.steps,
        before=before,
        report=report,
        watch=watch,
        pace=pace,
        validate=lambda: Validation(
            trainer.steps, {"mouth_open_correlation": opening_correlation(trainer, held_out, device)}
        ),
        export=lambda: save_audio_encoder(trainer.encoder, folder / WEIGHTS),
        stop=stop,
        device=device,
    )
    return trainer


def opening_correlation(trainer: AudioTrainer, clips: Sequence[SpeechClip], device: torch.device | str) -> float:
    """Mean over clips of Pearson's correlation of the mouth's opening, read and true. Raises ValueError without one."""
    if not clips:
        raise ValueError("expected at least one clip to validate with, found none")
    found = [correlation(_opening(trainer, clip, device), clip.mouth[: _whole(clip), 0]) for clip in clips]
    return sum(found) / len(found)


def _opening(trainer: AudioTrainer, clip: SpeechClip, device: torch.device | str) -> Tensor:
    waveform = normalise(clip.waveform[: _whole(clip) * FRAME_SAMPLES])
    return trainer.read_mouth(waveform[None].to(device))[0, :, 0].cpu()


def _whole(clip: SpeechClip) -> int:
    """Frames whose samples are all there."""
    return len(clip.waveform) // FRAME_SAMPLES

"""Training of a small audio encoder: its settings, and how it is started."""

from __future__ import annotations

from typing import Self

from pydantic import Field, field_validator, model_validator
from rich.console import Console

from imtalker.avatars.speech.espeak import EspeakError
from imtalker.avatars.speech.texts import LANGUAGES, Split, lines
from imtalker.checkpoints import CheckpointError
from imtalker.config import AudioEncoderConfig
from imtalker.presets import find_preset
from imtalker.training.audio_run import AudioRun, train_audio
from imtalker.training.cpu import tune_cpu
from imtalker.training.loop import Pace, Watch
from imtalker.training.speech_clips import SpeechClip, speak_clips
from pipeline.errors import CannotRun
from pipeline.machines.device import pick_device
from pipeline.training.journal import Journal
from pipeline.training.progress import TrainingProgress
from pipeline.training.record import check_record
from pipeline.training.settings import BasicSettings, sized
from pipeline.training.start import say_where, to_each


class AudioSettings(BasicSettings):
    """A training of the audio encoder."""

    model: str = Field("imtalker-demo", description="preset whose sizes are taken")
    batch: int = Field(16, ge=1, description="parts of lines in an update")
    learning_rate: float = Field(1e-3, gt=0)
    floor: float = Field(1e-5, gt=0, description="learning rate at the end")
    warmup: int = Field(200, ge=0, description="steps up to the full learning rate")
    sounds: float = Field(0.2, ge=0, description="weight of the cross-entropy of the sounds")
    lines: int = Field(1500, ge=1, description="sentences that espeak-ng speaks to train with")
    validation_lines: int = Field(60, ge=1, description="sentences, of other voices, to validate with")
    languages: tuple[str, ...] = LANGUAGES

    @property
    def config(self) -> AudioEncoderConfig:
        return sized(find_preset(self.model).generator.wav2vec2, self.sizes)

    @field_validator("languages")
    @classmethod
    def _spoken(cls, languages: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in languages if name not in LANGUAGES] or not languages:
            raise ValueError(f"expected some of {', '.join(LANGUAGES)}, found {unknown or 'none'}")
        return languages

    @model_validator(mode="after")
    def _fits(self) -> Self:
        sized(find_preset(self.model).generator.wav2vec2, self.sizes)
        return self


def start_audio(settings: AudioSettings, console: Console) -> None:
    """Train, or go on with the training in ``settings.output``; as `pipeline.training.start.start`."""
    check_record("audio", settings)
    device = pick_device(settings.device)
    if device.type == "cpu":
        tune_cpu()
    run = AudioRun(
        encoder=settings.config,
        steps=settings.steps,
        seed=settings.seed,
        batch=settings.batch,
        learning_rate=settings.learning_rate,
        floor=settings.floor,
        warmup=settings.warmup,
        sounds=settings.sounds,
    )
    with TrainingProgress(console, "audio encoder", settings.steps, settings.progress_seconds) as progress:
        say_where(settings.output, progress)
        progress.say(f"speaking {settings.lines} lines")
        with Journal(settings.output) as journal:
            try:
                train_audio(
                    run,
                    settings.output,
                    device,
                    to_each(journal.reported, progress.reported),
                    clips=_spoken_lines(settings, Split.TRAIN, settings.lines),
                    held_out=_spoken_lines(settings, Split.HELD_OUT, settings.validation_lines),
                    watch=Watch(
                        stepped=to_each(journal.stepped, progress.stepped),
                        validated=to_each(journal.validated, progress.validated),
                    ),
                    pace=Pace(settings.report_every, settings.checkpoint_every, settings.validate_every),
                )
            except (EspeakError, CheckpointError) as exc:
                raise CannotRun(str(exc)) from exc


def _spoken_lines(settings: AudioSettings, split: Split, number: int) -> list[SpeechClip]:
    chosen = lines(number, seed=settings.seed, sentence_split=split, voice_split=split, languages=settings.languages)
    return speak_clips(chosen, settings.seed)

"""Clips of performances: what they hold, that they are kept, and that others are not taken for them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from imtalker.avatars import STATE_FIELDS
from imtalker.avatars.speech.performance import PERFORMANCE_COLUMNS, Performance, enact
from imtalker.checkpoints import save_audio_encoder
from imtalker.generator.generator import MotionGenerator
from imtalker.presets import PRESETS
from imtalker.training.motion_clips import clip_paths, read_clip
from imtalker.training.state_codes import StateCodes
from pipeline.errors import CannotRun
from pipeline.progress import RunProgress
from pipeline.training import performances
from pipeline.training.performances import PerformedClips
from tests.imtalker.avatars import recorded_speech

TINY = PRESETS["imtalker-tiny"].generator
STEM = "en-00001"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Performance]:
    """Performances of recorded utterances, in place of espeak-ng's, as they are made."""
    made: list[Performance] = []
    utterances: Iterator[str] = iter(recorded_speech.NAMES * 4)

    def perform(text: str, voice: object, *, seed: int, silence_s: tuple[float, float], **_: object) -> Performance:
        made.append(enact(recorded_speech.utterance(next(utterances)).padded(*silence_s), seed=seed))
        return made[-1]

    monkeypatch.setattr(performances, "perform", perform)
    return made


@pytest.fixture
def wanted(tmp_path: Path) -> PerformedClips:
    encoder(tmp_path / "encoder", 0)
    return PerformedClips(tmp_path / "clips", tmp_path / "encoder", TINY, clips=2, seed=0, languages=("en",))


def encoder(folder: Path, seed: int) -> None:
    torch.manual_seed(seed)
    save_audio_encoder(MotionGenerator(TINY).audio_encoder, folder)


def make(wanted: PerformedClips) -> None:
    with RunProgress(Console(file=io.StringIO()), 30.0) as progress:
        wanted.make(progress)


def test_a_clips_codes_tell_what_was_performed(wanted: PerformedClips, made: list[Performance]) -> None:
    make(wanted)
    assert len(made) == 2
    clip = read_clip(wanted.folder, STEM)
    columns = [PERFORMANCE_COLUMNS.index(name) for name in STATE_FIELDS]
    true = made[1].state[: len(clip), columns]
    torch.testing.assert_close(StateCodes(TINY.dim_motion).read(clip.motion), true, atol=1e-4, rtol=0)
    assert clip.audio.shape[0] == len(clip) > 25 and clip.audio.std() > 0


def test_what_is_there_is_kept_and_what_is_missing_is_made(wanted: PerformedClips, made: list[Performance]) -> None:
    make(wanted)
    kept = clip_paths(wanted.folder, "en-00000")["motion"]
    before = kept.stat().st_mtime_ns
    clip_paths(wanted.folder, STEM)["motion"].unlink()
    make(wanted)
    assert len(made) == 3 and kept.stat().st_mtime_ns == before
    assert clip_paths(wanted.folder, STEM)["motion"].exists()


def test_clips_of_other_settings_are_refused(wanted: PerformedClips, made: list[Performance]) -> None:
    make(wanted)
    with pytest.raises(CannotRun, match="holds clips with other settings:\n  seed: 0 there, 1 here"):
        make(replace(wanted, seed=1))
    encoder(wanted.audio_encoder, 1)
    with pytest.raises(CannotRun, match="audio_encoder: "):
        make(wanted)
    assert len(made) == 2

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from imtalker.avatars import STATE_FIELDS, draw_identity, render
from imtalker.avatars.speech.performance import Performance
from imtalker.training.picture_clips import find_clips
from pipeline.avatars.clips import write_clip
from pipeline.avatars.folder import AvatarFolder
from pipeline.avatars.states import STATES_SCHEMA
from pipeline.config import InputLimits
from pipeline.media.probe import probe
from tests.media_files import read_frames
from tests.pipeline.avatars.recorded import CLIPS, SIZE, performed

CLIP = CLIPS[0]


@pytest.fixture(scope="module")
def performance() -> Performance:
    return performed(CLIP)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, performance: Performance) -> AvatarFolder:
    folder = AvatarFolder(tmp_path_factory.mktemp("avatars"))
    folder.prepare(frames=True)
    samples = len(performance.waveform)
    assert write_clip(folder, CLIP, performance, frames=True) == -(-samples * 25 // 16_000)
    return folder


@pytest.fixture(scope="module")
def exact(performance: Performance) -> torch.Tensor:
    """The clip's pictures and landmarks, drawn at once: float32 [T, 3, H, W]."""
    return render(draw_identity(3), performance.state, SIZE, device="cpu").image


def test_the_video_shows_the_states(folder: AvatarFolder, exact: torch.Tensor) -> None:
    decoded = read_frames(folder.video(CLIP.name), exact=True)
    assert decoded.shape == (len(exact), SIZE, SIZE, 3)
    shown = torch.from_numpy(decoded).permute(0, 3, 1, 2) / 255
    errors = (shown - exact).square().mean(dim=(1, 2, 3))
    assert float(-10 * errors.max().log10()) > 25
    # Neither late nor early.
    for late, early in ((shown[1:], exact[:-1]), (shown[:-1], exact[1:])):
        assert float((late - early).square().mean()) > 1.5 * float(errors.mean())
    facts = probe(folder.video(CLIP.name), InputLimits())
    assert facts.video is not None
    assert facts.audio is not None
    assert (facts.video.codec, facts.video.fps, facts.audio.codec) == ("h264", 25.0, "aac")


def test_the_sound_is_the_speech(folder: AvatarFolder, performance: Performance) -> None:
    with wave.open(str(folder.audio(CLIP.name))) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16_000)
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32767
    assert samples.shape == performance.waveform.shape
    assert np.abs(samples - performance.waveform.numpy()).max() <= 0.51 / 32767


def test_the_states_are_the_performance(folder: AvatarFolder, performance: Performance) -> None:
    table = pq.read_table(folder.states(CLIP.name))
    assert table.schema.equals(STATES_SCHEMA)
    assert table["frame"].to_pylist() == list(range(len(performance.state)))
    assert table["time_s"].to_numpy() == pytest.approx((np.arange(len(performance.state)) + 0.5) / 25)
    columns = np.stack([table[name].to_numpy() for name in STATE_FIELDS], axis=1)
    assert np.array_equal(columns, performance.state.numpy())
    points = np.array(table["landmarks"].to_pylist()).reshape(-1, 68, 2)
    truth = render(draw_identity(3), performance.state, SIZE, device="cpu").landmarks
    assert np.abs(points - truth.numpy()).max() < 1e-3


def test_the_renderers_layout_can_be_read(folder: AvatarFolder, exact: torch.Tensor) -> None:
    (clip,) = find_clips(folder.root)
    assert clip.name == CLIP.name
    assert len(clip.frames) == len(exact)
    points = np.array(pq.read_table(folder.states(CLIP.name))["landmarks"].to_pylist()).reshape(-1, 68, 2)
    assert np.abs(clip.landmarks.numpy() * SIZE - 0.5 - points).max() < 1e-3
    for index in (0, 40, len(exact) - 1):
        with Image.open(clip.frames[index]) as image:
            pixels = np.array(image)
        assert np.abs(pixels / 255 - exact[index].permute(1, 2, 0).numpy()).max() < 1.5 / 255


def test_a_clip_is_finished_only_whole_and_by_its_own_recipe(folder: AvatarFolder) -> None:
    assert folder.has_clip(CLIP, frames=True)
    assert folder.has_clip(CLIP, frames=False)
    assert not folder.has_clip(CLIPS[1], frames=False)
    for place in (folder.video, folder.audio, folder.states, folder.landmarks, folder.frames):
        path: Path = place(CLIP.name)
        away = path.with_name("away")
        path.rename(away)
        assert not folder.has_clip(CLIP, frames=True), path
        away.rename(path)
    assert folder.has_clip(CLIP, frames=True)

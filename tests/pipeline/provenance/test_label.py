"""The visible label: where and when it is in the pictures, and how large."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.config import InputLimits, RunSettings, VideoSettings
from pipeline.media.encode import VideoWriter
from pipeline.provenance.label import VisibleLabel, drawn, text_height

FPS = 25


def noise(count: int, size: int, first: int = 0) -> np.ndarray:
    return np.random.default_rng(first).integers(0, 256, (count, size, size, 3), np.uint8)


@pytest.mark.parametrize("size", [64, 128, 256, 512, 720])
def test_the_text_is_at_least_a_twentieth_of_the_shorter_side(size: int) -> None:
    grey = np.full((1, size, 2 * size, 3), 128, np.uint8)
    shown = VisibleLabel(2 * size, size, FPS).on(grey, 0)[0]
    white = np.flatnonzero((shown > 200).all(-1).any(1))
    height = white[-1] - white[0] + 1
    assert 0.05 * size <= text_height(2 * size, size)
    assert abs(height - text_height(2 * size, size)) <= 1
    assert size < 256 or height >= 20, "Chinese characters need 20 pixels"


def test_the_text_is_of_four_characters_on_a_plate() -> None:
    shown = VisibleLabel(512, 512, FPS).on(np.full((1, 512, 512, 3), 255, np.uint8), 0)[0]
    rows, columns = np.nonzero((shown < 200).all(-1))
    plate = shown[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].mean(-1)
    # On white the text is white and the plate is not: columns without text part the characters.
    inked = (plate > 220).any(0)
    starts = np.flatnonzero(np.diff(inked.astype(int)) == 1)
    assert len(starts) == 4
    assert rows.max() < 511 and columns.max() < 511, "it has a margin"


def test_only_the_first_two_seconds_show_it() -> None:
    label, frames = VisibleLabel(128, 128, FPS), noise(60, 128)
    whole = label.on(frames, 0)
    differs = (whole != frames).any((1, 2, 3))
    assert differs[:50].all() and not differs[50:].any()
    assert (whole[:, :, :32] == frames[:, :, :32]).all() and (whole[:, :64] == frames[:, :64]).all(), "only its corner"
    in_parts = np.concatenate([label.on(frames[at : at + 7], at) for at in range(0, 60, 7)])
    assert (in_parts == whole).all()


def test_frames_are_left_as_they_are() -> None:
    label, frames = VisibleLabel(64, 64, FPS), noise(3, 64)
    kept = frames.copy()
    label.on(frames, 0)
    assert (frames == kept).all()
    assert label.on(frames, 50) is frames


def test_it_is_in_the_video_and_not_in_the_hash_of_its_frames(tmp_path: Path) -> None:
    frames = np.full((60, 128, 128, 3), 90, np.uint8)
    hashes = []
    for name, label in (("plain", None), ("labelled", VisibleLabel(128, 128, FPS))):
        writer = VideoWriter(
            tmp_path / f"{name}.mp4",
            width=128,
            height=128,
            settings=VideoSettings(segment_seconds=1.0),
            limits=InputLimits(),
            label=label,
        )
        with writer:
            for at in range(0, 60, 8):
                writer.write(frames[at : at + 8])
        hashes.append(writer.frames_sha256)
    assert hashes[0] == hashes[1]
    plain, labelled = (decoded(tmp_path / f"{name}.mp4") for name in ("plain", "labelled"))
    contrast = (labelled.astype(int) - plain).max((1, 2, 3))
    assert (contrast[:50] > 100).all(), "white text on grey"
    assert (contrast[50:] < 10).all()


def decoded(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_one_profile_draws() -> None:
    assert [drawn(profile) for profile in ("none", "eu", "cn")] == [None, None, "cn"]


def test_the_chinese_label_names_a_producer() -> None:
    with pytest.raises(ValueError, match="set producer"):
        RunSettings(label="cn")
    assert RunSettings(label="cn", producer="Studio").label == "cn"
    assert RunSettings().label == "eu"

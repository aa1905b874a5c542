"""A video under other tags plays as the one that would have been made with them."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.config import InputLimits, VideoSettings
from pipeline.media.encode import VideoWriter
from pipeline.media.retag import retag
from tests.runs import demo

OLD = {"comment": "AI-generated video", "imtalker_item": "one", "AIGC": "{}"}
TAGS = {"comment": "AI-generated video", "imtalker_item": "one", "imtalker_seed": "7"}


def write(path: Path, tags: dict[str, str], audio: str | None) -> Path:
    frames = np.random.default_rng(0).integers(0, 255, (60, 64, 64, 3), np.uint8)
    sound = Path(demo(audio)) if audio else None
    settings = VideoSettings(segment_seconds=0.8)
    with VideoWriter(
        path, width=64, height=64, settings=settings, limits=InputLimits(), audio=sound, tags=tags
    ) as writer:
        writer.write(frames)
    return path


@pytest.mark.parametrize("audio", ["english.wav", None])
@pytest.mark.parametrize("id", ["two", "a-much-longer-id-than-the-other-one"])
def test_the_copy_plays_as_the_video_that_would_have_been_made(tmp_path: Path, audio: str | None, id: str) -> None:
    source = write(tmp_path / "source.mp4", OLD, audio)
    wanted = write(tmp_path / "wanted.mp4", TAGS | {"imtalker_item": id}, audio)
    retag(source, tmp_path / "copy.mp4", TAGS | {"imtalker_item": id})
    assert content(tmp_path / "copy.mp4") == content(wanted)
    assert tags(tmp_path / "copy.mp4") == tags(wanted)
    assert tags(tmp_path / "copy.mp4")["imtalker_item"] == id
    assert (tmp_path / "copy.mp4").stat().st_size == wanted.stat().st_size


def content(path: Path) -> list[tuple[object, ...]]:
    """Everything that a player gets: packets with their times, and the lengths of the streams."""
    with av.open(str(path)) as container:
        streams: list[tuple[object, ...]] = [(s.type, s.duration, s.start_time, s.time_base) for s in container.streams]
        packets = [(p.stream.type, bytes(p), p.pts, p.dts, p.duration, p.is_keyframe) for p in container.demux()]
        return streams + packets


def tags(path: Path) -> dict[str, str]:
    with av.open(str(path)) as container:
        return dict(container.metadata)

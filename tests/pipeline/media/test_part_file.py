"""Parts of a video: encoded apart, stored, read back and joined."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import InputLimits, VideoSettings
from pipeline.errors import ItemError
from pipeline.media.encode import FrameEncoder, VideoWriter
from pipeline.media.frame_hash import DIGEST_BYTES, frame_digests, frames_sha256
from pipeline.media.h264 import H264
from pipeline.media.mp4 import Mp4File
from pipeline.media.part_file import PartReader, PartWriter
from tests.media_files import sine, smooth_picture, write_audio

SIZE = 64


def clip(count: int) -> np.ndarray:
    wide = smooth_picture(0, SIZE + 4 * count, SIZE)
    return np.stack([wide[:, 4 * i : 4 * i + SIZE] for i in range(count)])


def write_part(path: Path, form: H264, frames: np.ndarray, first: int) -> None:
    file = PartWriter(path)
    with FrameEncoder(file, form, name=path.name, first=first, pool=None) as encoder:
        encoder.write(frames)
    digests = np.frombuffer(bytes(encoder.frame_digests), np.uint8).reshape(-1, DIGEST_BYTES)
    file.describe({"sha256": digests}, {"frames": encoder.frames_written})


@pytest.mark.parametrize("preset", ["veryfast", "slow"])
@pytest.mark.parametrize("sound", [False, True])
def test_parts_joined_are_the_file_that_was_made_in_one_go(tmp_path: Path, preset: str, sound: bool) -> None:
    """To the byte: pictures, order of packets, times, sound and tags; and one hash of the frames."""
    settings = VideoSettings.model_validate({"segment_seconds": 0.4, "preset": preset})
    form, frames, tags = H264(settings, SIZE, SIZE, 25), clip(75), {"comment": "joined"}
    audio = write_audio(tmp_path / "a.wav", sine(22_050, 66_000)[None], 22_050, "pcm_s16le") if sound else None
    with VideoWriter(
        tmp_path / "whole.mp4",
        width=SIZE,
        height=SIZE,
        settings=settings,
        limits=InputLimits(),
        audio=audio,
        tags=tags,
    ) as whole:
        whole.write(frames)
    edges = [0, 30, 40, 75]
    file = Mp4File(tmp_path / "joined.mp4", form, limits=InputLimits(), audio=audio, tags=tags, reader=None)
    digests = b""
    for first, end in pairwise(edges):
        write_part(tmp_path / "part.zip", form, frames[first:end], first)
        with PartReader(tmp_path / "part.zip") as reader:
            assert reader.facts == {"frames": end - first}
            digests += reader.frames["sha256"].tobytes()
            for segment in reader.segments():
                file.add(segment)
    file.close()
    assert (tmp_path / "joined.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert frames_sha256(digests) == whole.frames_sha256 == frames_sha256(frame_digests(frames))


def test_the_hash_tells_every_pixel_and_the_order_of_frames() -> None:
    frames = clip(5)
    other = frames.copy()
    other[3, 10, 10, 1] ^= 1
    found = [frames_sha256(frame_digests(some)) for some in (frames, other, frames[::-1].copy(), frames[:4])]
    assert len(set(found)) == 4


def test_a_part_that_is_not_whole_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "part.zip"
    write_part(path, H264(VideoSettings(), SIZE, SIZE, 25), clip(5), 0)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ItemError, match="can't be read back") as caught:
        PartReader(path)
    assert caught.value.kind == "infrastructure"
    undescribed = PartWriter(path)
    undescribed.discard()
    with pytest.raises(ItemError, match="can't be read back"):
        PartReader(path)

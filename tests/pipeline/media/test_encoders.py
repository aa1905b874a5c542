"""Encoder threads: the file of one thread, a bound on what waits, errors that arrive, nothing left behind."""

from __future__ import annotations

import gc
import hashlib
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from pipeline.config import InputLimits, VideoSettings
from pipeline.errors import CannotRun, ItemError
from pipeline.media.encode import VideoWriter
from pipeline.media.encoders import EncoderPool
from pipeline.media.h264 import H264
from tests.media_files import read_frames, sine, smooth_picture, write_audio

WIDTH, HEIGHT = 64, 48
SEGMENTS = VideoSettings(segment_seconds=0.4)  # ten frames


def clip(count: int, seed: int = 0) -> np.ndarray:
    wide = smooth_picture(seed, WIDTH + 4 * count, HEIGHT)
    return np.stack([wide[:, 4 * i : 4 * i + WIDTH] for i in range(count)])


def open_writer(path: Path, pool: EncoderPool | None, audio: Path | None = None) -> VideoWriter:
    return VideoWriter(
        path, width=WIDTH, height=HEIGHT, settings=SEGMENTS, limits=InputLimits(), audio=audio, pool=pool
    )


def write(path: Path, frames: np.ndarray, pool: EncoderPool | None, batch: int = 4, audio: Path | None = None) -> str:
    with open_writer(path, pool, audio) as writer:
        for start in range(0, len(frames), batch):
            writer.write(frames[start : start + batch])
    return writer.frames_sha256


@pytest.fixture
def pool() -> Iterator[EncoderPool]:
    pool = EncoderPool(2, 12)
    yield pool
    pool.close()
    # Whatever happened, all room was given back.
    pool.take(pool.max_frames)


class Gate:
    """Holds every encoder at its first picture until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened = threading.Event()
        picture = H264.picture

        def held(form: H264, rgb: np.ndarray, index: int) -> Any:
            assert self.opened.wait(60)
            return picture(form, rgb, index)

        monkeypatch.setattr(H264, "picture", held)


@pytest.mark.parametrize("threads", [2, 4])
@pytest.mark.parametrize(("count", "batch"), [(37, 4), (40, 7), (9, 1), (23, 100)])
def test_any_number_of_threads_writes_the_same_bytes(tmp_path: Path, threads: int, count: int, batch: int) -> None:
    """Whole segments, a partial last one, batches across their edges, and sound."""
    sound = write_audio(tmp_path / "a.wav", sine(22_050, 30_000)[None], 22_050, "pcm_s16le")
    frames = clip(count)
    alone = write(tmp_path / "alone.mp4", frames, None, audio=sound)
    pool = EncoderPool(threads, 16)
    together = write(tmp_path / "together.mp4", frames, pool, batch, audio=sound)
    pool.close()
    assert (tmp_path / "together.mp4").read_bytes() == (tmp_path / "alone.mp4").read_bytes()
    digests = [hashlib.sha256(frame.tobytes()).digest() for frame in frames]
    assert together == alone == hashlib.sha256(b"".join(digests)).hexdigest()


def test_segments_are_encoded_by_several_threads_and_muxed_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second segment is through before the first one begins."""
    second_done = threading.Event()
    threads: dict[int, str] = {}
    picture = H264.picture

    def reordered(form: H264, rgb: np.ndarray, index: int) -> Any:
        threads[index] = threading.current_thread().name
        if index == 0:
            assert second_done.wait(60)
        if index == 19:
            second_done.set()
        return picture(form, rgb, index)

    frames = clip(20)
    write(tmp_path / "alone.mp4", frames, None)
    monkeypatch.setattr(H264, "picture", reordered)
    pool = EncoderPool(2, 20)
    write(tmp_path / "together.mp4", frames, pool)
    pool.close()
    assert threads[0] != threads[19]
    assert (tmp_path / "together.mp4").read_bytes() == (tmp_path / "alone.mp4").read_bytes()


def test_frames_in_memory_stay_within_the_room(
    tmp_path: Path, pool: EncoderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The encoders stand still until the renderer does: it stops at twelve frames, and never has more in memory."""
    alive, most = 0, 0
    # Frames come and go in several threads; reentrant, because any allocation may collect some.
    counting = threading.RLock()
    full = threading.Event()
    gate = Gate(monkeypatch)
    take = pool.take

    def watched(frames: int) -> None:
        if pool.max_frames - alive < frames:
            full.set()
        take(frames)

    def forget() -> None:
        nonlocal alive
        with counting:
            alive -= 4

    def render() -> None:
        nonlocal alive, most
        with open_writer(tmp_path / "a.mp4", pool) as writer:
            for start in range(0, 60, 4):
                batch = frames[start : start + 4].copy()
                with counting:
                    alive += 4
                    most = max(most, alive)
                weakref.finalize(batch, forget)
                writer.write(batch)
                del batch

    frames = clip(60)
    monkeypatch.setattr(pool, "take", watched)
    renderer = threading.Thread(target=render)
    renderer.start()
    assert full.wait(60)
    gate.opened.set()
    renderer.join(60)
    assert not renderer.is_alive()
    # The renderer holds a batch while it waits for room.
    assert 12 <= most <= 12 + 4
    gc.collect()
    assert alive == 0


def test_a_batch_larger_than_the_room_is_let_in_alone(tmp_path: Path, pool: EncoderPool) -> None:
    frames = clip(50)
    write(tmp_path / "alone.mp4", frames, None)
    write(tmp_path / "a.mp4", frames, pool, batch=25)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "alone.mp4").read_bytes()


def test_videos_share_a_pool_and_keep_their_bytes(tmp_path: Path, pool: EncoderPool) -> None:
    """Five writers at once on two threads and little room."""
    clips = [clip(35, seed) for seed in range(5)]
    writers = [
        threading.Thread(target=write, args=(tmp_path / f"{i}.mp4", frames, pool)) for i, frames in enumerate(clips)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    for i, frames in enumerate(clips):
        write(tmp_path / "alone.mp4", frames, None)
        assert (tmp_path / f"{i}.mp4").read_bytes() == (tmp_path / "alone.mp4").read_bytes()


@pytest.mark.parametrize("at", [0, 13, 36])
def test_an_error_of_an_encoder_thread_is_raised_and_leaves_nothing(
    tmp_path: Path, pool: EncoderPool, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    picture = H264.picture

    def failing(form: H264, rgb: np.ndarray, index: int) -> Any:
        if index == at:
            raise MemoryError("no room for a picture")
        return picture(form, rgb, index)

    before = threading.active_count()
    with monkeypatch.context() as patched:
        patched.setattr(H264, "picture", failing)
        with pytest.raises(MemoryError, match="no room for a picture"):
            write(tmp_path / "a.mp4", clip(37), pool)
    assert list(tmp_path.iterdir()) == []
    assert threading.active_count() <= before + 2, "only the pool's threads are left"
    # The pool goes on.
    write(tmp_path / "b.mp4", clip(12), pool)
    assert len(read_frames(tmp_path / "b.mp4")) == 12


def test_an_error_reaches_the_renderer_while_it_renders(
    tmp_path: Path, pool: EncoderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It doesn't go on to the end of a long clip."""

    def failing(form: H264, rgb: np.ndarray, index: int) -> Any:
        raise MemoryError("no room for a picture")

    monkeypatch.setattr(H264, "picture", failing)
    frames = clip(4)
    with pytest.raises(MemoryError), open_writer(tmp_path / "a.mp4", pool) as writer:
        while writer.frames_written < 10**6:
            writer.write(frames)
    assert writer.frames_written < 10**6


def test_a_renderer_that_fails_frees_the_pool(
    tmp_path: Path, pool: EncoderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    with pytest.raises(ItemError, match="NaN"), open_writer(tmp_path / "a.mp4", pool) as writer:
        writer.write(clip(11))
        gate.opened.set()
        raise ItemError("model", "NaN in the frames")
    assert list(tmp_path.iterdir()) == []
    write(tmp_path / "b.mp4", clip(12), pool)
    assert len(read_frames(tmp_path / "b.mp4")) == 12


def test_a_pool_without_threads_or_room_is_refused() -> None:
    for threads, frames in ((0, 10), (1, 0)):
        with pytest.raises(ValueError, match="at least one thread and one frame"):
            EncoderPool(threads, frames)


def test_a_probe_of_an_encoder_that_works_says_nothing() -> None:
    level = av.logging.get_level()
    H264(SEGMENTS, 512, 512, 25).probe()
    assert av.logging.get_level() == level


def test_nvenc_where_there_is_none_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(CannotRun) as caught:
        H264(VideoSettings(encoder="nvenc"), 512, 512, 25).probe()
    message = str(caught.value)
    assert "\n" not in message
    for part in ("video.encoder: nvenc", "one 512x512 frame with h264_nvenc failed: ", "use video.encoder: libx264"):
        assert part in message
    assert "failed: ;" not in message

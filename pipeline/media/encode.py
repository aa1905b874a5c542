"""Writing the result: frames go in, an MP4 with H.264 and AAC comes out."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import numpy as np

from pipeline.config import InputLimits, VideoSettings
from pipeline.media.encoders import EncoderPool, Segment
from pipeline.media.h264 import H264
from pipeline.media.mp4 import Mp4File
from pipeline.media.reader import MediaReader
from pipeline.media.timeline import FPS
from pipeline.provenance.label import VisibleLabel

_OWN_FRAMES = 16
"""Frames that may wait in a writer that has an encoder thread of its own."""


def segment_frames(settings: VideoSettings, fps: int) -> int:
    """Frames of a closed segment."""
    return max(round(settings.segment_seconds * fps), 1)


class VideoWriter:
    """Hashes, encodes and muxes frames beside the thread that makes them; nothing holds a clip.

    The video is a chain of closed segments of ``settings.segment_seconds``, each by a fresh encoder with the same
    settings: a segment's frames depend on nothing outside it, so the threads of a pool encode several at a time. The
    output is yuv420p, faststart, with AAC from the original recording cut to the last frame's end. With libx264 the
    same input gives the same bytes, whatever the pool.

    Use it in a ``with`` block: the file appears at ``path`` when the block ends well, and not at all otherwise.

    Attributes:
        frames_written: frames taken so far.
        frames_sha256: of all frames as uint8 RGB; empty before the file is closed.
        encode_seconds: spent encoding the segments that are in the file, on all threads together.
    """

    def __init__(
        self,
        path: Path,
        *,
        width: int,
        height: int,
        settings: VideoSettings,
        limits: InputLimits,
        audio: Path | None = None,
        tags: Mapping[str, str] | None = None,
        label: VisibleLabel | None = None,
        fps: int = FPS,
        pool: EncoderPool | None = None,
        reader: MediaReader | None = None,
    ) -> None:
        """Open the output beside ``path``, whose folder must exist.

        Args:
            width, height: of the frames in pixels; even, as yuv420p needs.
            audio: recording for the sound track; ``None`` for a silent video.
            tags: metadata of the file, any keys.
            label: drawn into the first frames, after they were hashed.
            pool: encoder threads shared with other videos; ``None`` for a thread of its own.
            reader: who reads ``audio``; ``None`` for this process.

        Raises `InputError` if ``audio`` isn't readable, `ValueError` for an odd or empty size.
        """
        if width < 2 or height < 2 or width % 2 or height % 2:
            raise ValueError(f"expected an even width and height for yuv420p, found {width}x{height}")
        self.frames_written, self.frames_sha256, self.encode_seconds = 0, "", 0.0
        self._path, self._shape = path, (height, width, 3)
        self._form = H264(settings, width, height, fps)
        self._file = Mp4File(path, self._form, limits=limits, audio=audio, tags=tags, reader=reader)
        self._pool = pool or EncoderPool(1, _OWN_FRAMES)
        self._owns_pool = pool is None
        self._segment_frames = segment_frames(settings, fps)
        self._digest, self._label = hashlib.sha256(), label
        # One thread hashes frames and cuts them into segments, one muxes: each in the order of the frames.
        self._cutter, self._muxer = ThreadPoolExecutor(1, "cutter"), ThreadPoolExecutor(1, "muxer")
        self._cuts: deque[Future[None]] = deque()
        self._muxes: deque[Future[None]] = deque()
        # Segments that aren't in the file yet, and the one that isn't full.
        self._segments: deque[Segment] = deque()
        self._open: Segment | None = None
        self._frames_cut = 0
        self._given_up = False

    def write(self, frames: np.ndarray) -> None:
        """Take uint8 [n, height, width, 3] RGB frames, in order, n >= 0; they must not be changed afterwards.

        Waits while the pool is full. Raises `ValueError` for another shape or type, and what became of earlier
        frames: `InputError` where the recording is damaged, `ItemError` where the disk fails.
        """
        shape = ", ".join(map(str, self._shape))
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != self._shape:
            raise ValueError(f"expected uint8 frames [n, {shape}], found {frames.dtype} {list(frames.shape)}")
        for steps in (self._cuts, self._muxes):
            while steps and steps[0].done():
                steps.popleft().result()
        self._pool.take(len(frames))
        self._cuts.append(self._cutter.submit(self._cut, np.ascontiguousarray(frames)))
        self.frames_written += len(frames)

    def close(self) -> None:
        """Finish the file and put it at ``path``. Raises `ValueError` if no frame was written."""
        try:
            if not self.frames_written:
                raise ValueError(f"expected at least one frame, found none written to {self._path.name}")
            for step in self._cuts:
                step.result()
            if self._open is not None:
                self._open.end()
            for step in self._muxes:
                step.result()
            self._file.close()
            self.frames_sha256 = self._digest.hexdigest()
        except BaseException:
            self.discard()
            raise
        self._stop()

    def discard(self) -> None:
        """Drop what was written; ``path`` stays as it was."""
        self._given_up = True
        self._stop()
        self._file.discard()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def _cut(self, frames: np.ndarray) -> None:
        if self._given_up:
            self._pool.give(len(frames))
            return
        self._digest.update(frames.data)
        if self._label is not None:
            frames = self._label.on(frames, self._frames_cut)
        while len(frames):
            if self._open is None:
                self._open = Segment(self._pool, self._form, self._frames_cut)
                self._segments.append(self._open)
                self._muxes.append(self._muxer.submit(self._mux, self._open))
            room = self._segment_frames - self._frames_cut % self._segment_frames
            part, frames = frames[:room], frames[room:]
            self._open.put(part)
            self._frames_cut += len(part)
            if len(part) == room:
                self._open.end()
                self._open = None

    def _mux(self, segment: Segment) -> None:
        if self._given_up:
            return
        try:
            encoded = segment.done.result()
            self._file.add(encoded)
        except BaseException:
            # What follows would not be in its place.
            self._given_up = True
            raise
        self.encode_seconds += encoded.seconds
        self._segments.popleft()

    def _stop(self) -> None:
        """End the threads; the encoder of a segment that was given up may finish the frames it has begun."""
        self._cutter.shutdown()
        for segment in tuple(self._segments):
            segment.drop()
        self._muxer.shutdown()
        if self._owns_pool:
            self._pool.close()

"""Writing the result: frames go in, an MP4 with H.264 and AAC comes out."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from pipeline.config import InputLimits, VideoSettings
from pipeline.media.encoders import EncodedSegment, EncoderPool, Segment
from pipeline.media.frame_hash import frame_digests, frames_sha256
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


class SegmentSink(Protocol):
    """Where encoded segments go, in their order."""

    def add(self, segment: EncodedSegment) -> None: ...

    def close(self) -> None: ...

    def discard(self) -> None: ...


class FrameEncoder:
    """Hashes and encodes frames beside the thread that makes them; nothing holds a clip.

    The video is a chain of closed segments of ``settings.segment_seconds``, each by a fresh encoder with the same
    settings: a segment's frames depend on nothing outside it, so the threads of a pool encode several at a time, and
    a video may be encoded in ranges of whole segments. With libx264 the same input gives the same packets, whatever
    the pool and the ranges.

    Use it in a ``with`` block: the sink is closed when the block ends well, and discarded otherwise.

    Attributes:
        frames_written: frames taken so far.
        frame_digests: SHA-256 of each frame as uint8 RGB, 32 bytes each, in order.
        encode_seconds: spent encoding the segments that are in the sink, on all threads together.
    """

    def __init__(
        self,
        sink: SegmentSink,
        form: H264,
        *,
        name: str,
        pool: EncoderPool | None,
        first: int = 0,
        label: VisibleLabel | None = None,
    ) -> None:
        """``first`` is the first frame's index in the video, a whole number of segments; ``name`` is for errors.

        ``pool`` are encoder threads shared with other videos; ``None`` for a thread of its own. ``label`` is drawn
        into the video's first frames, after they were hashed.
        """
        self.frames_written, self.encode_seconds = 0, 0.0
        self.frame_digests = bytearray()
        self._name, self._form, self._shape = name, form, (form.height, form.width, 3)
        self._sink = sink
        self._pool = pool or EncoderPool(1, _OWN_FRAMES)
        self._owns_pool = pool is None
        self._segment_frames = segment_frames(form.settings, form.fps)
        # One thread hashes frames and cuts them into segments, one hands them on: each in the order of the frames.
        self._cutter, self._muxer = ThreadPoolExecutor(1, "cutter"), ThreadPoolExecutor(1, "muxer")
        self._cuts: deque[Future[None]] = deque()
        self._muxes: deque[Future[None]] = deque()
        # Segments that aren't in the sink yet, and the one that isn't full.
        self._segments: deque[Segment] = deque()
        self._open: Segment | None = None
        self._next, self._label = first, label
        self._given_up = False

    @property
    def frames_sha256(self) -> str:
        """`frames_sha256` of the frames taken so far; asked for once the encoder is closed."""
        return frames_sha256(self.frame_digests)

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
        """Finish the sink. Raises `ValueError` if no frame was written."""
        try:
            if not self.frames_written:
                raise ValueError(f"expected at least one frame, found none written to {self._name}")
            for step in self._cuts:
                step.result()
            if self._open is not None:
                self._open.end()
            for step in self._muxes:
                step.result()
            self._sink.close()
        except BaseException:
            self.discard()
            raise
        self._stop()

    def discard(self) -> None:
        """Drop what was written."""
        self._given_up = True
        self._stop()
        self._sink.discard()

    def __enter__(self) -> Self:
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
        self.frame_digests += frame_digests(frames)
        if self._label is not None:
            frames = self._label.on(frames, self._next)
        while len(frames):
            if self._open is None:
                self._open = Segment(self._pool, self._form, self._next)
                self._segments.append(self._open)
                self._muxes.append(self._muxer.submit(self._mux, self._open))
            room = self._segment_frames - self._next % self._segment_frames
            part, frames = frames[:room], frames[room:]
            self._open.put(part)
            self._next += len(part)
            if len(part) == room:
                self._open.end()
                self._open = None

    def _mux(self, segment: Segment) -> None:
        if self._given_up:
            return
        try:
            encoded = segment.done.result()
            self._sink.add(encoded)
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


class VideoWriter(FrameEncoder):
    """A `FrameEncoder` whose segments become an MP4 file.

    The output is yuv420p, faststart, with AAC from the original recording cut to the last frame's end. It appears at
    ``path`` when the ``with`` block ends well, and not at all otherwise. With libx264 the same input gives the same
    bytes.
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
        form = H264(settings, width, height, fps)
        file = Mp4File(path, form, limits=limits, audio=audio, tags=tags, reader=reader)
        super().__init__(file, form, name=path.name, pool=pool, label=label)

"""Encoder threads: segments of any number of videos side by side, with a bound on the frames that wait."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Condition, Lock
from typing import Any

import numpy as np

from pipeline.media.h264 import H264


class EncoderPool:
    """Threads that encode, and the room for frames in front of them. Any number of videos may share it.

    FFmpeg releases the interpreter while it encodes, so the threads run at once.
    """

    def __init__(self, threads: int, max_frames: int) -> None:
        """``max_frames`` is how many frames may be held before they are encoded, of all videos together."""
        if threads < 1 or max_frames < 1:
            raise ValueError(f"expected at least one thread and one frame, found {threads} and {max_frames}")
        self.max_frames = max_frames
        self._threads = ThreadPoolExecutor(threads, "encoder")
        self._held = 0
        self._room = Condition()

    def take(self, frames: int) -> None:
        """Wait until there is room for so many frames, and hold it. More than fit at all are let in alone."""
        with self._room:
            self._room.wait_for(lambda: not self._held or self._held + frames <= self.max_frames)
            self._held += frames

    def give(self, frames: int) -> None:
        """Give room back."""
        with self._room:
            self._held -= frames
            self._room.notify_all()

    def submit(self, work: Callable[[], None]) -> None:
        self._threads.submit(work)

    def close(self) -> None:
        """Wait for the threads to end."""
        self._threads.shutdown()


@dataclass
class EncodedSegment:
    """The packets of one closed segment."""

    header: bytes
    """Parameter sets, as the container needs them once for all segments."""
    packets: list[list[Any]] = field(default_factory=list)
    """What the encoder gave after each frame."""
    tail: list[Any] = field(default_factory=list)
    """What it gave after the last one."""
    seconds: float = 0.0
    """Time spent in the encoder."""


class Segment:
    """A closed segment on its way: frames are put in order and encoded in order, by whichever thread is free.

    No thread waits for frames that have not come yet, so any number of segments can be open on one thread.
    """

    def __init__(self, pool: EncoderPool, form: H264, first: int) -> None:
        """``first`` is the index of its first frame in the video."""
        self.done: Future[EncodedSegment] = Future()
        """The packets, what the encoder raised, or CancelledError where the segment was dropped."""
        self._pool, self._form, self._next = pool, form, first
        self._waiting: deque[np.ndarray | None] = deque()
        self._lock = Lock()
        self._at_work = self._dropped = False
        self._encoder: Any = None
        self._encoded = EncodedSegment(b"")

    def put(self, frames: np.ndarray) -> None:
        """Contiguous uint8 [n, height, width, 3], for which the caller holds room in the pool; it is given back."""
        self._push(frames)

    def end(self) -> None:
        """No more frames come."""
        self._push(None)

    def drop(self) -> None:
        """Encode nothing more; what waits is let go."""
        self._dropped = True
        self._push(None)

    def _push(self, frames: np.ndarray | None) -> None:
        with self._lock:
            self._waiting.append(frames)
            if self._at_work:
                return
            self._at_work = True
        self._pool.submit(self._work)

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._at_work = False
                    return
                frames = self._waiting.popleft()
            try:
                if not self.done.done():
                    self._step(frames)
            except Exception as exc:  # noqa: BLE001  (it is raised where the packets are asked for)
                self._encoder = None
                self.done.set_exception(exc)
            count = 0 if frames is None else len(frames)
            del frames
            self._pool.give(count)

    def _step(self, frames: np.ndarray | None) -> None:
        if self._dropped:
            raise CancelledError
        started = time.perf_counter()
        if self._encoder is None:
            self._encoder = self._form.encoder()
            self._encoded.header = self._encoder.extradata
        if frames is None:
            self._encoded.tail = self._encoder.encode(None)
            self._encoder = None
        else:
            for rgb in frames:
                self._encoded.packets.append(self._encoder.encode(self._form.picture(rgb, self._next)))
                self._next += 1
        self._encoded.seconds += time.perf_counter() - started
        if frames is None:
            self.done.set_result(self._encoded)

"""The pictures of a video at 25 moments a second, read with decord or with PyAV.

Both decoders give the same pixels for the files that decord is given; the test of this module holds them to it.
"""

from __future__ import annotations

import importlib
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline.config import InputLimits
from pipeline.errors import InputError
from pipeline.media.probe import check_complete, check_seconds, cut_off, decoding, open_container, video_stream
from pipeline.media.timeline import FPS, Timeline

Decoder = Literal["decord", "pyav"]

_DECORD_CONTAINERS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
_DECORD_PIXELS = ("yuv420p", "yuvj420p", "yuv422p", "yuv444p")
"""decord 0.6 fails on MPEG-TS, gives broken arrays for rotated files, and other colours for more than 8 bits; the
packets of an AVI don't say when a frame is shown."""

_BATCH_BYTES = 32_000_000
"""Full-size frames asked of decord at once."""


@dataclass(frozen=True)
class Pictures:
    """A video on the clock of 25 ticks a second. Nothing is decoded before `at` is iterated."""

    path: Path
    limits: InputLimits
    decoder: Decoder
    first_ticks: array[int] | None
    """For decord: the first tick of every frame in the order shown (8 bytes a frame), and the end."""

    def at(self, start: int, step: int, stop: int | None) -> Iterator[tuple[int, np.ndarray]]:
        """The picture shown at the ticks start, start + step, ... before ``stop`` and the end of the video.

        Yields ``(tick, uint8 [H, W, 3] RGB)``, upright. A picture shown at several ticks is the same array object.
        Raises `InputError` where the file is damaged, cut off, or longer than the limits; `DecordError` if decord
        gives up, which PyAV may not.
        """
        if self.first_ticks is not None:
            return _at_decord(self.path, self.first_ticks, start, step, stop)
        return _at_pyav(self.path, self.limits, start, step, stop)


class DecordError(Exception):
    """decord can't go on with a file."""


def open_pictures(path: Path, limits: InputLimits, decoder: Decoder | None = None) -> Pictures:
    """Choose who decodes ``path``: decord where it is installed and can be trusted with the file, else PyAV.

    ``decoder="pyav"`` leaves decord out. The file passes `open_container`'s checks in either case.

    Raises `InputError` if it has no pictures or isn't readable within ``limits``.
    """
    with open_container(path, limits) as container:
        stream = _pictures_of(container, path)
        try_decord = decoder != "pyav" and find_spec("decord") is not None and _suits_decord(container, stream)
    ticks = _shown_ticks(path, limits) if try_decord else None
    return Pictures(path, limits, "pyav" if ticks is None else "decord", ticks)


def _pictures_of(container: Any, path: Path) -> Any:
    stream = video_stream(container)
    if stream is None:
        raise InputError(f"expected a video, found no pictures: {path.name}", hint="give a file with a video track")
    return stream


def _suits_decord(container: Any, stream: Any) -> bool:
    if container.format.name not in _DECORD_CONTAINERS or len(container.streams.video) != 1:
        return False
    frame = next(container.decode(stream), None)
    return frame is not None and not frame.rotation and frame.format.name in _DECORD_PIXELS


def _shown_ticks(path: Path, limits: InputLimits) -> array[int] | None:
    """First ticks of all frames in the order shown, and the end, from the packets alone.

    ``None`` where these don't tell, or the file is cut off or too long: PyAV then says so when it gets there.
    """
    with open_container(path, limits) as container:
        stream = _pictures_of(container, path)
        timeline = Timeline.of(container, stream)
        stamps = array("q")
        end = last = -1
        for packet in container.demux(stream):
            if packet.size == 0 or packet.is_discard:
                continue
            if packet.pts is None or packet.is_corrupt:
                return None
            stamps.append(packet.pts)
            _check_frames(len(stamps), limits, path)
            if packet.pts > last:
                last, end = packet.pts, packet.pts + (packet.duration or _usual_duration(stream))
        if not stamps or cut_off(stream, _elapsed(stream, end)) or end * stream.time_base > limits.max_media_seconds:
            return None
        ticks = array("q", (timeline.first_tick(pts) for pts in sorted(stamps)))
        ticks.append(max(timeline.first_tick(end), 1))
        return ticks


def _check_frames(count: int, limits: InputLimits, path: Path) -> None:
    """A file can hold any number of frames in any time."""
    if count > limits.max_video_frames:
        raise InputError(
            f"expected at most {limits.max_video_frames} frames, found more: {path.name}",
            hint="lower the frame rate, cut the file, or raise limits.max_video_frames",
        )


def _elapsed(stream: Any, pts: int) -> Fraction:
    """Seconds from the stream's own start to ``pts``."""
    return (pts - (stream.start_time or 0)) * stream.time_base


def _usual_duration(stream: Any) -> int:
    """Length of a frame that doesn't state its own, in units of the stream's time base."""
    rate = stream.average_rate or FPS
    return max(round(1 / (rate * stream.time_base)), 1)


def _at_decord(
    path: Path, first_ticks: array[int], start: int, step: int, stop: int | None
) -> Iterator[tuple[int, np.ndarray]]:
    decord = importlib.import_module("decord")
    decord.logging.set_level(decord.logging.QUIET)
    starts, end = first_ticks[:-1], first_ticks[-1]
    ticks = range(start, end if stop is None else min(stop, end), step)
    runs = groupby(ticks, key=lambda tick: max(bisect_right(starts, tick) - 1, 0))
    try:
        # One thread: several actors share the cores.
        reader = decord.VideoReader(str(path.absolute()), num_threads=1)
        if len(reader) != len(starts):
            raise DecordError(f"decord sees {len(reader)} frames, the container holds {len(starts)}: {path.name}")
        batch = 1
        while found := [(index, list(shown)) for index, shown in islice(runs, batch)]:
            pictures = reader.get_batch([index for index, _ in found]).asnumpy()
            for (_, shown), picture in zip(found, pictures, strict=True):
                for tick in shown:
                    yield tick, picture
            batch = max(_BATCH_BYTES // pictures[0].nbytes, 1)
    except (decord.DECORDError, RuntimeError) as exc:
        raise DecordError(f"{path.name}: {exc}") from exc


def _at_pyav(
    path: Path, limits: InputLimits, start: int, step: int, stop: int | None
) -> Iterator[tuple[int, np.ndarray]]:
    tick = start
    for frame, end in _frames_with_end(path, limits):
        if tick < end:
            picture = _upright(frame)
        while tick < end:
            if stop is not None and tick >= stop:
                return
            yield tick, picture
            tick += step


def _frames_with_end(path: Path, limits: InputLimits) -> Iterator[tuple[Any, int]]:
    """Each ``av.VideoFrame`` with the tick at which the next one takes over; the last one with the end."""
    with open_container(path, limits) as container:
        stream = _pictures_of(container, path)
        timeline = Timeline.of(container, stream)
        current: Any = None
        end_pts = 0
        with decoding(path):
            for count, frame in enumerate(container.decode(stream), 1):
                _check_frames(count, limits, path)
                if frame.pts is None:
                    frame.pts = end_pts
                if current is not None:
                    tick = timeline.first_tick(frame.pts)
                    check_seconds(tick / FPS, limits, path)
                    yield current, tick
                current, end_pts = frame, frame.pts + (frame.duration or _usual_duration(stream))
        if current is None:
            raise InputError(f"expected a video, found no decodable frame: {path.name}", hint="play it to check it")
        check_complete(stream, _elapsed(stream, end_pts), path)
        yield current, max(timeline.first_tick(end_pts), 1)


def _upright(frame: Any) -> np.ndarray:
    picture = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(picture, frame.rotation // 90)) if frame.rotation else picture

"""Opening audio and video safely, and what a file says about itself.

Every file goes through `open_container`, with a list of the formats that may be read. A playlist or a script that
was renamed to ``.wav`` or ``.mp4`` would otherwise make FFmpeg open other files or addresses.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.stream import Disposition

from pipeline.config import InputLimits
from pipeline.errors import InputError, ItemError
from pipeline.media.files import check_file
from pipeline.media.wav import check_wav

FORMATS = (
    "mov", "matroska", "webm", "avi", "mpegts", "mpeg", "flv", "asf",
    "wav", "w64", "aiff", "caf", "mp3", "flac", "ogg", "aac",
)  # fmt: skip
"""FFmpeg's names of the formats that are read; none of them refers to other files."""


@dataclass(frozen=True)
class VideoFacts:
    """The pictures of a file, as its header and first frame state them."""

    codec: str
    pixel_format: str
    width: int
    """Stored pixels, before rotation."""
    height: int
    rotation: int
    """Degrees counter-clockwise to turn the stored picture by: 0, 90, 180 or 270."""
    fps: float | None
    """Average rate; ``None`` if the header has none."""


@dataclass(frozen=True)
class AudioFacts:
    """The sound of a file, as its header states it."""

    codec: str
    rate_hz: int
    channels: int


@dataclass(frozen=True)
class MediaFacts:
    """What `probe` found. Header values: good for planning, never for the length of a result."""

    container: str
    bytes: int
    seconds: float | None
    """Length by the header; ``None`` if it has none."""
    video: VideoFacts | None
    audio: AudioFacts | None


def probe(path: Path, limits: InputLimits) -> MediaFacts:
    """Read a file's header and, if it has pictures, its first frame.

    Raises `InputError` if it isn't readable media within ``limits``, or has neither pictures nor sound.
    """
    with open_container(path, limits) as container:
        pictures, sound = video_stream(container), audio_stream(container)
        if pictures is None and sound is None:
            raise InputError(f"expected pictures or sound, found neither: {path.name}", hint="check the file")
        seconds = header_seconds(container)
        check_seconds(seconds or 0.0, limits, path)
        return MediaFacts(
            container=container.format.name,
            bytes=path.stat().st_size,
            seconds=seconds,
            video=None if pictures is None else _video_facts(container, pictures, path),
            audio=None
            if sound is None
            else AudioFacts(sound.codec_context.name, sound.codec_context.sample_rate, sound.codec_context.channels),
        )


@contextmanager
def open_container(path: Path, limits: InputLimits) -> Iterator[Any]:
    """Open ``path`` with PyAV for reading: an ``av.container.InputContainer``.

    Only `FORMATS` and the ``file`` protocol are allowed, recognised by content. Frames larger than
    ``limits.max_video_pixels`` are refused by the header and again by the decoder. What FFmpeg raises inside the
    ``with`` block is turned into an `InputError` (or an ``infrastructure`` error if the disk failed).
    """
    check_file(path, limits)
    options = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "file"}
    name = str(path.absolute())  # an absolute path can't be taken for a protocol
    with decoding(path), av.open(name, container_options=options, metadata_errors="replace") as container:
        for stream in container.streams.video:
            _limit_pixels(stream, limits, path)
        if container.format.name == "wav":
            check_wav(path)
        yield container


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Turn what FFmpeg raises while it reads ``path`` into a typed error."""
    try:
        yield
    except av.FFmpegError as exc:
        if isinstance(exc, OSError):
            raise ItemError("infrastructure", f"{path.name}: {exc}", hint="check the disk and run again") from exc
        raise InputError(
            f"expected intact audio or video, but reading {path.name} failed: {exc}",
            hint=f"play the file to check it, or convert it to WAV or MP4; known formats: {', '.join(FORMATS)}",
        ) from exc


def video_stream(container: Any) -> Any | None:
    """The first stream of moving pictures; cover art doesn't count."""
    return next((s for s in container.streams.video if not s.disposition & Disposition.attached_pic), None)


def audio_stream(container: Any) -> Any | None:
    """The first stream of sound."""
    return next(iter(container.streams.audio), None)


def header_seconds(container: Any) -> float | None:
    """Length by the header, in seconds."""
    return None if container.duration is None else container.duration / av.time_base


def start_time(container: Any) -> Fraction:
    """The moment that counts as 0 s, in the file's own time: the earliest start of its pictures or sound.

    Never before the file's zero: what lies there (the pre-roll of a codec) isn't shown.
    """
    streams = [s for s in (video_stream(container), audio_stream(container)) if s is not None]
    starts = [s.start_time * s.time_base for s in streams if s.start_time is not None]
    return max(min(starts, default=Fraction(0)), Fraction(0))


def check_seconds(seconds: float | Fraction, limits: InputLimits, path: Path) -> None:
    """Raise `InputError` if ``seconds`` is more than ``limits.max_media_seconds``."""
    if seconds > limits.max_media_seconds:
        raise InputError(
            f"expected at most {limits.max_media_seconds:g} s, found {float(seconds):.1f} s: {path.name}",
            hint="cut the file, set max_seconds, or raise limits.max_media_seconds",
        )


def cut_off(stream: Any, seconds: Fraction) -> bool:
    """Whether ``seconds`` of decoded stream are much less than the header promises.

    Only formats whose header holds the exact length are judged; half a second is allowed for rounding.
    """
    exact = {"mov,mp4,m4a,3gp,3g2,mj2", "flac"}
    if stream.container.format.name not in exact or stream.duration is None:
        return False
    return seconds < stream.duration * stream.time_base - Fraction(1, 2)


def check_complete(stream: Any, seconds: Fraction, path: Path) -> None:
    """Raise `InputError` if the stream is `cut_off`: half a file would silently give half a result."""
    if cut_off(stream, seconds):
        raise InputError(
            f"expected {float(stream.duration * stream.time_base):.2f} s by the header, "
            f"found {float(seconds):.2f} s: {path.name} is cut off",
            hint="upload the file again, or re-encode it if it is meant to be this long",
        )


def _limit_pixels(stream: Any, limits: InputLimits, path: Path) -> None:
    if stream.width * stream.height > limits.max_video_pixels:
        raise InputError(
            f"expected frames of at most {limits.max_video_pixels} pixels, "
            f"found {stream.width}x{stream.height}: {path.name}",
            hint="scale the video down, or raise limits.max_video_pixels",
        )
    if stream.codec_context is not None:
        stream.codec_context.options = {"max_pixels": str(limits.max_video_pixels)}


def _video_facts(container: Any, stream: Any, path: Path) -> VideoFacts:
    frame = next(container.decode(stream), None)
    if frame is None:
        raise InputError(f"expected pictures, found a video stream without frames: {path.name}", hint="check the file")
    rate = stream.average_rate
    return VideoFacts(
        codec=stream.codec_context.name,
        pixel_format=frame.format.name,
        width=frame.width,
        height=frame.height,
        rotation=frame.rotation % 360,
        fps=None if not rate else float(rate),
    )

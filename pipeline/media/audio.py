"""Sound: any file to 16 kHz mono, in bounded steps."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import soxr

from pipeline.config import InputLimits
from pipeline.errors import InputError
from pipeline.media.probe import (
    audio_stream,
    check_complete,
    check_seconds,
    decoding,
    open_container,
    start_time,
    video_stream,
)

SAMPLE_RATE = 16_000
"""Samples a second the audio encoder takes."""

_LEAD = Fraction(1, 4)
"""Seconds read beyond a cut, so that the resampler's filter sees what follows it."""

_BLOCK = 48_000
"""Samples of silence made at once."""

_PIECE = 30 * SAMPLE_RATE
"""Samples in a piece of `mono_16k_pieces`."""


def decode_mono_16k(path: Path, limits: InputLimits, max_seconds: float | None = None) -> np.ndarray:
    """Decode a file's sound to 16 kHz mono: float32 [N], nominally -1..1 (resampling may overshoot a little).

    The published implementation's loading (librosa): mean over the channels, then soxr's "HQ" resampling, with
    ``N = ceil(n * 16000 / rate)``. In a video, sound that starts after the pictures is led in by silence, so that it
    stays in step with them. With ``max_seconds`` only its first `samples_within` that.

    Memory is linear: 3.84 MB a minute for the result, at most 9 MB a minute while it is put together (measured).

    Raises `InputError` for files that aren't readable, have no sound, hold no sample or a value that isn't finite,
    end long before their header says, or last longer than ``limits.max_media_seconds``.
    """
    return np.concatenate(list(mono_16k_pieces(path, limits, max_seconds)))


def mono_16k_pieces(
    path: Path, limits: InputLimits, max_seconds: float | None = None
) -> Generator[np.ndarray, None, None]:
    """The same in pieces float32 [n] of half a minute; the last one may be shorter. Memory is that of some pieces.

    Raises `InputError` as `decode_mono_16k` does, after the pieces before the fault.
    """
    held: list[np.ndarray] = []
    count = 0
    for chunk in _mono_16k(path, limits, max_seconds):
        held.append(chunk)
        count += len(chunk)
        if count >= _PIECE:
            *pieces, rest = _cut(np.concatenate(held))
            yield from pieces
            held, count = [rest], len(rest)
    yield np.concatenate(held)


def _cut(samples: np.ndarray) -> list[np.ndarray]:
    """Pieces and what is left, which may be nothing."""
    whole = len(samples) - len(samples) % _PIECE
    return [*(samples[start : start + _PIECE] for start in range(0, whole, _PIECE)), samples[whole:]]


def _mono_16k(path: Path, limits: InputLimits, max_seconds: float | None) -> Iterator[np.ndarray]:
    """As the decoder gives them; the last one fits the whole to its length."""
    wanted = None if max_seconds is None else samples_within(max_seconds)
    resampler: soxr.ResampleStream | None = None
    source_samples, rate, made = 0, SAMPLE_RATE, 0
    for frame in audio_frames(path, limits, None if wanted is None else Fraction(wanted, SAMPLE_RATE) + _LEAD):
        mono = to_float(frame).mean(axis=0, dtype=np.float32)
        if not np.isfinite(mono).all():
            raise InputError(f"expected finite samples, found NaN or infinity: {path.name}", hint="export it again")
        source_samples, rate = source_samples + len(mono), frame.sample_rate
        if rate != SAMPLE_RATE:
            resampler = resampler or soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
            mono = resampler.resample_chunk(mono)
        if wanted is not None:
            mono = mono[: wanted - made]
        made += len(mono)
        yield mono
    length = -(-source_samples * SAMPLE_RATE // rate)
    missing = max((length if wanted is None else min(length, wanted)) - made, 0)
    rest = np.zeros(0, np.float32)
    if resampler is not None:
        rest = resampler.resample_chunk(rest, last=True)[:missing]
    # The filter may end a sample short.
    yield np.pad(rest, (0, missing - len(rest)))


def samples_within(seconds: float) -> int:
    """16 kHz samples of an item that is cut to ``seconds``; at least one."""
    return max(round(seconds * SAMPLE_RATE), 1)


def audio_frames(path: Path, limits: InputLimits, seconds: Fraction | None = None) -> Generator[Any, None, None]:
    """The decoded sound of a file as ``av.AudioFrame``, in order, from 0 s until ``seconds`` is reached or passed.

    0 s is the start of the file, be it of its pictures or of its sound: a late start of the sound is filled with
    silence. All frames have one rate, format and number of channels.

    Raises `InputError` as `decode_mono_16k` does.
    """
    with open_container(path, limits) as container:
        stream = audio_stream(container)
        if stream is None:
            raise InputError(f"expected sound, found none: {path.name}", hint="give a file with an audio track")
        first: Any = None
        samples = 0
        decoded = Fraction(0)
        with decoding(path):
            for frame in container.decode(stream):
                if first is None:
                    first = frame
                    for lead in _silence(frame, _late_samples(container, frame)):
                        samples += lead.samples
                        check_seconds(Fraction(samples, frame.sample_rate), limits, path)
                        yield lead
                elif _kind(frame) != _kind(first):
                    raise InputError(
                        f"expected one sample format, found {_kind(first)} and then {_kind(frame)}: {path.name}",
                        hint="convert the file to WAV",
                    )
                samples += frame.samples
                decoded += Fraction(frame.samples, frame.sample_rate)
                time = Fraction(samples, frame.sample_rate)
                check_seconds(time, limits, path)
                yield frame
                if seconds is not None and time >= seconds:
                    return
        if decoded == 0:
            raise InputError(
                f"expected sound, found an audio track without samples: {path.name}", hint="check the file"
            )
        check_complete(stream, decoded, path)


def silent_frame(like: Any, samples: int) -> Any:
    """An ``av.AudioFrame`` of silence with the rate, format and channels of ``like``."""
    frame = av.AudioFrame(format=like.format.name, layout=like.layout.name, samples=samples)
    frame.sample_rate = like.sample_rate
    zero = b"\x80" if like.format.name.startswith("u8") else b"\x00"
    for plane in frame.planes:
        plane.update(zero * plane.buffer_size)
    return frame


def to_float(frame: Any) -> np.ndarray:
    """Samples of an ``av.AudioFrame`` of any format: float32 [channels, samples], full scale = -1..1."""
    values = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(frame.samples, -1).T
    if values.dtype == np.uint8:
        return (values.astype(np.float32) - 128.0) / 128.0
    if np.issubdtype(values.dtype, np.integer):
        # Divided in double precision, as sound file readers do, then rounded once.
        return (values / -float(np.iinfo(values.dtype).min)).astype(np.float32)
    return values.astype(np.float32)


def _late_samples(container: Any, frame: Any) -> int:
    """Samples by which the sound starts after the pictures."""
    if video_stream(container) is None or frame.pts is None:
        return 0
    late = frame.pts * frame.time_base - start_time(container)
    return max(round(late * frame.sample_rate), 0)


def _silence(like: Any, samples: int) -> Iterator[Any]:
    for start in range(0, samples, _BLOCK):
        yield silent_frame(like, min(_BLOCK, samples - start))


def _kind(frame: Any) -> tuple[int, str, int]:
    return frame.sample_rate, frame.format.name, frame.layout.nb_channels

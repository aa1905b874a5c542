"""What the stages read strangers' files with: the functions of this package, run in decoders that may die."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from pipeline.config import InputLimits
from pipeline.media.probe import AudioFacts, MediaFacts, VideoFacts
from pipeline.media.sandbox import shared_sandbox


class MediaReader:
    """Same results as in this process, bit for bit.

    Every method raises what the function it names raises, and `InputError` for a file that kills the decoder, takes
    longer than ``limits.decoding_s`` or more memory than ``limits.max_decoder_bytes``.
    """

    def __init__(self, limits: InputLimits) -> None:
        self._limits = limits
        self._sandbox = shared_sandbox(limits.max_decoder_bytes)

    def warm(self) -> None:
        """Start a decoder, without waiting for it."""
        self._sandbox.warm()

    def image(self, path: Path) -> np.ndarray:
        """`pipeline.media.image.load_image`."""
        (piece,) = self._sandbox.decode("image", path, self._limits)
        return piece.arrays["image"]

    def facts(self, path: Path) -> MediaFacts:
        """`pipeline.media.probe.probe`."""
        (piece,) = self._sandbox.decode("facts", path, self._limits)
        facts = {name: value for name, value in piece.facts.items() if name != "says"}
        video, audio = facts.pop("video"), facts.pop("audio")
        return MediaFacts(
            **facts, video=VideoFacts(**video) if video else None, audio=AudioFacts(**audio) if audio else None
        )

    def mono_16k(self, path: Path, max_seconds: float | None = None) -> np.ndarray:
        """`pipeline.media.audio.decode_mono_16k`."""
        return np.concatenate(list(self.mono_16k_pieces(path, max_seconds)))

    def mono_16k_pieces(self, path: Path, max_seconds: float | None = None) -> Generator[np.ndarray, None, None]:
        """`pipeline.media.audio.mono_16k_pieces`. What is not read to its end has to be closed."""
        for piece in self._sandbox.decode("mono_16k", path, self._limits, max_seconds=max_seconds):
            yield piece.arrays["waveform"]

    def sampled(self, path: Path, every: int) -> Iterator[np.ndarray]:
        """`pipeline.media.driver.sample_frames`. Most often the first picture is enough: none is decoded ahead."""
        for piece in self._sandbox.decode("sampled", path, self._limits, ahead=False, every=every):
            yield piece.arrays["picture"]

    def driver(self, path: Path, size: int, max_seconds: float | None = None, *, every: int = 1) -> DriverWindows:
        """`pipeline.media.driver.DriverReader`. What is not read to its end has to be closed."""
        return DriverWindows(
            self._sandbox.decode("driver", path, self._limits, size=size, max_seconds=max_seconds, every=every)
        )

    def sound(self, path: Path) -> Generator[Any, None, None]:
        """`pipeline.media.audio.audio_frames`, in frames of about a second."""
        for piece in self._sandbox.decode("sound", path, self._limits):
            frame = av.AudioFrame.from_ndarray(
                piece.arrays["samples"], format=piece.facts["format"], layout=piece.facts["layout"]
            )
            frame.sample_rate = piece.facts["rate"]
            frame.time_base = Fraction(1, frame.sample_rate)
            yield frame


class DriverWindows:
    """Windows of square frames: uint8 [n, size, size, 3] RGB.

    Attributes:
        decoder: who read the file, ``"decord"`` or ``"pyav"``; empty until all is read.
    """

    def __init__(self, pieces: Generator[Any, None, None]) -> None:
        self._pieces = pieces
        self.decoder = ""

    def close(self) -> None:
        """Stop reading."""
        self._pieces.close()

    def __iter__(self) -> Iterator[np.ndarray]:
        for piece in self._pieces:
            self.decoder = piece.facts["decoder"]
            if "window" in piece.arrays:
                yield piece.arrays["window"]

"""The sound of an output video: the original recording, as AAC can carry it, in measured pieces."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import av

from pipeline.config import InputLimits
from pipeline.errors import InputError
from pipeline.media.audio import audio_frames, silent_frame
from pipeline.media.reader import MediaReader

_KEPT_RATES = (44_100, 48_000)


class Soundtrack:
    """A recording at 44.1 or 48 kHz, mono or stereo, read as far as the video has got.

    44.1 kHz stays; every other rate becomes 48 kHz (a low-rate AAC track would end 60-130 ms late). More than two
    channels are mixed down. Memory doesn't grow with the length.
    """

    def __init__(self, path: Path, limits: InputLimits, reader: MediaReader | None = None) -> None:
        """Open ``path``, with ``reader`` in a decoder that may die. Raises `InputError` if it has no readable sound."""
        self._frames = audio_frames(path, limits) if reader is None else reader.sound(path)
        first = next(self._frames, None)
        if first is None:
            raise InputError(f"expected sound, found an audio track without samples: {path.name}")
        self.rate: int = first.sample_rate if first.sample_rate in _KEPT_RATES else 48_000
        self.layout: str = "mono" if first.layout.nb_channels == 1 else "stereo"
        self._resampler = av.AudioResampler(format="fltp", layout=self.layout, rate=self.rate)
        self._fifo = av.AudioFifo()
        self._first: Any = first
        self._like: Any = None
        self._ended = False
        self._silence = False
        self._given = 0

    def read_until(self, samples: int, tolerance: int) -> Any | None:
        """The next piece of sound, up to ``samples`` from the beginning: an ``av.AudioFrame`` (fltp) or ``None``.

        Where the recording ends more than ``tolerance`` samples earlier, silence follows; the outcome doesn't depend
        on the steps in which it is read. Raises `InputError` where the file is damaged.
        """
        wanted = samples - self._given
        if wanted <= 0:
            return None
        while self._fifo.samples < wanted and not self._ended:
            self._fill()
        missing = wanted - self._fifo.samples
        if missing > 0 and (self._silence or missing > tolerance):
            self._silence = True
            self._fifo.write(silent_frame(self._like, missing))
        piece = self._fifo.read(min(wanted, self._fifo.samples)) if self._fifo.samples else None
        if piece is not None:
            piece.pts = self._given
            self._given += piece.samples
        return piece

    def close(self) -> None:
        """Close the file."""
        self._frames.close()

    def __enter__(self) -> Soundtrack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _fill(self) -> None:
        # No further than is needed: what is wrong beyond the video's end is nobody's loss.
        frame, self._first = self._first or next(self._frames, None), None
        if frame is not None:
            frame.pts = None  # only the count of samples matters from here on
        for out in self._resampler.resample(frame):
            out.pts = None
            self._like = out
            self._fifo.write(out)
        self._ended = frame is None

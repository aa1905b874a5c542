"""The MP4 file: encoded segments and sound, side by side."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from pipeline.config import InputLimits
from pipeline.errors import ItemError
from pipeline.media.encoders import EncodedSegment
from pipeline.media.h264 import H264
from pipeline.media.reader import MediaReader
from pipeline.media.soundtrack import Soundtrack

MP4_OPTIONS = {"movflags": "use_metadata_tags+faststart"}
"""The muxer's: keys that MP4 has no field for are kept, and players can start before the end is there."""


class Mp4File:
    """A file that grows by segments beside ``path`` and appears there when it is closed."""

    def __init__(
        self,
        path: Path,
        form: H264,
        *,
        limits: InputLimits,
        audio: Path | None,
        tags: Mapping[str, str] | None,
        reader: MediaReader | None,
    ) -> None:
        """Raises `InputError` if ``audio`` isn't readable."""
        self._path, self._fps = path, form.fps
        self._frames = 0
        self._partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
        self._sound = None if audio is None else Soundtrack(audio, limits, reader)
        self._container = av.open(
            str(self._partial.absolute()),
            "w",
            format="mp4",
            container_options=MP4_OPTIONS,
        )
        self._container.metadata.update(tags or {})
        # The stream's own encoder gives the file its header and never sees a frame.
        self._stream = self._container.add_stream(form.codec, rate=form.fps)
        form.configure(self._stream.codec_context)
        self._audio_stream: Any = None
        if self._sound is not None:
            self._audio_stream = self._container.add_stream("aac", rate=self._sound.rate)
            self._audio_stream.codec_context.layout = self._sound.layout
            self._audio_stream.codec_context.bit_rate = form.settings.audio_bitrate

    def add(self, segment: EncodedSegment) -> None:
        """Write the next segment, and the sound as far.

        Raises `InputError` where the recording is damaged, `ItemError` where the disk fails.
        """
        with _disk_errors(self._path):
            self._container.start_encoding()
            if segment.header != self._stream.codec_context.extradata:
                raise RuntimeError(
                    f"{self._stream.codec_context.name} gave another header for the same settings; segments can't be "
                    "joined"
                )
            for packets in segment.packets:
                self._mux(packets)
                self._frames += 1
                self._write_sound()
            self._mux(segment.tail)

    def close(self) -> None:
        """Finish the file and put it in place."""
        with _disk_errors(self._path):
            if self._audio_stream is not None:
                self._container.mux(self._audio_stream.encode(None))
            self._release()
            self._partial.replace(self._path)

    def discard(self) -> None:
        """Drop what was written; ``path`` stays as it was."""
        # A disk that is full or gone was reported when it was written to.
        with suppress(av.FFmpegError):
            self._release()
        self._partial.unlink(missing_ok=True)

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            packet.stream = self._stream
            packet.time_base = Fraction(1, self._fps)
        self._container.mux(packets)

    def _write_sound(self) -> None:
        """Bring the sound to the end of the last frame written: the muxer never has to hold back much of either."""
        if self._sound is None:
            return
        rate = self._sound.rate
        piece = self._sound.read_until(self._frames * rate // self._fps, tolerance=rate // self._fps)
        if piece is not None:
            piece.time_base = Fraction(1, rate)
            self._container.mux(self._audio_stream.encode(piece))

    def _release(self) -> None:
        if self._sound is not None:
            self._sound.close()
        self._container.close()


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise ItemError(
            "infrastructure", f"writing {path.name} failed: {exc}", hint="check the space on the disk and run again"
        ) from exc

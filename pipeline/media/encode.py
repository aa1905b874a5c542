"""Writing the result: H.264 and AAC into MP4, frame by frame."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from av.codec.context import Flags
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation

from pipeline.config import InputLimits, VideoSettings
from pipeline.errors import ItemError
from pipeline.media.soundtrack import Soundtrack
from pipeline.media.timeline import FPS

_MATRIX_SMPTE170M = 6
"""ISO 23091-2 code of the BT.601 matrix. Readers that ignore the tag (OpenCV, decord) assume it for this size, so
everyone sees the same colours."""

_EXACT = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP | Interpolation.FULL_CHR_H_INT
"""Chroma as the mean of its four pixels, rounded to nearest; FFmpeg's default costs as much and is off by up to one."""


class VideoWriter:
    """Encodes frames as they come; nothing holds a clip.

    The video is a chain of closed segments of ``settings.segment_seconds``, each by a fresh libx264 encoder with the
    same settings: a segment's frames depend on nothing outside it, so segments may also be made apart. The output is
    yuv420p (BT.601 matrix, BT.709 primaries, sRGB transfer, limited range, all tagged), faststart, with AAC from the
    original recording cut to the last frame's end. The same input gives the same bytes.

    Use it in a ``with`` block: the file appears at ``path`` when the block ends well, and not at all otherwise.

    Attributes:
        frames_written: frames taken so far.
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
        fps: int = FPS,
    ) -> None:
        """Open the output beside ``path``, whose folder must exist.

        Args:
            width, height: of the frames in pixels; even, as yuv420p needs.
            audio: recording for the sound track; ``None`` for a silent video.
            tags: metadata of the file, any keys.

        Raises `InputError` if ``audio`` isn't readable, `ValueError` for an odd or empty size.
        """
        if width < 2 or height < 2 or width % 2 or height % 2:
            raise ValueError(f"expected an even width and height for yuv420p, found {width}x{height}")
        self.frames_written = 0
        self._path, self._shape, self._settings, self._fps = path, (height, width, 3), settings, fps
        self._segment_frames = max(round(settings.segment_seconds * fps), 1)
        self._partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
        self._sound = None if audio is None else Soundtrack(audio, limits)
        # use_metadata_tags keeps keys that MP4 has no field for.
        self._container = av.open(
            str(self._partial.absolute()),
            "w",
            format="mp4",
            container_options={"movflags": "use_metadata_tags+faststart"},
        )
        self._container.metadata.update(tags or {})
        self._stream = self._container.add_stream("libx264", rate=fps)
        self._encoder: Any = self._configure(self._stream.codec_context)
        self._audio_stream = None
        if self._sound is not None:
            self._audio_stream = self._container.add_stream("aac", rate=self._sound.rate)
            self._audio_stream.codec_context.layout = self._sound.layout
            self._audio_stream.codec_context.bit_rate = settings.audio_bitrate

    def write(self, frames: np.ndarray) -> None:
        """Encode uint8 [n, height, width, 3] RGB frames, in order, n >= 0.

        Raises `ValueError` for another shape or type, `InputError` where the recording is damaged.
        """
        shape = ", ".join(map(str, self._shape))
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != self._shape:
            raise ValueError(f"expected uint8 frames [n, {shape}], found {frames.dtype} {list(frames.shape)}")
        with _disk_errors(self._path):
            for rgb in frames:
                if self.frames_written and self.frames_written % self._segment_frames == 0:
                    self._next_segment()
                self._mux(self._encoder.encode(self._yuv(rgb)))
                self.frames_written += 1
                self._write_sound()

    def close(self) -> None:
        """Finish the file and put it at ``path``. Raises `ValueError` if no frame was written."""
        try:
            if not self.frames_written:
                raise ValueError(f"expected at least one frame, found none written to {self._path.name}")
            with _disk_errors(self._path):
                self._mux(self._encoder.encode(None))
                if self._audio_stream is not None:
                    self._container.mux(self._audio_stream.encode(None))
                self._release()
                self._partial.replace(self._path)
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Drop what was written; ``path`` stays as it was."""
        # A disk that is full or gone was reported when it was written to.
        with suppress(av.FFmpegError):
            self._release()
        self._partial.unlink(missing_ok=True)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def _configure(self, encoder: Any) -> Any:
        height, width, _ = self._shape
        encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
        encoder.time_base, encoder.framerate = Fraction(1, self._fps), Fraction(self._fps)
        encoder.color_range, encoder.colorspace = ColorRange.MPEG, _MATRIX_SMPTE170M
        encoder.color_primaries, encoder.color_trc = ColorPrimaries.BT709, ColorTrc.IEC61966_2_1
        encoder.thread_count = self._settings.threads
        encoder.flags |= Flags.global_header
        encoder.options = {"crf": str(self._settings.crf), "preset": self._settings.preset}
        if -(-width // 16) % 16:
            # x264's macroblock tree (vector code, whole groups of 16 macroblocks) gives other results once in some
            # hundred encodes where a row isn't made of such groups: seen at 64, 96, 160, 176, 224 and 320 pixels,
            # never at 256 and 512.
            encoder.options |= {"x264-params": "mbtree=0"}
        return encoder

    def _next_segment(self) -> None:
        self._mux(self._encoder.encode(None))
        self._encoder = self._configure(av.CodecContext.create("libx264", "w"))
        self._encoder.open()
        if self._encoder.extradata != self._stream.codec_context.extradata:
            raise RuntimeError("libx264 gave another header for the same settings; segments can't be joined")

    def _yuv(self, rgb: np.ndarray) -> Any:
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24").reformat(
            format="yuv420p",
            dst_colorspace=Colorspace.ITU601,
            dst_color_range=ColorRange.MPEG,
            interpolation=int(_EXACT),
        )
        frame.pts, frame.time_base = self.frames_written, Fraction(1, self._fps)
        return frame

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            packet.stream = self._stream
            packet.time_base = Fraction(1, self._fps)
        self._container.mux(packets)

    def _write_sound(self) -> None:
        """Bring the sound to the end of the last frame written: the muxer never has to hold back much of either."""
        if self._sound is None or self._audio_stream is None:
            return
        rate = self._sound.rate
        piece = self._sound.read_until(self.frames_written * rate // self._fps, tolerance=rate // self._fps)
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

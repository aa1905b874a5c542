"""H.264: how frames of one size become packets, always in the same way."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.codec.context import Flags
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation

from pipeline.config import VideoSettings
from pipeline.errors import CannotRun

_CODECS = {"libx264": "libx264", "nvenc": "h264_nvenc"}

_NVENC_PRESETS = {
    "ultrafast": "p1",
    "superfast": "p2",
    "veryfast": "p3",
    "faster": "p4",
    "fast": "p4",
    "medium": "p5",
    "slow": "p6",
    "slower": "p7",
}

_MATRIX_SMPTE170M = 6
"""ISO 23091-2 code of the BT.601 matrix. Readers that ignore the tag (OpenCV, decord) assume it for this size, so
everyone sees the same colours."""

_EXACT = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP | Interpolation.FULL_CHR_H_INT
"""Chroma as the mean of its four pixels, rounded to nearest; FFmpeg's default costs as much and is off by up to one."""


@dataclass(frozen=True)
class H264:
    """The format of a video's pictures: yuv420p (BT.601 matrix, BT.709 primaries, sRGB transfer, limited range).

    Encoders made by one format take the same frames to the same packets.
    """

    settings: VideoSettings
    width: int
    height: int
    fps: int

    @property
    def codec(self) -> str:
        """FFmpeg's name of the encoder."""
        return _CODECS[self.settings.encoder]

    def encoder(self) -> Any:
        """A fresh ``av.CodecContext``, open. Raises ``av.FFmpegError`` where it can't be had."""
        encoder = av.CodecContext.create(self.codec, "w")
        self.configure(encoder)
        encoder.open()
        return encoder

    def configure(self, encoder: Any) -> None:
        """Set up an ``av.CodecContext`` that isn't open yet."""
        encoder.width, encoder.height, encoder.pix_fmt = self.width, self.height, "yuv420p"
        encoder.time_base, encoder.framerate = Fraction(1, self.fps), Fraction(self.fps)
        encoder.color_range, encoder.colorspace = ColorRange.MPEG, _MATRIX_SMPTE170M
        encoder.color_primaries, encoder.color_trc = ColorPrimaries.BT709, ColorTrc.IEC61966_2_1
        encoder.flags |= Flags.global_header
        if self.settings.encoder == "nvenc":
            # Without B-frames packets leave in the order of the frames, so that segments join at any length.
            encoder.options = {
                "rc": "constqp",
                "qp": str(self.settings.crf),
                "preset": _NVENC_PRESETS[self.settings.preset],
                "bf": "0",
            }
            return
        encoder.thread_count = self.settings.threads
        encoder.options = {"crf": str(self.settings.crf), "preset": self.settings.preset}
        if -(-self.width // 16) % 16:
            # x264's macroblock tree (vector code, whole groups of 16 macroblocks) gives other results once in some
            # hundred encodes where a row isn't made of such groups: seen at 64, 96, 160, 176, 224 and 320 pixels,
            # never at 256 and 512.
            encoder.options |= {"x264-params": "mbtree=0"}

    def picture(self, rgb: np.ndarray, index: int) -> Any:
        """uint8 [height, width, 3], contiguous -> the ``av.VideoFrame`` to encode as frame ``index``."""
        frame = av.VideoFrame.from_numpy_buffer(rgb, format="rgb24").reformat(
            format="yuv420p",
            dst_colorspace=Colorspace.ITU601,
            dst_color_range=ColorRange.MPEG,
            interpolation=int(_EXACT),
        )
        frame.pts, frame.time_base = index, Fraction(1, self.fps)
        return frame

    def probe(self) -> None:
        """Encode one frame. Raises CannotRun with FFmpeg's words where that fails."""
        level = av.logging.get_level()
        av.logging.set_level(av.logging.ERROR)
        try:
            with av.logging.Capture() as said:
                encoder = self.encoder()
                encoder.encode(self.picture(np.zeros((self.height, self.width, 3), np.uint8), 0))
                encoder.encode(None)
        except (av.FFmpegError, ValueError) as exc:
            # An encoder that this FFmpeg was built without is a ValueError.
            reason = "; ".join(dict.fromkeys(" ".join(text.split()) for _, _, text in said)) or str(exc)
            raise CannotRun(
                f"video.encoder: {self.settings.encoder} doesn't work on {platform.node()}: encoding one "
                f"{self.width}x{self.height} frame with {self.codec} failed: {reason}; use video.encoder: libx264"
            ) from exc
        finally:
            av.logging.set_level(level)

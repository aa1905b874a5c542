"""Encoders: the one that the run wants, and NVENC where there is a GPU, each tried on one frame."""

from __future__ import annotations

from collections.abc import Iterator

import av

from pipeline.doctor.finding import Finding, Request, fail, note, ok
from pipeline.doctor.gpu import driver_version
from pipeline.errors import CannotRun
from pipeline.media.h264 import H264

_SIZE, _FPS = 512, 25
_CODECS = ("libx264", "nvenc")


def check(request: Request) -> Iterator[Finding]:
    wanted = request.settings.video.encoder
    try:
        av.codec.Codec("aac", "w")
    except (av.FFmpegError, ValueError):
        yield fail("this FFmpeg has no AAC encoder", "install av from PyPI, whose FFmpeg has one")
    for encoder in _CODECS:
        if encoder != wanted and (encoder == "libx264" or driver_version() is None):
            continue
        settings = request.settings.video.model_copy(update={"encoder": encoder})
        try:
            H264(settings, _SIZE, _SIZE, _FPS).probe()
        except CannotRun as exc:
            reason = str(exc).removeprefix("video.encoder: ")
            if encoder == wanted:
                yield fail(reason, "libx264 is in the FFmpeg of av from PyPI; nvenc needs a GPU that can encode")
            else:
                yield note(reason, "the run's own encoder is another")
        else:
            yield ok(f"{encoder} encodes ({_SIZE}x{_SIZE}, FFmpeg of av {av.__version__})")

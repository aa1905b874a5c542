"""Measuring a finished video by decoding it, not by trusting its header."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from pipeline.config import InputLimits
from pipeline.errors import InputError
from pipeline.media.probe import audio_stream, decoding, open_container, video_stream


@dataclass(frozen=True)
class VideoMeasure:
    """What is in a video, counted. Times are seconds from the start of the file."""

    frames: int
    width: int
    height: int
    video_end_s: float
    audio_end_s: float | None
    """End of the sound as the container states it, to the sample; ``None`` without sound."""


def measure_video(path: Path, limits: InputLimits) -> VideoMeasure:
    """Decode the pictures and read the sound's packets of ``path``.

    Raises `InputError` if it isn't a video or is damaged.
    """
    with open_container(path, limits) as container, decoding(path):
        video, audio = video_stream(container), audio_stream(container)
        if video is None:
            raise InputError(f"expected a video, found no pictures: {path.name}", hint="give a file with a video track")
        frames, video_end, audio_end = 0, Fraction(0), Fraction(0)
        for packet in container.demux([stream for stream in (video, audio) if stream is not None]):
            if packet.stream is audio:
                if packet.pts is not None:
                    audio_end = max(audio_end, (packet.pts + packet.duration) * packet.time_base)
                continue
            for frame in packet.decode():
                frames += 1
                video_end = max(video_end, (frame.pts + frame.duration) * frame.time_base)
        return VideoMeasure(
            frames=frames,
            width=video.width,
            height=video.height,
            video_end_s=float(video_end),
            audio_end_s=None if audio is None else float(audio_end),
        )

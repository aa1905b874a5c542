"""Small media files made on the spot: pictures, sound and videos with known content, and broken ones."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation
from PIL import Image, ImageDraw, ImageFilter


def smooth_picture(seed: int, width: int = 64, height: int = 48) -> np.ndarray:
    """Colourful smooth noise: uint8 [height, width, 3]."""
    small = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR))


def grey_frame(level: int, width: int = 64, height: int = 48) -> np.ndarray:
    """One level everywhere, so that a frame says which one it is: uint8 [height, width, 3]."""
    return np.full((height, width, 3), level, dtype=np.uint8)


def face_picture(size: int = 256, face: float = 0.6, centre: tuple[float, float] = (0.5, 0.5)) -> np.ndarray:
    """A drawn face that face detectors find: uint8 [size, size, 3].

    ``face`` is the height from hair to chin as a part of the picture, ``centre`` its middle. The chin is half a face's
    height below the middle, the cheeks 0.365 of it to either side.
    """
    fine = 4 * size
    picture = Image.new("RGB", (fine, fine), (96, 120, 150))
    draw = ImageDraw.Draw(picture)
    tall = face * fine
    wide = 0.76 * tall
    x, y = centre[0] * fine, centre[1] * fine
    skin, shade, hair = (224, 180, 154), (204, 158, 134), (60, 42, 32)

    def oval(right: float, down: float, half_width: float, half_height: float, colour: tuple[int, int, int]) -> None:
        cx, cy, rx, ry = x + right * wide, y + down * tall, half_width * wide, half_height * tall
        draw.ellipse([cx - rx, cy - ry, cx + rx, cy + ry], fill=colour)

    draw.rectangle([x - 0.22 * wide, y + 0.3 * tall, x + 0.22 * wide, y + 0.8 * tall], fill=(196, 150, 126))
    oval(0, -0.12, 0.56, 0.5, hair)
    oval(0, 0, 0.48, 0.5, skin)
    oval(0, -0.42, 0.40, 0.16, hair)
    for side in (-1, 1):
        oval(side * 0.21, -0.085, 0.125, 0.052, (170, 120, 100))
        oval(side * 0.21, -0.07, 0.10, 0.034, (246, 244, 240))
        oval(side * 0.21, -0.07, 0.045, 0.034, (50, 34, 26))
        brow = x + (side * 0.21 - 0.12) * wide, y - 0.17 * tall, x + (side * 0.21 + 0.12) * wide, y - 0.14 * tall
        draw.rounded_rectangle(brow, radius=0.015 * tall, fill=hair)
        oval(side * 0.06, 0.115, 0.035, 0.018, (150, 100, 84))
        nose = [(0.03, -0.08), (0.05, -0.08), (0.10, 0.11), (0.08, 0.12)]
        draw.polygon([(x + side * right * wide, y + down * tall) for right, down in nose], fill=shade)
    oval(0, 0.245, 0.17, 0.045, (176, 84, 80))
    draw.rectangle([x - 0.15 * wide, y + 0.241 * tall, x + 0.15 * wide, y + 0.25 * tall], fill=(96, 40, 40))
    picture = picture.filter(ImageFilter.GaussianBlur(0.004 * fine))
    return np.array(picture.resize((size, size), Image.Resampling.LANCZOS))


def sine(rate: int, samples: int, hertz: float = 440.0, level: float = 0.5) -> np.ndarray:
    """float64 [samples]."""
    return level * np.sin(2 * np.pi * hertz * np.arange(samples) / rate)


def write_audio(path: Path, samples: np.ndarray, rate: int, codec: str, sample_format: str | None = None) -> Path:
    """Write float [channels, samples] in -1..1 with an FFmpeg codec; the name's ending chooses the container."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options={"strict": "experimental"})  # for vorbis
        _configure_audio(stream, len(samples), sample_format)
        for packet in _encode_audio(stream, samples, rate):
            container.mux(packet)
    return path


def write_video(
    path: Path,
    frames: Sequence[np.ndarray],
    *,
    times_ms: Sequence[int] | None = None,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    rotation: int = 0,
    audio: np.ndarray | None = None,
    audio_rate: int = 48_000,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Write uint8 [H, W, 3] frames, nearly lossless.

    Args:
        times_ms: when each frame is shown; 40 ms apart by default.
        rotation: degrees counter-clockwise a player turns the pictures by.
        audio: float [channels, samples] for an AAC track.
    """
    height, width, _ = frames[0].shape
    millisecond = Fraction(1, 1000)
    quality = {"crf": "4", "preset": "ultrafast"} if codec == "libx264" else {}
    with av.open(str(path), "w", container_options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=25, options=quality | (options or {}))
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        if times_ms is not None:
            stream.codec_context.time_base = millisecond
        if rotation:
            stream.set_display_rotation(rotation)
        sound = None
        if audio is not None:
            sound = container.add_stream("aac", rate=audio_rate)
            _configure_audio(sound, len(audio), None)
        for index, rgb in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=pixel_format)
            frame.time_base = Fraction(1, 25) if times_ms is None else millisecond
            frame.pts = index if times_ms is None else times_ms[index]
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None and audio is not None:
            for packet in _encode_audio(sound, audio, audio_rate):
                container.mux(packet)
    return path


def cut_file(source: Path, target: Path, keep: float) -> Path:
    """Copy the first ``keep`` part of a file: what an interrupted upload leaves."""
    content = source.read_bytes()
    target.write_bytes(content[: int(len(content) * keep)])
    return target


def read_frames(path: Path, *, exact: bool = False) -> np.ndarray:
    """All frames of a video in order, by PyAV: uint8 [n, H, W, 3].

    FFmpeg's usual conversion to RGB, which readers get, is a level too dark on average; with ``exact`` it rounds.
    """
    rounding = {"interpolation": int(Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT)} if exact else {}
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24", **rounding) for frame in container.decode(video=0)])


def _configure_audio(stream: Any, channels: int, sample_format: str | None) -> None:
    layouts = {1: "mono", 2: "stereo", 6: "5.1"}
    stream.codec_context.layout = layouts[channels]
    stream.codec_context.bit_rate = 128_000
    if sample_format is not None:
        stream.codec_context.format = sample_format


def _encode_audio(stream: Any, samples: np.ndarray, rate: int) -> list[Any]:
    packets: list[Any] = []
    for start in range(0, samples.shape[1], 4096):
        piece = np.ascontiguousarray(samples[:, start : start + 4096], dtype=np.float64)
        frame = av.AudioFrame.from_ndarray(piece, format="dblp", layout=stream.codec_context.layout.name)
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        packets += stream.encode(frame)
    return packets + stream.encode(None)

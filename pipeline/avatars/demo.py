"""Makes the demo's data: three avatars' portraits, a driver video, three speech clips and the manifest that pairs them.

Run as ``python -m pipeline.avatars.demo``; needs espeak-ng (``apt-get install espeak-ng``). The files are kept in
``manifests/``, so a user of the demo never needs this script; it shows where they come from. Avatars, sentences and
voices are none that the demo's model was trained on.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image

import manifests
from imtalker.avatars import STATE_FIELDS, AvatarState, draw_identity, render
from imtalker.avatars.speech.performance import PERFORMANCE_COLUMNS, Performance, perform
from imtalker.avatars.speech.utterance import FPS
from pipeline.avatars.portraits import as_bytes

AAC_RATE = 44_100

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Portrait:
    """An avatar, looking at us with a hint of a smile."""

    identity: int
    size: int

    def picture(self) -> NDArray[np.uint8]:
        state = AvatarState.neutral().replace(mouth_width=0.25, brows=0.1)
        return frames(self.identity, state.values, self.size)[0]


@dataclass(frozen=True)
class Speech:
    voice: str
    text: str
    rate: int = 165

    def performance(self) -> Performance:
        """Raises EspeakError where espeak-ng is missing."""
        return perform(self.text, self.voice, seed=1, rate=self.rate)


PORTRAITS = {"ana.png": Portrait(9, 320), "kofi.jpg": Portrait(2, 256), "mei.webp": Portrait(4, 384)}
ENGLISH = Speech("en-us+f4", "One portrait, one voice, and the picture speaks.", rate=175)
SPANISH = Speech("es+m3", "Una sola voz puede hablar con muchas caras.")
FRENCH = Speech("fr+f4", "La tête suit la vidéo, le son vient d'ailleurs.")
DRIVER = Speech("en-us+m7", "I turn my head, I blink, and they follow me.", rate=150)
DRIVING, DRIVER_SIZE = 3, 256

SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "image", "audio", "driver", "motion_from")),
        ("crop", pa.bool_()),
        *((name, pa.string()) for name in ("language", "title")),
    ]
)
ROWS = (
    ("ana-english", "demo/ana.png", "demo/english.wav", None, None, "en", "Ana speaks English"),
    ("kofi-english", "demo/kofi.jpg", "demo/english.wav", None, None, "en", "Kofi speaks with the same voice"),
    ("mei-english", "demo/mei.webp", "demo/english.wav", None, None, "en", "And so does Mei"),
    ("mei-spanish", "demo/mei.webp", "demo/spanish.flac", None, None, "es", "Mei speaks Spanish"),
    ("kofi-driven", "demo/kofi.jpg", None, "demo/driver.mp4", None, "en", "Kofi follows the driver, sound included"),
    ("ana-driven-french", "demo/ana.png", "demo/french.m4a", "demo/driver.mp4", "driver", "fr",
     "Ana moves with the driver while French is heard"),
)  # fmt: skip


def frames(identity: int, states: torch.Tensor, size: int) -> NDArray[np.uint8]:
    """An avatar, of the world that the demo's model knows, in states [T, 14]: uint8 [T, size, size, 3]."""
    return as_bytes(render(draw_identity(identity, "narrow"), states, size, device="cpu").image)


def encode_speech(
    container: av.container.OutputContainer, stream: av.audio.stream.AudioStream, performance: Performance
) -> None:
    """Encode a whole sound track into a stream of an open container; the codec resamples where it must."""
    utterance = performance.utterance
    frame = av.AudioFrame.from_ndarray(utterance.samples[None], format="s16", layout="mono")
    frame.rate, frame.pts, frame.time_base = utterance.rate, 0, Fraction(1, utterance.rate)
    for packet in (*stream.encode(frame), *stream.encode(None)):
        container.mux(packet)


def write_speech(path: Path, performance: Performance, codec: str, rate: int | None = None) -> None:
    """``rate``: of the file; None for the speech's own."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate or performance.utterance.rate, layout="mono")
        encode_speech(container, stream, performance)


def write_driver(path: Path, performance: Performance) -> None:
    """Write the driver: H.264 yuv420p at 25 frames a second with the voice as AAC."""
    columns = [PERFORMANCE_COLUMNS.index(name) for name in STATE_FIELDS]
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        video = container.add_stream("libx264", rate=FPS, options={"crf": "20", "preset": "slow"})
        video.width = video.height = DRIVER_SIZE
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=AAC_RATE, layout="mono")
        for picture in frames(DRIVING, performance.state[:, columns], DRIVER_SIZE):
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
        encode_speech(container, audio, performance)


def write_manifest(path: Path) -> None:
    """Write the manifest; its URIs are relative to its own folder."""
    # Avatars fill their pictures as a crop does.
    names = [name for name in SCHEMA.names if name != "crop"]
    rows = [dict(zip(names, row, strict=True)) | {"crop": False} for row in ROWS]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path)


def make_demo(folder: Path) -> None:
    """Write ``demo.parquet`` and ``demo/`` with its media into a folder.

    Raises EspeakError where espeak-ng is missing.
    """
    media = folder / "demo"
    media.mkdir(parents=True, exist_ok=True)
    pictures = {name: Image.fromarray(portrait.picture()) for name, portrait in PORTRAITS.items()}
    pictures["ana.png"].save(media / "ana.png", optimize=True)
    pictures["kofi.jpg"].save(media / "kofi.jpg", quality=92)
    pictures["mei.webp"].save(media / "mei.webp", quality=92, method=6)
    write_speech(media / "english.wav", ENGLISH.performance(), "pcm_s16le")
    write_speech(media / "spanish.flac", SPANISH.performance(), "flac")
    write_speech(media / "french.m4a", FRENCH.performance(), "aac", AAC_RATE)
    write_driver(media / "driver.mp4", DRIVER.performance())
    write_manifest(folder / "demo.parquet")
    logger.info("wrote %s and %s", folder / "demo.parquet", media)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    make_demo(Path(manifests.__file__).parent)

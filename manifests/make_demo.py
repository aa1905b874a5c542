"""Makes the demo's data: three drawn portraits, a driver video, three speech clips and the manifest that pairs them.

Run as ``python -m manifests.make_demo``. The files are kept in the repository, so a user of the demo never needs this
script; it shows where they come from. It is the one place that calls the program ``espeak-ng``
(``apt-get install espeak-ng``).
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from manifests.demo_people import Person, Pose, draw

FPS = 25
SPEECH_RATE = 22_050  # espeak-ng's own
AAC_RATE = 44_100
Samples = NDArray[np.int16]  # mono at SPEECH_RATE

logger = logging.getLogger(__name__)

ANA = Person(
    size=(320, 384), unit=117, style="long", cheeks=0.72, jaw=0.55, nose=0.85, brow=0.028, lashes=0.022,
    skin=(0.93, 0.74, 0.62), hair=(0.40, 0.20, 0.11), iris=(0.30, 0.47, 0.36), lips=(0.78, 0.36, 0.36),
    cloth=(0.17, 0.42, 0.46), backdrop=((0.94, 0.87, 0.78), (0.83, 0.70, 0.60)),
)  # fmt: skip
KOFI = Person(
    size=(384, 300), unit=94, style="short", cheeks=0.74, jaw=0.60, nose=1.05, brow=0.036, lashes=0.012, beard=0.6,
    skin=(0.55, 0.36, 0.25), hair=(0.15, 0.12, 0.11), iris=(0.26, 0.15, 0.09), lips=(0.52, 0.28, 0.25),
    cloth=(0.88, 0.66, 0.24), backdrop=((0.62, 0.76, 0.80), (0.40, 0.57, 0.64)),
)  # fmt: skip
MEI = Person(
    size=(320, 320), unit=100, style="fringe", cheeks=0.73, jaw=0.53, nose=0.85, brow=0.026, lashes=0.022,
    skin=(0.95, 0.79, 0.67), hair=(0.16, 0.14, 0.18), iris=(0.25, 0.16, 0.11), lips=(0.80, 0.40, 0.42),
    cloth=(0.62, 0.27, 0.36), backdrop=((0.80, 0.83, 0.92), (0.58, 0.62, 0.78)),
)  # fmt: skip
LEO = Person(
    size=(256, 256), unit=82, style="short", cheeks=0.72, jaw=0.58, nose=1.0, brow=0.032, lashes=0.012,
    skin=(0.90, 0.69, 0.57), hair=(0.27, 0.18, 0.12), iris=(0.28, 0.42, 0.58), lips=(0.72, 0.42, 0.39),
    cloth=(0.24, 0.30, 0.46), backdrop=((0.85, 0.89, 0.83), (0.66, 0.74, 0.66)),
)  # fmt: skip


@dataclass(frozen=True)
class Speech:
    """A sentence and the espeak-ng voice that says it, at a speed in words a minute."""

    voice: str
    text: str
    speed: int = 165


ENGLISH = Speech("en-gb+f2", "One portrait, one voice, and the picture speaks.", speed=180)
SPANISH = Speech("es+f4", "Una sola voz puede hablar con muchas caras.")
FRENCH = Speech("fr-fr+f3", "La tête suit la vidéo, le son vient d'ailleurs.")
DRIVER = Speech("en-us+m3", "I turn my head, I blink, and they follow me.", speed=150)

SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("id", "image", "audio", "driver", "motion_from", "language", "title")]
)
ROWS = (
    ("ana-english", "demo/ana.png", "demo/english.wav", None, None, "en", "Ana speaks English"),
    ("kofi-english", "demo/kofi.jpg", "demo/english.wav", None, None, "en", "Kofi speaks with the same voice"),
    ("mei-spanish", "demo/mei.webp", "demo/spanish.flac", None, None, "es", "Mei speaks Spanish"),
    ("kofi-driven", "demo/kofi.jpg", None, "demo/driver.mp4", None, "en", "Kofi follows the driver, sound included"),
    ("mei-driven-french", "demo/mei.webp", "demo/french.m4a", "demo/driver.mp4", "driver", "fr",
     "Mei moves with the driver while French is heard"),
)  # fmt: skip


def synthesise(speech: Speech) -> Samples:
    """Speak a sentence: int16 [N] at SPEECH_RATE.

    Raises:
        FileNotFoundError: espeak-ng is not installed.
        subprocess.CalledProcessError: espeak-ng refused the voice or the text.
    """
    program = shutil.which("espeak-ng")
    if program is None:
        raise FileNotFoundError("espeak-ng is needed to make the demo's speech: apt-get install espeak-ng")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        command = [program, "-v", speech.voice, "-s", str(speech.speed), "-w", str(path), speech.text]
        subprocess.run(command, check=True, capture_output=True, timeout=60)  # noqa: S603 (our own constants)
        with av.open(str(path)) as container:
            samples = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    loud = np.flatnonzero(np.abs(samples) > 200)
    return samples[: loud[-1] + SPEECH_RATE // 10]  # espeak-ng ends with a long silence


def encode_speech(
    container: av.container.OutputContainer, stream: av.audio.stream.AudioStream, samples: Samples
) -> None:
    """Encode a whole sound track into a stream of an open container; the codec resamples where it must."""
    frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
    frame.rate, frame.pts, frame.time_base = SPEECH_RATE, 0, Fraction(1, SPEECH_RATE)
    for packet in (*stream.encode(frame), *stream.encode(None)):
        container.mux(packet)


def write_speech(path: Path, samples: Samples, codec: str, rate: int = SPEECH_RATE) -> None:
    with av.open(str(path), "w") as container:
        encode_speech(container, container.add_stream(codec, rate=rate, layout="mono"), samples)


def loudness(samples: Samples) -> NDArray[np.float64]:
    """How far the mouth opens in each frame, in 0..1: float64 [ceil(N x 25 / SPEECH_RATE)], smoothed."""
    frames = -(-len(samples) * FPS // SPEECH_RATE)
    padded = np.zeros(frames * SPEECH_RATE // FPS)
    padded[: len(samples)] = samples
    rms = np.sqrt((padded.reshape(frames, -1) ** 2).mean(axis=1))
    return np.convolve(np.clip(rms / np.percentile(rms, 95), 0, 1), (0.25, 0.5, 0.25), mode="same")


def driver_poses(samples: Samples) -> list[Pose]:
    """A slow turn to both sides with a nod, two blinks, and a mouth that follows the voice."""
    opening = loudness(samples)
    phase = np.linspace(0, 2 * np.pi, len(opening))
    # A blink takes five frames: shut in the middle, half open beside it.
    blinks = np.min(
        [np.clip(np.abs(np.arange(len(opening)) - at * len(opening)) / 3, 0, 1) for at in (0.3, 0.72)], axis=0
    )
    return [
        Pose(yaw=0.2 * np.sin(angle), pitch=0.05 * np.sin(2 * angle), eyes=float(eyes), mouth=0.75 * float(mouth))
        for angle, eyes, mouth in zip(phase, blinks, opening, strict=True)
    ]


def write_driver(path: Path, person: Person, samples: Samples) -> None:
    """Write the driver: H.264 yuv420p at 25 frames a second with the voice as AAC."""
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        video = container.add_stream("libx264", rate=FPS, options={"crf": "20", "preset": "slow"})
        video.width, video.height = person.size
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=AAC_RATE, layout="mono")
        for pose in driver_poses(samples):
            container.mux(video.encode(av.VideoFrame.from_ndarray(draw(person, pose), format="rgb24")))
        container.mux(video.encode(None))
        encode_speech(container, audio, samples)


def write_manifest(path: Path) -> None:
    """Write the manifest; its URIs are relative to its own folder."""
    rows = [dict(zip(SCHEMA.names, row, strict=True)) for row in ROWS]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path)


def make_demo(folder: Path) -> None:
    """Write ``demo.parquet`` and ``demo/`` with its media into a folder.

    Raises:
        FileNotFoundError: espeak-ng is not installed.
    """
    media = folder / "demo"
    media.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw(ANA, Pose())).save(media / "ana.png", optimize=True)
    Image.fromarray(draw(KOFI, Pose())).save(media / "kofi.jpg", quality=92)
    Image.fromarray(draw(MEI, Pose())).save(media / "mei.webp", quality=92, method=6)
    write_speech(media / "english.wav", synthesise(ENGLISH), "pcm_s16le")
    write_speech(media / "spanish.flac", synthesise(SPANISH), "flac")
    write_speech(media / "french.m4a", synthesise(FRENCH), "aac", AAC_RATE)
    write_driver(media / "driver.mp4", LEO, synthesise(DRIVER))
    write_manifest(folder / "demo.parquet")
    logger.info("wrote %s and %s", folder / "demo.parquet", media)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    make_demo(Path(__file__).parent)

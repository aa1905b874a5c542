"""The demo's data: every file opens, the default face detector finds each face, and the whole stays small."""

from __future__ import annotations

from pathlib import Path

import av
import dlib
import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

import manifests
from imtalker.avatars.speech.utterance import FPS
from imtalker.training.avatar_pictures import HELD_OUT_IDENTITIES
from manifests.reader import read_manifest
from pipeline.avatars.demo import DRIVER_SIZE, DRIVING, PORTRAITS, Portrait, write_manifest

FOLDER = Path(manifests.__file__).parent
MEDIA = FOLDER / "demo"
SPEECH = {"english.wav": "pcm_s16le", "spanish.flac": "flac", "french.m4a": "aac"}


def faces(picture: NDArray[np.uint8]) -> list[dlib.rectangle]:
    return list(dlib.get_frontal_face_detector()(picture, 0))


def seconds(path: Path) -> float:
    with av.open(str(path)) as container:
        return sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))


@pytest.mark.parametrize(("name", "portrait"), PORTRAITS.items())
def test_a_portrait_shows_one_face_and_is_what_the_script_draws(name: str, portrait: Portrait) -> None:
    with Image.open(MEDIA / name) as image:
        picture = np.asarray(image.convert("RGB"))
    assert picture.shape == (portrait.size, portrait.size, 3)
    (face,) = faces(picture)
    assert face.width() > 0.3 * portrait.size
    # Lossless PNG leaves only rounding to the machine; JPEG and WebP add their own loss.
    tolerance = 0.1 if name.endswith(".png") else 3.0
    assert np.abs(portrait.picture().astype(int) - picture).mean() < tolerance


def test_nobody_in_the_demo_is_trained_on() -> None:
    seeds = [DRIVING, *(portrait.identity for portrait in PORTRAITS.values())]
    assert len(set(seeds)) == 4
    assert max(seeds) < HELD_OUT_IDENTITIES


def test_portraits_have_several_formats() -> None:
    formats = set()
    for name in PORTRAITS:
        with Image.open(MEDIA / name) as image:
            formats.add(image.format)
    assert formats == {"PNG", "JPEG", "WEBP"}


@pytest.mark.parametrize(("name", "codec"), SPEECH.items())
def test_speech_opens_and_is_loud_enough(name: str, codec: str) -> None:
    with av.open(str(MEDIA / name)) as container:
        assert container.streams.audio[0].codec_context.name == codec
        to_float = av.AudioResampler(format="flt", layout="mono")
        frames = [out for frame in container.decode(audio=0) for out in to_float.resample(frame)]
    samples = np.concatenate([frame.to_ndarray()[0] for frame in frames])
    assert 0.1 < np.abs(samples).max() <= 1
    assert 2 <= seconds(MEDIA / name) <= 4


def test_the_driver_shows_one_face_in_every_sampled_frame_and_has_its_sound() -> None:
    with av.open(str(MEDIA / "driver.mp4")) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, audio.codec_context.name) == ("h264", "aac")
        assert (video.width, video.height) == (DRIVER_SIZE, DRIVER_SIZE)
        assert video.average_rate == FPS
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert [len(faces(frame)) for frame in frames[::15]] == [1] * len(frames[::15])
    assert abs(len(frames) / FPS - seconds(MEDIA / "driver.mp4")) < 2 / FPS


def test_the_manifest_is_valid_and_its_files_are_there() -> None:
    manifest = read_manifest(str(FOLDER / "demo.parquet"))
    assert [row.problem for row in manifest.rows] == [None] * 6
    assert manifest.extra.column_names == ["title"]
    table = pq.read_table(FOLDER / "demo.parquet")
    for column in ("image", "audio", "driver"):
        for uri in filter(None, table[column].to_pylist()):
            assert not Path(uri).is_absolute()
            assert (FOLDER / uri).is_file()


def test_the_manifest_is_what_the_script_writes(tmp_path: Path) -> None:
    write_manifest(tmp_path / "demo.parquet")
    assert pq.read_table(tmp_path / "demo.parquet").equals(pq.read_table(FOLDER / "demo.parquet"))


def test_the_demo_covers_the_modes_and_is_short_and_small() -> None:
    rows = pq.read_table(FOLDER / "demo.parquet").to_pylist()
    modes = {(row["audio"] is not None, row["driver"] is not None, row["motion_from"]) for row in rows}
    assert modes == {(True, False, None), (False, True, None), (True, True, "driver")}
    audios = [row["audio"] for row in rows]
    assert any(len({row["image"] for row in rows if row["audio"] == audio}) > 1 for audio in filter(None, audios))
    total = sum(min(seconds(FOLDER / row[key]) for key in ("audio", "driver") if row[key]) for row in rows)
    assert total < 24
    files = [FOLDER / "demo.parquet", *MEDIA.iterdir()]
    assert sum(path.stat().st_size for path in files) < 1_500_000

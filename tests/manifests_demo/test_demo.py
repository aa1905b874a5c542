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
from manifests.demo_people import Person, Pose, draw, ellipse, merge
from manifests.make_demo import ANA, FPS, KOFI, LEO, MEI, SPEECH_RATE, driver_poses, loudness, write_manifest
from manifests.reader import read_manifest

FOLDER = Path(manifests.__file__).parent
MEDIA = FOLDER / "demo"
PORTRAITS = {"ana.png": ANA, "kofi.jpg": KOFI, "mei.webp": MEI}
SPEECH = {"english.wav": "pcm_s16le", "spanish.flac": "flac", "french.m4a": "aac"}


def faces(picture: NDArray[np.uint8]) -> list[dlib.rectangle]:
    return list(dlib.get_frontal_face_detector()(picture, 0))


def seconds(path: Path) -> float:
    with av.open(str(path)) as container:
        return sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))


@pytest.mark.parametrize(("name", "person"), PORTRAITS.items())
def test_a_portrait_shows_one_face_and_is_what_the_script_draws(name: str, person: Person) -> None:
    with Image.open(MEDIA / name) as image:
        picture = np.asarray(image.convert("RGB"))
    assert picture.shape == (person.size[1], person.size[0], 3)
    (face,) = faces(picture)
    assert face.width() > 0.3 * person.size[0]
    drawn = draw(person, Pose())
    # Lossless PNG leaves only the last bit of the sines to the machine; JPEG and WebP add their own loss.
    tolerance = 0.1 if name.endswith(".png") else 3.0
    assert np.abs(drawn.astype(int) - picture).mean() < tolerance


def test_portraits_show_several_formats_and_shapes() -> None:
    shapes = set()
    formats = set()
    for name in PORTRAITS:
        with Image.open(MEDIA / name) as image:
            formats.add(image.format)
            shapes.add(np.sign(image.width - image.height))
    assert formats == {"PNG", "JPEG", "WEBP"}
    assert shapes == {-1, 0, 1}


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
        assert (video.width, video.height) == LEO.size
        assert video.average_rate == FPS
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert [len(faces(frame)) for frame in frames[::15]] == [1] * len(frames[::15])
    assert abs(len(frames) / FPS - seconds(MEDIA / "driver.mp4")) < 2 / FPS


def test_the_driver_moves() -> None:
    poses = driver_poses((10_000 * np.sin(np.arange(3 * SPEECH_RATE))).astype(np.int16))
    assert len(poses) == 3 * FPS
    assert max(pose.yaw for pose in poses) > 0.15 > -0.15 > min(pose.yaw for pose in poses)
    assert min(pose.eyes for pose in poses) < 0.2
    assert max(pose.mouth for pose in poses) > 0.7


def test_the_manifest_is_valid_and_its_files_are_there() -> None:
    manifest = read_manifest(str(FOLDER / "demo.parquet"))
    assert [row.problem for row in manifest.rows] == [None] * 5
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
    assert total < 16
    files = [FOLDER / "demo.parquet", *MEDIA.iterdir()]
    assert sum(path.stat().st_size for path in files) < 1_500_000


def test_an_ellipse_with_equal_radii_has_the_exact_distance_of_a_circle() -> None:
    x, y = np.meshgrid(np.linspace(-3, 3, 13), np.linspace(-3, 3, 13))
    expected = np.hypot(x - 0.5, y + 0.25) - 0.7
    np.testing.assert_allclose(ellipse(x, y, (0.5, -0.25), (0.7, 0.7)), expected, atol=1e-4)


def test_merged_shapes_meet_the_union_away_from_the_seam_and_grow_at_it() -> None:
    a, b = np.array([-1.0, 2.0, 0.0]), np.array([1.0, -0.5, 0.0])
    np.testing.assert_allclose(merge(a, b, 0.2), [-1.0, -0.5, -0.05])


def test_the_mouth_follows_the_loudness() -> None:
    tone = 10_000 * np.sin(2 * np.pi * 500 * np.arange(SPEECH_RATE) / SPEECH_RATE)
    tone[SPEECH_RATE // 2 :] = 0
    opening = loudness(tone.astype(np.int16))
    assert len(opening) == FPS
    np.testing.assert_allclose(opening[1:10], 1, atol=1e-2)
    np.testing.assert_allclose(opening[15:], 0, atol=1e-2)

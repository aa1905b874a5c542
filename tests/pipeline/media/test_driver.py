from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import InputLimits
from pipeline.errors import InputError
from pipeline.media.driver import DriverReader, sample_frames
from pipeline.media.image import resize_square
from pipeline.media.timeline import Timeline, ticks_within
from pipeline.media.video import open_pictures
from tests.media_files import cut_file, grey_frame, read_frames, sine, smooth_picture, write_audio, write_video

LIMITS = InputLimits()


def read(path: Path, size: int = 32, **options: object) -> tuple[DriverReader, np.ndarray]:
    reader = DriverReader(path, size, LIMITS, **options)  # type: ignore[arg-type]
    frames = np.concatenate(list(reader))
    assert reader.frames == len(frames)
    return reader, frames


def levels(frames: np.ndarray) -> list[int]:
    """Which grey frame each one is, when their levels are 10 apart."""
    return [round(float(frame.mean()) / 10) for frame in frames]


def shown(times_ms: list[int], ticks: int) -> list[int]:
    """By the definition: the last frame that starts at or before t / 25 s, or the first one."""
    return [max((i for i, ms in enumerate(times_ms) if ms <= 40 * t), default=0) for t in range(ticks)]


@pytest.mark.parametrize("decoder", [None, "pyav"])
@pytest.mark.parametrize("ending", ["mp4", "mkv"])
@pytest.mark.parametrize(
    "times_ms",
    [
        pytest.param([40 * i for i in range(20)], id="25 a second"),
        pytest.param([20 * i for i in range(24)], id="50 a second"),
        pytest.param([round(1000 * i / 30) for i in range(24)], id="30 a second"),
        pytest.param([round(1001 * i / 24) for i in range(24)], id="23.976 a second"),
        pytest.param([100 * i for i in range(10)], id="10 a second"),
        pytest.param([0, 30, 100, 110, 300, 340, 500, 900], id="variable"),
    ],
)
def test_frames_are_taken_by_time_stamp(tmp_path: Path, times_ms: list[int], ending: str, decoder: str | None) -> None:
    path = write_video(tmp_path / f"a.{ending}", [grey_frame(10 * i) for i in range(len(times_ms))], times_ms=times_ms)
    reader, frames = read(path, decoder=decoder)
    assert reader.decoder == (decoder or "decord")
    assert levels(frames) == shown(times_ms, len(frames))
    # The last frame lasts as long as its container says, which is about one frame.
    assert len(frames) * 40 == pytest.approx(times_ms[-1] + np.diff(times_ms).mean(), abs=110)


def test_twenty_five_a_second_gives_every_frame_once(tmp_path: Path) -> None:
    pictures = [smooth_picture(i, 32, 32) for i in range(70)]
    path = write_video(tmp_path / "a.mp4", pictures, options={"preset": "medium"})  # with B-frames
    _, frames = read(path)
    assert np.array_equal(frames, read_frames(path))
    assert len(frames) == 70


def test_pictures_that_start_after_the_sound_stay_in_step(tmp_path: Path) -> None:
    """The first picture, due at 0.2 s, is held from 0 s on."""
    times_ms = [200 + 40 * i for i in range(10)]
    frames = [grey_frame(10 * i) for i in range(10)]
    path = write_video(tmp_path / "a.mkv", frames, times_ms=times_ms, audio=sine(48_000, 28_800)[None])
    for decoder in (None, "pyav"):
        assert levels(read(path, decoder=decoder)[1]) == [0] * 5 + list(range(10))


@pytest.mark.parametrize(
    ("name", "options", "decoder"),
    [
        ("a.mp4", {}, "decord"),
        ("b.mp4", {"options": {"preset": "slow"}}, "decord"),
        ("a.mkv", {}, "decord"),
        ("a.avi", {"codec": "mpeg4"}, "pyav"),
        ("b.avi", {"options": {"preset": "medium"}}, "pyav"),
        ("a.webm", {"codec": "libvpx-vp9"}, "decord"),
        ("444.mp4", {"pixel_format": "yuv444p"}, "decord"),
        ("422.mp4", {"pixel_format": "yuv422p"}, "decord"),
        ("10bit.mp4", {"pixel_format": "yuv420p10le"}, "pyav"),
        ("a.ts", {}, "pyav"),
        ("a.mov", {"codec": "prores_ks", "pixel_format": "yuv422p10le"}, "pyav"),
        ("fragments.mp4", {"container_options": {"movflags": "frag_keyframe+empty_moov"}}, "decord"),
    ],
)
def test_both_decoders_give_the_same_frames(tmp_path: Path, name: str, options: dict, decoder: str) -> None:
    path = write_video(tmp_path / name, [smooth_picture(i, 70, 54) for i in range(40)], **options)
    reader, frames = read(path)
    assert reader.decoder == decoder
    plain, by_pyav = read(path, decoder="pyav")
    assert plain.decoder == "pyav"
    assert len(frames) == 40
    assert np.array_equal(frames, by_pyav)


def test_without_decord_pyav_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", [smooth_picture(i) for i in range(30)])
    _, expected = read(path)
    monkeypatch.setitem(sys.modules, "decord", None)  # as where it has no wheels
    reader, frames = read(path)
    assert reader.decoder == "pyav"
    assert np.array_equal(frames, expected)


def test_pyav_goes_on_where_decord_gives_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import decord

    path = write_video(tmp_path / "a.mp4", [smooth_picture(i) for i in range(80)])
    _, expected = read(path)
    get_batch = decord.VideoReader.get_batch

    def gives_up(self: object, indices: list[int]) -> object:
        if max(indices) > 10:
            raise decord.DECORDError("the frame is corrupt")
        return get_batch(self, indices)

    monkeypatch.setattr(decord.VideoReader, "get_batch", gives_up)
    monkeypatch.setattr("pipeline.media.video._BATCH_BYTES", 64 * 48 * 3 * 5)
    reader, frames = read(path)
    assert reader.decoder == "pyav"
    assert np.array_equal(frames, expected)


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_is_obeyed(tmp_path: Path, rotation: int) -> None:
    picture = grey_frame(20)
    picture[:24, :32] = 220  # top left
    path = write_video(tmp_path / "a.mp4", [picture] * 3, rotation=rotation)
    turned = np.rot90(picture, rotation // 90)
    (first, *_) = list(sample_frames(path, LIMITS, every=1))
    assert first.shape == turned.shape
    np.testing.assert_allclose(first.astype(int), turned, atol=12)
    np.testing.assert_allclose(read(path)[1][0].astype(int), resize_square(turned.copy(), 32), atol=12)


def test_frames_are_scaled_as_pictures_are(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", [smooth_picture(i, 96, 54) for i in range(3)])
    assert np.array_equal(read(path, 40)[1], np.stack([resize_square(frame, 40) for frame in read_frames(path)]))


@pytest.mark.parametrize("window", [1, 7, 100])
def test_windows_are_full_but_for_the_last(tmp_path: Path, window: int) -> None:
    path = write_video(tmp_path / "a.mp4", [grey_frame(i) for i in range(30)])
    sizes = [len(frames) for frames in DriverReader(path, 16, LIMITS, window=window)]
    assert sizes[:-1] == [window] * (len(sizes) - 1)
    assert sum(sizes) == 30 and 0 < sizes[-1] <= window


@pytest.mark.parametrize("seconds", [0.04, 0.5, 0.999, 10.0])
def test_max_seconds_cuts_as_audio_of_that_length_is_cut(tmp_path: Path, seconds: float) -> None:
    path = write_video(tmp_path / "a.mp4", [grey_frame(5 * i) for i in range(50)])
    whole = read(path)[1]
    part = read(path, max_seconds=seconds)[1]
    assert len(part) == min(-(-round(seconds * 16_000) * 25 // 16_000), 50)
    assert np.array_equal(part, whole[: len(part)])


@pytest.mark.parametrize("every", [7, 10, 100])
def test_every_nth_frame_is_that_of_the_whole(tmp_path: Path, every: int) -> None:
    path = write_video(tmp_path / "a.mp4", [grey_frame(5 * i) for i in range(50)])
    assert np.array_equal(read(path, every=every)[1], read(path)[1][::every])


def test_a_reader_can_be_read_twice(tmp_path: Path) -> None:
    reader = DriverReader(write_video(tmp_path / "a.mp4", [grey_frame(i) for i in range(9)]), 16, LIMITS)
    assert np.array_equal(np.concatenate(list(reader)), np.concatenate(list(reader)))


def test_sample_frames_gives_every_fifteenth_frame_at_full_size(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", [smooth_picture(i, 70, 54) for i in range(46)])
    samples = np.stack(list(sample_frames(path, LIMITS)))
    assert np.array_equal(samples, read_frames(path)[::15])


def test_only_few_full_size_frames_are_held(tmp_path: Path) -> None:
    """A batch is chosen by its bytes: 4 frames of the 100 at this size."""
    frame = np.zeros((1080, 1920, 3), np.uint8)
    path = write_video(tmp_path / "a.mp4", [frame] * 12)
    pictures = list(open_pictures(path, LIMITS).at(0, 1, None))
    bases = {id(picture.base): picture.base.nbytes for _, picture in pictures if picture.base is not None}
    assert bases and max(bases.values()) <= 32_000_000


def test_a_cut_off_video_is_an_input_error(tmp_path: Path) -> None:
    frames = [smooth_picture(i) for i in range(100)]
    whole = write_video(tmp_path / "whole.mp4", frames, container_options={"movflags": "faststart"})
    for keep in (0.3, 0.7):
        with pytest.raises(InputError, match=r"cut\.mp4"):
            read(cut_file(whole, tmp_path / "cut.mp4", keep))


@pytest.mark.parametrize("content", [b"", b"\x00" * 5000, b"no video at all\n" * 100])
def test_what_is_not_a_video_is_an_input_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(InputError):
        read(path)


def test_sound_alone_is_not_a_driver(tmp_path: Path) -> None:
    path = write_audio(tmp_path / "a.m4a", sine(48_000, 48_000)[None], 48_000, "aac")
    with pytest.raises(InputError, match="no pictures"):
        DriverReader(path, 32, LIMITS)


def test_a_longer_video_than_the_limit_is_an_input_error_unless_it_is_cut(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", [grey_frame(i) for i in range(50)])
    limits = InputLimits(max_media_seconds=1.0)
    with pytest.raises(InputError, match="at most 1 s"):
        list(DriverReader(path, 16, limits))
    assert sum(map(len, DriverReader(path, 16, limits, max_seconds=0.8))) == 20


def test_a_gap_of_hours_is_not_filled_for_ever(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", [grey_frame(0), grey_frame(50)], times_ms=[0, 10**9])
    with pytest.raises(InputError, match="expected at most"):
        list(DriverReader(path, 16, LIMITS))


def test_time_stamps_rounded_to_the_time_base_are_not_late() -> None:
    """30000/1001 frames a second in milliseconds: frame 6 is due at 200.2 ms, so tick 5 still shows frame 5."""
    timeline = Timeline(Fraction(1, 1000), Fraction(0))
    assert timeline.first_tick(200) == 5
    assert timeline.first_tick(201) == 6
    # Of a frame due at 40 ms, written by a clock of 90 kHz that rounds up.
    assert Timeline(Fraction(1, 90_000), Fraction(0)).first_tick(3600) == 1
    assert Timeline(Fraction(1, 90_000), Fraction(7, 5)).first_tick(126_000 + 3600) == 1


def test_ticks_within_counts_as_audio_does() -> None:
    assert [ticks_within(s) for s in (1.0, 0.04, 0.0401, 0.00001)] == [25, 1, 2, 1]

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import soxr

from pipeline.config import InputLimits
from pipeline.errors import InputError
from pipeline.media.audio import decode_mono_16k
from tests.media_files import cut_file, grey_frame, sine, write_audio, write_video

LIMITS = InputLimits()

FORMATS = [
    # ending, codec, sample format, largest root mean square error
    ("wav", "pcm_u8", None, 5e-3),
    ("wav", "pcm_s16le", None, 2e-5),
    ("wav", "pcm_s24le", None, 1e-6),
    ("wav", "pcm_s32le", None, 1e-6),
    ("wav", "pcm_f32le", None, 1e-6),
    ("wav", "pcm_f64le", None, 1e-6),
    ("wav", "pcm_mulaw", None, 1e-2),
    ("flac", "flac", "s16", 2e-5),
    ("mp3", "libmp3lame", "fltp", 2e-2),  # LAME lowers the level by 5%
    ("m4a", "aac", "fltp", 2e-2),
    ("ogg", "vorbis", "fltp", 2e-2),
]
EXACT_LENGTH = ("wav", "flac")
"""The others work in blocks, and may keep the last one whole."""


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


@pytest.mark.parametrize("rate", [8000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize(("ending", "codec", "sample_format", "error"), FORMATS, ids=[f[1] for f in FORMATS])
def test_a_sine_keeps_frequency_level_and_length(
    tmp_path: Path, ending: str, codec: str, sample_format: str | None, error: float, rate: int
) -> None:
    """Left 0.5, right 0.25: the mean has level 0.375."""
    count = rate + 7
    stereo = np.stack([sine(rate, count, level=0.5), sine(rate, count, level=0.25)])
    samples = decode_mono_16k(write_audio(tmp_path / f"a.{ending}", stereo, rate, codec, sample_format), LIMITS)
    assert samples.dtype == np.float32
    expected = -(-count * 16_000 // rate)
    if ending in EXACT_LENGTH:
        assert len(samples) == expected
    else:
        assert 0 <= len(samples) - expected <= 1152 * 16_000 / rate + 1
    middle = slice(800, expected - 800)  # one sample early or late would be an error of 0.046
    assert rms(samples[middle] - sine(16_000, expected, level=0.375)[middle]) < error


def test_opus_is_read(tmp_path: Path) -> None:
    path = write_audio(tmp_path / "a.ogg", sine(48_000, 48_000)[None], 48_000, "libopus")
    samples = decode_mono_16k(path, LIMITS)
    assert rms(samples[800:15_000] - sine(16_000, 16_000)[800:15_000]) < 2e-2


def test_resampling_in_pieces_equals_the_published_resampling_at_once(tmp_path: Path) -> None:
    """librosa's load: ``soxr.resample``, then a zero at the end where that is shorter than ceil(n * 16000 / rate)."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 100_003)).astype(np.float32)
    path = write_audio(tmp_path / "a.wav", noise, 44_100, "pcm_f32le")
    samples = decode_mono_16k(path, LIMITS)
    at_once = soxr.resample(noise[0], 44_100, 16_000, quality="HQ")
    assert (len(at_once), len(samples)) == (36_282, 36_283)
    np.testing.assert_allclose(samples, np.append(at_once, 0), atol=1e-7)


def test_sixteen_kilohertz_samples_pass_unchanged(tmp_path: Path) -> None:
    """An int16 sample v becomes v / 32768 exactly."""
    values = np.array([-32768, -1, 0, 1, 32767] * 100)
    path = write_audio(tmp_path / "a.wav", values[None] / 32768, 16_000, "pcm_s16le")
    assert np.array_equal(decode_mono_16k(path, LIMITS) * 32768, values)


def test_six_channels_are_averaged(tmp_path: Path) -> None:
    levels = np.array([0.1, 0.2, 0.3, 0.0, 0.5, 0.1])
    path = write_audio(tmp_path / "a.wav", np.repeat(levels[:, None], 4000, axis=1), 16_000, "pcm_f32le")
    np.testing.assert_allclose(decode_mono_16k(path, LIMITS), levels.mean(), atol=1e-7)


def test_max_seconds_gives_the_start_of_the_whole(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, (1, 132_300))
    path = write_audio(tmp_path / "a.wav", noise, 44_100, "pcm_f32le")
    whole = decode_mono_16k(path, LIMITS)
    for seconds in (0.5, 1.2345, 2.999, 5.0):
        part = decode_mono_16k(path, LIMITS, seconds)
        assert len(part) == min(round(seconds * 16_000), len(whole))
        assert np.array_equal(part, whole[: len(part)])


def test_silence_is_fine(tmp_path: Path) -> None:
    samples = decode_mono_16k(write_audio(tmp_path / "a.wav", np.zeros((1, 8000)), 16_000, "pcm_u8"), LIMITS)
    assert len(samples) == 8000 and not samples.any()


def test_one_sample_is_fine(tmp_path: Path) -> None:
    path = write_audio(tmp_path / "a.wav", np.full((1, 1), 0.5), 48_000, "pcm_s16le")
    assert len(decode_mono_16k(path, LIMITS)) == 1


def test_a_video_gives_its_sound_track(tmp_path: Path) -> None:
    frames = [grey_frame(100)] * 25
    path = write_video(tmp_path / "a.mp4", frames, audio=sine(44_100, 44_100)[None], audio_rate=44_100)
    samples = decode_mono_16k(path, LIMITS)
    assert abs(len(samples) - 16_000) <= 1024 * 16_000 / 44_100 + 1
    assert rms(samples[800:15_000] - sine(16_000, 16_000)[800:15_000]) < 2e-2


def test_sound_that_starts_after_the_pictures_stays_in_step(tmp_path: Path) -> None:
    """Half a second of nothing, then a constant tone: the onset is found where the pictures have it."""
    import av  # the container is written by hand, to shift the sound

    early = write_video(tmp_path / "a.mkv", [grey_frame(100)] * 25, audio=sine(48_000, 48_000)[None])
    late = tmp_path / "late.mkv"
    with av.open(str(early)) as source, av.open(str(late), "w") as target:
        streams = {s: target.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.dts is None:
                continue
            if packet.stream.type == "audio":
                packet.pts += 500
                packet.dts += 500
            packet.stream = streams[packet.stream]
            target.mux(packet)
    samples = decode_mono_16k(late, LIMITS)
    onset = int(np.argmax(np.abs(samples) > 0.2)) / 16_000
    assert onset == pytest.approx(0.5, abs=0.005)
    assert decode_mono_16k(early, LIMITS)[:800].any()


def broken(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def wav_header(data_bytes: int) -> bytes:
    return (
        b"RIFF" + struct.pack("<I", 36 + data_bytes) + b"WAVEfmt "
        + struct.pack("<IHHIIHH", 16, 1, 1, 16_000, 32_000, 2, 16) + b"data" + struct.pack("<I", data_bytes)
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("empty.wav", b"", "empty"),
        ("text.wav", b"hello, this is no sound\n" * 50, "intact audio or video"),
        ("header.wav", wav_header(0), "without samples"),
        ("cut.wav", wav_header(96_000) + b"\x01\x02" * 8_000, "is cut off"),
        ("bytes.mp3", bytes(range(256)) * 20, "found none|intact audio or video|without samples"),
    ],
)
def test_what_is_not_sound_is_an_input_error(tmp_path: Path, name: str, content: bytes, expected: str) -> None:
    with pytest.raises(InputError, match=expected) as caught:
        decode_mono_16k(broken(tmp_path / name, content), LIMITS)
    assert name in caught.value.message


@pytest.mark.parametrize(("ending", "codec", "sample_format"), [("flac", "flac", "s16"), ("m4a", "aac", "fltp")])
@pytest.mark.parametrize("keep", [0.1, 0.5])
def test_a_cut_off_file_is_an_input_error(
    tmp_path: Path, ending: str, codec: str, sample_format: str, keep: float
) -> None:
    noise = np.random.default_rng(2).uniform(-0.5, 0.5, (1, 96_000))
    whole = write_audio(tmp_path / f"whole.{ending}", noise, 48_000, codec, sample_format)
    with pytest.raises(InputError):
        decode_mono_16k(cut_file(whole, tmp_path / f"cut.{ending}", keep), LIMITS)


def test_a_video_without_sound_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected sound, found none"):
        decode_mono_16k(write_video(tmp_path / "mute.mp4", [grey_frame(0)] * 3), LIMITS)


def test_samples_that_are_not_numbers_are_an_input_error(tmp_path: Path) -> None:
    samples = np.zeros((1, 1000))
    samples[0, 500] = np.nan
    with pytest.raises(InputError, match="NaN or infinity"):
        decode_mono_16k(write_audio(tmp_path / "a.wav", samples, 16_000, "pcm_f32le"), LIMITS)


def test_longer_than_the_limit_is_an_input_error_unless_it_is_cut(tmp_path: Path) -> None:
    path = write_audio(tmp_path / "a.wav", np.zeros((1, 32_000)), 16_000, "pcm_s16le")
    limits = InputLimits(max_media_seconds=1.0)
    with pytest.raises(InputError, match="at most 1 s"):
        decode_mono_16k(path, limits)
    assert len(decode_mono_16k(path, limits, 0.5)) == 8000

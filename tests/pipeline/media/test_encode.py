from __future__ import annotations

import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.config import InputLimits, VideoSettings
from pipeline.errors import InputError, ItemError
from pipeline.media.audio import decode_mono_16k
from pipeline.media.encode import VideoWriter
from pipeline.media.probe import AudioFacts, probe
from pipeline.media.verify import measure_video
from tests.media_files import read_frames, sine, smooth_picture, write_audio, write_video

LIMITS = InputLimits()
SETTINGS = VideoSettings()
WIDTH, HEIGHT = 64, 48


def clip(count: int) -> np.ndarray:
    """Frames that move: uint8 [count, 48, 64, 3]."""
    wide = smooth_picture(0, WIDTH + 4 * count, HEIGHT)
    return np.stack([wide[:, 4 * i : 4 * i + WIDTH] for i in range(count)])


def write(
    path: Path,
    frames: np.ndarray,
    *,
    batch: int = 8,
    settings: VideoSettings = SETTINGS,
    audio: Path | None = None,
    tags: dict[str, str] | None = None,
) -> Path:
    with VideoWriter(
        path, width=WIDTH, height=HEIGHT, settings=settings, limits=LIMITS, audio=audio, tags=tags
    ) as writer:
        for start in range(0, len(frames), batch):
            writer.write(frames[start : start + batch])
    assert writer.frames_written == len(frames)
    return path


def packets(path: Path) -> list[av.Packet]:
    with av.open(str(path)) as container:
        return [packet for packet in container.demux(video=0) if packet.size]


def test_every_frame_is_there_in_order_at_25_a_second(tmp_path: Path) -> None:
    frames = clip(60)
    path = write(tmp_path / "a.mp4", frames)
    measure = measure_video(path, LIMITS)
    assert (measure.frames, measure.width, measure.height) == (60, WIDTH, HEIGHT)
    assert (measure.video_end_s, measure.audio_end_s) == (2.4, None)
    decoded = read_frames(path, exact=True).astype(int)
    nearest = [int(np.abs(frame - frames).mean(axis=(1, 2, 3)).argmin()) for frame in decoded]
    assert nearest == list(range(60))
    facts = probe(path, LIMITS)
    assert facts.video is not None
    assert (facts.video.codec, facts.video.pixel_format, facts.video.fps) == ("h264", "yuv420p", 25.0)


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (90, 120, 200)])
def test_colours_come_back_and_are_tagged(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    frames = np.full((3, HEIGHT, WIDTH, 3), colour, np.uint8)
    path = write(tmp_path / "a.mp4", frames)
    assert np.abs(read_frames(path, exact=True).astype(int) - colour).max() <= 3
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        # ISO 23091-2: BT.601 matrix, BT.709 primaries, sRGB transfer, limited range.
        assert (frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range) == (6, 1, 13, 1)


@pytest.mark.parametrize("preset", ["veryfast", "medium"])
def test_segments_made_apart_decode_to_the_same_frames(tmp_path: Path, preset: str) -> None:
    settings = VideoSettings(segment_seconds=0.4, preset=preset)
    frames = clip(34)
    whole = write(tmp_path / "whole.mp4", frames, settings=settings)
    apart = [write(tmp_path / f"{i}.mp4", frames[i : i + 10], settings=settings) for i in range(0, 34, 10)]
    assert np.array_equal(read_frames(whole), np.concatenate([read_frames(path) for path in apart]))
    assert not np.array_equal(read_frames(whole), read_frames(write(tmp_path / "one.mp4", frames)))


@pytest.mark.parametrize("segment_frames", [1, 2, 3, 10])
def test_segments_start_with_key_frames_and_time_never_goes_back(tmp_path: Path, segment_frames: int) -> None:
    settings = VideoSettings(segment_seconds=segment_frames / 25, preset="medium")
    path = write(tmp_path / "a.mp4", clip(23), settings=settings)
    found = packets(path)
    times = [packet.dts for packet in found]
    assert all(before < after for before, after in pairwise(times))
    keys = [round(packet.pts * packet.time_base * 25) for packet in found if packet.is_keyframe]
    assert keys == list(range(0, 23, segment_frames))
    assert measure_video(path, LIMITS).frames == 23


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_the_same_input_gives_the_same_bytes_however_it_is_handed_over(tmp_path: Path, batch: int) -> None:
    sound = write_audio(tmp_path / "a.wav", sine(22_050, 30_000)[None], 22_050, "pcm_s16le")
    one = write(tmp_path / "one.mp4", clip(50), audio=sound, batch=7)
    other = write(tmp_path / "other.mp4", clip(50), audio=sound, batch=batch)
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize(
    ("rate", "channels", "expected"),
    [
        (44_100, 1, AudioFacts("aac", 44_100, 1)),
        (44_100, 2, AudioFacts("aac", 44_100, 2)),
        (48_000, 2, AudioFacts("aac", 48_000, 2)),
        (8_000, 1, AudioFacts("aac", 48_000, 1)),
        (16_000, 1, AudioFacts("aac", 48_000, 1)),
        (22_050, 2, AudioFacts("aac", 48_000, 2)),
        (96_000, 1, AudioFacts("aac", 48_000, 1)),
        (48_000, 6, AudioFacts("aac", 48_000, 2)),
    ],
)
@pytest.mark.parametrize("samples", [3.0, 3.021, 2.9999])
def test_sound_and_pictures_end_within_a_frame(
    tmp_path: Path, rate: int, channels: int, expected: AudioFacts, samples: float
) -> None:
    count = round(samples * rate)
    sound = write_audio(tmp_path / "a.wav", np.tile(sine(rate, count), (channels, 1)), rate, "pcm_s16le")
    frames = -(-len(decode_mono_16k(sound, LIMITS)) * 25 // 16_000)
    path = write(tmp_path / "a.mp4", clip(frames), audio=sound)
    measure = measure_video(path, LIMITS)
    assert measure.frames == frames
    assert measure.audio_end_s is not None
    assert measure.video_end_s == frames / 25
    # The sound ends where it ended, within what an AAC frame allows.
    assert measure.audio_end_s == pytest.approx(count / rate, abs=0.0015)
    assert 0 <= measure.video_end_s - measure.audio_end_s < 0.04
    assert probe(path, LIMITS).audio == expected


def test_the_sound_is_the_original_in_step(tmp_path: Path) -> None:
    """Cross-correlation of noise finds no shift, and 10 kHz survives, which a 16 kHz copy couldn't hold."""
    rate = 44_100
    high = sine(rate, 2 * rate, hertz=10_000, level=0.3) * (np.arange(2 * rate) > rate)
    sound = write_audio(tmp_path / "a.wav", high[None], rate, "pcm_s16le")
    path = write(tmp_path / "a.mp4", clip(50), audio=sound)
    with av.open(str(path)) as container:
        out = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    assert abs(np.argmax(np.abs(out) > 0.15) - rate) < 0.002 * rate
    spectrum = np.abs(np.fft.rfft(out[rate + 2000 : 2 * rate - 2000]))
    assert np.argmax(spectrum) * rate / (rate - 4000) == pytest.approx(10_000, abs=5)


def test_longer_sound_is_cut_at_the_last_frame(tmp_path: Path) -> None:
    sound = write_audio(tmp_path / "a.wav", sine(48_000, 5 * 48_000)[None], 48_000, "pcm_s16le")
    measure = measure_video(write(tmp_path / "a.mp4", clip(30), audio=sound), LIMITS)
    assert measure.video_end_s == 1.2
    assert measure.audio_end_s == pytest.approx(1.2, abs=0.001)


def test_shorter_sound_is_followed_by_silence(tmp_path: Path) -> None:
    sound = write_audio(tmp_path / "a.wav", sine(48_000, 24_000)[None], 48_000, "pcm_s16le")
    path = write(tmp_path / "a.mp4", clip(40), audio=sound)
    assert measure_video(path, LIMITS).audio_end_s == pytest.approx(1.6, abs=0.001)
    samples = decode_mono_16k(path, LIMITS)
    assert np.abs(samples[7_000:7_900]).max() > 0.4
    assert np.abs(samples[8_600:]).max() < 1e-3


def test_a_driver_keeps_its_sound_track(tmp_path: Path) -> None:
    driver = write_video(tmp_path / "driver.mp4", list(clip(50)), audio=sine(48_000, 96_000)[None])
    measure = measure_video(write(tmp_path / "a.mp4", clip(50), audio=driver), LIMITS)
    assert measure.audio_end_s == pytest.approx(2.0, abs=0.04)


def test_sound_and_pictures_are_stored_side_by_side(tmp_path: Path) -> None:
    """A player that streams the file needs both at once: neither runs ahead of the other by two seconds."""
    sound = write_audio(tmp_path / "a.wav", sine(48_000, 48_000 * 12)[None], 48_000, "pcm_s16le")
    path = write(tmp_path / "a.mp4", clip(300), audio=sound)
    with av.open(str(path)) as container:
        stored = sorted((p.pos, float(p.dts * p.time_base), p.stream.type) for p in container.demux() if p.size)
    latest = {"video": 0.0, "audio": 0.0}
    for _, time, kind in stored:
        latest[kind] = time
        assert abs(latest["video"] - latest["audio"]) < 2


def test_the_index_is_at_the_front(tmp_path: Path) -> None:
    content = write(tmp_path / "a.mp4", clip(5)).read_bytes()
    assert 0 < content.index(b"moov") < content.index(b"mdat")


def test_tags_of_any_name_survive(tmp_path: Path) -> None:
    tags = {"comment": "made by a model", "imtalker_item": "a-b-1", "weights": "random"}
    path = write(tmp_path / "a.mp4", clip(5), tags=tags)
    with av.open(str(path)) as container:
        assert container.metadata.items() >= tags.items()


def test_settings_reach_the_encoder(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, HEIGHT, WIDTH, 3), dtype=np.uint8)
    sizes = [write(tmp_path / f"{crf}.mp4", noise, settings=VideoSettings(crf=crf)).stat().st_size for crf in (10, 40)]
    assert sizes[0] > 3 * sizes[1]
    assert b"crf=10.0" in (tmp_path / "10.mp4").read_bytes()
    assert b"threads=1" in (tmp_path / "10.mp4").read_bytes()


@pytest.mark.parametrize(("width", "kept"), [(64, b"mbtree=0"), (256, b"mbtree=1"), (512, b"mbtree=1")])
def test_the_macroblock_tree_is_kept_only_where_it_is_repeatable(tmp_path: Path, width: int, kept: bytes) -> None:
    path = tmp_path / "a.mp4"
    with VideoWriter(path, width=width, height=width, settings=SETTINGS, limits=LIMITS) as writer:
        writer.write(np.zeros((2, width, width, 3), np.uint8))
    assert kept in path.read_bytes()


def test_no_frames_is_an_error_and_leaves_no_file(tmp_path: Path) -> None:
    sound = write_audio(tmp_path / "a.wav", sine(48_000, 4800)[None], 48_000, "pcm_s16le")
    with (
        pytest.raises(ValueError, match="at least one frame"),
        VideoWriter(tmp_path / "a.mp4", width=64, height=48, settings=SETTINGS, limits=LIMITS, audio=sound),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


def test_an_error_inside_leaves_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"the older one")
    with (
        pytest.raises(RuntimeError, match="render failed"),
        VideoWriter(path, width=WIDTH, height=HEIGHT, settings=SETTINGS, limits=LIMITS) as writer,
    ):
        writer.write(clip(30))
        raise RuntimeError("render failed")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.mp4", b"the older one")]


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((2, HEIGHT, WIDTH), np.uint8),
        np.zeros((2, WIDTH, HEIGHT, 3), np.uint8),
        np.zeros((2, HEIGHT, WIDTH, 3), np.float32),
    ],
)
def test_frames_of_another_shape_or_type_are_refused(tmp_path: Path, frames: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected uint8 frames \[n, 48, 64, 3\], found"):
        write(tmp_path / "a.mp4", frames)
    assert list(tmp_path.iterdir()) == []


def test_an_odd_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="even width and height for yuv420p, found 63x48"):
        VideoWriter(tmp_path / "a.mp4", width=63, height=48, settings=SETTINGS, limits=LIMITS)


def test_sound_that_cannot_be_read_is_an_input_error_and_leaves_no_file(tmp_path: Path) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"no sound" * 100)
    with pytest.raises(InputError, match=r"broken\.wav"):
        write(tmp_path / "a.mp4", clip(5), audio=broken)
    assert [path.name for path in tmp_path.iterdir()] == ["broken.wav"]


@pytest.fixture
def small_files() -> Iterator[None]:
    """Files of this process can't grow beyond 64 kB: what a full disk looks like."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_an_infrastructure_error_and_leaves_no_file(tmp_path: Path, small_files: None) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (100, HEIGHT, WIDTH, 3), dtype=np.uint8)
    with pytest.raises(ItemError) as caught:
        write(tmp_path / "a.mp4", noise)
    assert caught.value.kind == "infrastructure"
    assert list(tmp_path.iterdir()) == []


MEMORY_SCRIPT = """
import resource, sys
from pathlib import Path
import numpy as np
from pipeline.config import InputLimits, VideoSettings
from pipeline.media.encode import VideoWriter

frames = np.random.default_rng(0).integers(0, 256, (25, 128, 128, 3), dtype=np.uint8)
audio, output = map(Path, sys.argv[1:])
for seconds in (10, 120):
    with VideoWriter(
        output, width=128, height=128, settings=VideoSettings(preset="ultrafast"), limits=InputLimits(), audio=audio
    ) as writer:
        for _ in range(seconds):
            writer.write(frames)
    sys.stdout.write(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss} ")
"""


def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    """In a process of its own: two minutes need no more than ten seconds did, but for a few megabytes."""
    sound = write_audio(tmp_path / "a.wav", np.zeros((2, 44_100 * 120)), 44_100, "pcm_s16le")
    done = subprocess.run(
        [sys.executable, "-c", MEMORY_SCRIPT, str(sound), str(tmp_path / "a.mp4")],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    short, long = (int(kilobytes) for kilobytes in done.stdout.split())
    assert long - short < 12_000, done.stdout  # the frames would be 147 MB, the sound as floats 42 MB

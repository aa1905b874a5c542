from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.config import InputLimits
from pipeline.errors import InputError
from pipeline.media.audio import decode_mono_16k
from pipeline.media.driver import DriverReader
from pipeline.media.probe import AudioFacts, probe
from tests.media_files import grey_frame, sine, smooth_picture, write_audio, write_video

LIMITS = InputLimits()


def test_a_video_states_its_pictures_and_sound(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "a.mp4", [grey_frame(i) for i in range(50)], rotation=90, audio=sine(44_100, 88_200)[None],
        audio_rate=44_100,
    )  # fmt: skip
    facts = probe(path, LIMITS)
    assert facts.container.startswith("mov,mp4")
    assert facts.bytes == path.stat().st_size
    assert facts.seconds == pytest.approx(2.0, abs=0.05)
    assert facts.video is not None
    assert (facts.video.codec, facts.video.width, facts.video.height) == ("h264", 64, 48)
    assert (facts.video.rotation, facts.video.fps) == (90, 25.0)
    assert facts.audio == AudioFacts("aac", 44_100, 1)


def test_a_recording_has_no_pictures(tmp_path: Path) -> None:
    facts = probe(write_audio(tmp_path / "a.flac", sine(22_050, 22_050)[None], 22_050, "flac", "s16"), LIMITS)
    assert facts.video is None
    assert facts.audio == AudioFacts("flac", 22_050, 1)
    assert facts.seconds == pytest.approx(1.0)


def read_audio(path: Path) -> object:
    return decode_mono_16k(path, LIMITS)


def read_driver(path: Path) -> object:
    return list(DriverReader(path, 32, LIMITS))


def read_header(path: Path) -> object:
    return probe(path, LIMITS)


@pytest.mark.parametrize("read", [read_header, read_audio, read_driver])
@pytest.mark.parametrize("name", ["list.wav", "list.mp4", "list.m3u8", "list.txt"])
@pytest.mark.parametrize("kind", ["hls", "concat", "dash", "sdp"])
def test_a_playlist_opens_nothing(tmp_path: Path, read: Callable[[Path], object], name: str, kind: str) -> None:
    """The playlist names a video that is readable by itself; were it followed, there would be pictures and sound."""
    target = write_video(tmp_path / "target.mp4", [grey_frame(90)] * 25, audio=sine(48_000, 48_000)[None])
    read(target)
    path = tmp_path / name
    path.write_text(
        {
            "hls": f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n",
            "concat": f"ffconcat version 1.0\nfile {target}\n",
            "dash": f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period>'
            f"<AdaptationSet><Representation><BaseURL>{target}</BaseURL></Representation></AdaptationSet></Period></MPD>",
            "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
        }[kind]
    )
    with pytest.raises(InputError, match="intact audio or video"):
        read(path)


def test_larger_frames_than_the_limit_are_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", [smooth_picture(0)] * 2)
    assert probe(path, InputLimits(max_video_pixels=64 * 48)).video is not None
    with pytest.raises(InputError, match="at most 3071 pixels, found 64x48"):
        probe(path, InputLimits(max_video_pixels=64 * 48 - 1))


def test_longer_media_than_the_limit_is_refused(tmp_path: Path) -> None:
    path = write_audio(tmp_path / "a.wav", sine(8000, 16_000)[None], 8000, "pcm_s16le")
    with pytest.raises(InputError, match=r"at most 1\.5 s, found 2\.0 s"):
        probe(path, InputLimits(max_media_seconds=1.5))


def test_a_picture_is_not_media(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(smooth_picture(0)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="intact audio or video"):
        probe(tmp_path / "a.png", LIMITS)

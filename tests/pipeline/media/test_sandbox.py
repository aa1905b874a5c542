"""Decoders in processes of their own: the same pixels and samples, and what happens when one dies."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import InputLimits
from pipeline.errors import InputError, ItemError
from pipeline.media import sandbox
from pipeline.media.audio import audio_frames, decode_mono_16k
from pipeline.media.driver import DriverReader, sample_frames
from pipeline.media.image import load_image
from pipeline.media.probe import probe
from pipeline.media.reader import MediaReader
from pipeline.media.sandbox import Sandbox, shared_sandbox
from tests import faulty_decoder
from tests.media_files import grey_frame, write_video
from tests.runs import DEMO

LIMITS = InputLimits(max_decoder_bytes=2 << 30)


@pytest.fixture(scope="module")
def reader() -> Iterator[MediaReader]:
    yield MediaReader(LIMITS)
    shared_sandbox(LIMITS.max_decoder_bytes).close()


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    monkeypatch.setattr(sandbox, "COMMAND", faulty_decoder.COMMAND)
    box = Sandbox(LIMITS.max_decoder_bytes)
    yield box
    box.close()


def poisoned(folder: Path, word: bytes) -> Path:
    """A portrait like any other, with a word behind its end."""
    path = folder / f"{word.decode()}.png"
    path.write_bytes((DEMO / "ana.png").read_bytes() + word)
    return path


def test_results_are_those_of_this_process(reader: MediaReader) -> None:
    picture, video = DEMO / "ana.png", DEMO / "driver.mp4"
    assert np.array_equal(reader.image(picture), load_image(picture, LIMITS))
    assert reader.facts(video) == probe(video, LIMITS)
    here = DriverReader(video, 128, LIMITS, max_seconds=2)
    there = reader.driver(video, 128, 2)
    assert np.array_equal(np.concatenate(list(there)), np.concatenate(list(here)))
    assert there.decoder == here.decoder
    sampled = zip(reader.sampled(video, 15), sample_frames(video, LIMITS, 15), strict=True)
    assert all(np.array_equal(ours, theirs) for ours, theirs in sampled)


@pytest.mark.parametrize("name", ["english.wav", "spanish.flac", "french.m4a"])
def test_sound_is_that_of_this_process(reader: MediaReader, name: str) -> None:
    path = DEMO / name
    assert np.array_equal(reader.mono_16k(path, 1.5), decode_mono_16k(path, LIMITS, 1.5))
    ours, theirs = list(reader.sound(path)), list(audio_frames(path, LIMITS))
    samples = [np.concatenate([frame.to_ndarray() for frame in frames], axis=1) for frames in (ours, theirs)]
    assert samples[0].dtype == samples[1].dtype
    assert np.array_equal(*samples)
    kinds = {(frame.sample_rate, frame.format.name, frame.layout.name) for frame in (*ours, *theirs)}
    assert len(kinds) == 1


def test_a_file_that_is_broken_fails_as_in_this_process(reader: MediaReader, tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_bytes(b"RIFF????WAVEnothing that is sound")
    with pytest.raises(InputError) as here:
        decode_mono_16k(tmp_path / "broken.wav", LIMITS)
    with pytest.raises(ItemError) as there:
        reader.mono_16k(tmp_path / "broken.wav")
    assert (there.value.kind, there.value.message, there.value.hint) == (
        here.value.kind,
        here.value.message,
        here.value.hint,
    )


def test_one_process_serves_file_after_file_and_streams_that_are_left_early(reader: MediaReader) -> None:
    reader.image(DEMO / "ana.png")
    (process,) = shared_sandbox(LIMITS.max_decoder_bytes)._idle
    for _ in range(3):
        pictures = reader.sampled(DEMO / "driver.mp4", 15)
        next(pictures)
        pictures.close()
        windows = iter(reader.driver(DEMO / "driver.mp4", 64))
        next(windows)
        del windows
        whole = reader.driver(DEMO / "driver.mp4", 64, every=3)
        next(iter(whole))
        whole.close()
    assert shared_sandbox(LIMITS.max_decoder_bytes)._idle == [process]


def test_streams_of_several_threads_do_not_mix(reader: MediaReader, tmp_path: Path) -> None:
    paths = [tmp_path / f"{level}.mp4" for level in (40, 120, 200)]
    for path in paths:
        write_video(path, [grey_frame(int(path.stem))] * 40)
    with ThreadPoolExecutor(len(paths)) as pool:
        found = list(pool.map(lambda path: np.concatenate(list(reader.driver(path, 32))), paths))
    assert [round(float(frames.mean()), -1) for frames in found] == [40, 120, 200]


@pytest.mark.parametrize(
    ("word", "limits", "message"),
    [
        (faulty_decoder.CRASHES, LIMITS, r"the decoder died \(SIGSEGV\) while it read segmentation-fault-please.png"),
        (
            faulty_decoder.HANGS,
            LIMITS.model_copy(update={"decode_floor_s": 0.5}),
            r"decoding hang-please.png took longer than 0.5 s",
        ),
        (faulty_decoder.FILLS, LIMITS, r"all-memory-please.png needs more memory than the limit of 2147483648 bytes"),
    ],
    ids=["crash", "hang", "memory"],
)
def test_a_decoder_that_fails_is_replaced(
    faulty: Sandbox, tmp_path: Path, word: bytes, limits: InputLimits, message: str
) -> None:
    good = DEMO / "ana.png"
    list(faulty.decode("image", good, LIMITS))
    (before,) = faulty._idle
    with pytest.raises(ItemError, match=message) as found:
        list(faulty.decode("image", poisoned(tmp_path, word), limits))
    assert found.value.kind == "input"
    assert before._process.poll() is not None, "it was killed"
    (piece,) = faulty.decode("image", good, LIMITS)
    assert np.array_equal(piece.arrays["image"], load_image(good, LIMITS))


def test_a_decoder_that_the_system_kills_is_no_fault_of_the_file(reader: MediaReader) -> None:
    windows = iter(reader.driver(DEMO / "driver.mp4", 64))
    next(windows)
    for child in children():
        os.kill(child, signal.SIGKILL)
    with pytest.raises(ItemError, match="was killed") as found:
        list(windows)
    assert found.value.kind == "infrastructure"


def test_only_waiting_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([10.0, 13.0, 14.0, 100.0, 104.0, 106.5])
    monkeypatch.setattr(sandbox.time, "monotonic", lambda: next(moments))
    patience = sandbox._Patience(10.0)
    with patience:
        assert patience.left_s() == 7.0
    # Ten seconds are left less the four that were waited; the 86 in between were the caller's.
    with patience:
        assert patience.left_s() == 2.0
    assert patience._waited == 10.5


def test_a_decoder_that_does_not_start_is_no_fault_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "COMMAND", (sys.executable, "-c", "raise SystemExit(1)"))
    with pytest.raises(ItemError, match="no decoder could be started") as found:
        list(Sandbox(LIMITS.max_decoder_bytes).decode("image", DEMO / "ana.png", LIMITS))
    assert found.value.kind == "infrastructure"


def test_a_decoder_has_no_torch_and_no_secrets(reader: MediaReader, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys, pipeline.media.decoder; sys.exit(bool({'torch', 'ray', 's3fs'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=DEMO.parents[1], timeout=100).returncode == 0
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    assert not re.search("AWS|SECRET", " ".join(sandbox._environment()))


def test_a_decoder_ends_with_its_starter(tmp_path: Path) -> None:
    """Even with a starter that was killed."""
    code = (
        "import os, sys; from pathlib import Path; from pipeline.config import InputLimits\n"
        "from pipeline.media.sandbox import Sandbox\n"
        "box = Sandbox(2 << 30); list(box.decode('image', Path(sys.argv[1]), InputLimits()))\n"
        "print(box._idle[0]._process.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, str(DEMO / "ana.png")],
        cwd=DEMO.parents[1],
        capture_output=True,
        text=True,
        timeout=100,
    ).stdout
    child = Path(f"/proc/{int(out)}/stat")
    deadline = time.monotonic() + 30
    while child.exists() and child.read_text().split()[2] != "Z":
        assert time.monotonic() < deadline, "it lives on"


def test_too_many_frames_in_a_short_time_are_refused(reader: MediaReader, tmp_path: Path) -> None:
    path = write_video(tmp_path / "many.mp4", [grey_frame(100)] * 30, times_ms=list(range(30)))
    few = MediaReader(LIMITS.model_copy(update={"max_video_frames": 20}))
    with pytest.raises(ItemError, match="at most 20 frames"):
        list(few.driver(path, 32))


def test_the_time_limit_grows_with_the_length() -> None:
    limits = InputLimits(decode_floor_s=5.0, decode_s_per_s=3.0)
    assert (limits.decoding_s(0), limits.decoding_s(2)) == (5.0, 11.0)


def children() -> list[int]:
    """Process ids of this process's children that decode."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        for pid in (task / "children").read_text().split():
            if b"pipeline.media.decoder" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(int(pid))
    return found

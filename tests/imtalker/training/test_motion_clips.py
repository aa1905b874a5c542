"""The generator's data on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from imtalker.training.motion_clips import ClipError, MotionClip, MotionClips, read_clip, write_clip

WIDTHS = {"motion": 32, "audio": 768, "pose": 3, "camera": 3, "gaze": 2}


def clip(frames: int, level: float = 0.0) -> MotionClip:
    """Every value of frame n is ``level + n``."""
    return MotionClip(
        **{name: (level + torch.arange(frames)).float()[:, None].repeat(1, width) for name, width in WIDTHS.items()}
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """104 clips of 70 frames, and one that is too short; clip k starts at 1000 k."""
    root = tmp_path_factory.mktemp("clips")
    for k in range(104):
        write_clip(root, f"clip{k:03}", clip(70, 1000.0 * k))
    write_clip(root, "clip001b", clip(59))
    return root


def test_a_clip_comes_back(tmp_path: Path) -> None:
    write_clip(tmp_path, "one", clip(12))
    back = read_clip(tmp_path, "one")
    for name in WIDTHS:
        assert torch.equal(getattr(back, name), getattr(clip(12), name))


def test_sequences_are_cut_to_the_shortest(tmp_path: Path) -> None:
    write_clip(tmp_path, "one", clip(12))
    np.save(tmp_path / "gaze" / "one.npy", np.zeros((9, 2), np.float64))
    assert len(read_clip(tmp_path, "one")) == 9
    assert read_clip(tmp_path, "one").gaze.dtype == torch.float32


def test_clips_are_split_as_published(folder: Path) -> None:
    train = MotionClips(folder, "train", context=10, window=50)
    validation = MotionClips(folder, "validation", context=10, window=50)
    assert train.stems == ["clip000", "clip001", "clip002", "clip003"]
    assert validation.stems == [f"clip{k:03}" for k in range(4, 103)]


def test_runs_are_consecutive_frames_of_one_clip(folder: Path) -> None:
    data = MotionClips(folder, "train", context=10, window=50)
    batch = data.batch(40, torch.Generator().manual_seed(0))
    first = batch.motion[:, :1, :1]
    for name, width in WIDTHS.items():
        assert torch.equal(getattr(batch, name), (first + torch.arange(60.0)[:, None]).expand(40, 60, width))
    starts = (first % 1000).flatten()
    assert starts.min() >= 0 and starts.max() <= 10 and len(starts.unique()) > 5
    assert len((first // 1000).unique()) == 4
    place = batch.reference[:, 0] - first.flatten()
    assert place.min() >= 0 and place.max() < 60 and len(place.unique()) > 10


def test_the_reference_may_be_any_frame_of_the_clip(folder: Path) -> None:
    data = MotionClips(folder, "train", context=10, window=50, reference="clip")
    batch = data.batch(60, torch.Generator().manual_seed(0))
    first = batch.motion[:, 0, 0]
    place = batch.reference[:, 0] - first
    assert torch.equal(batch.reference[:, 0] // 1000, first // 1000)
    assert place.min() < 0 and place.max() >= 60


def test_chance_is_the_generators(folder: Path) -> None:
    data = MotionClips(folder, "validation", context=10, window=50)
    one, two = (data.batch(5, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(one.audio, two.audio) and torch.equal(one.reference, two.reference)


def test_too_few_clips_are_refused(tmp_path: Path) -> None:
    write_clip(tmp_path, "one", clip(70))
    with pytest.raises(ClipError, match="1 clips, 1 of them with 60 frames or more; more than 100 are needed"):
        MotionClips(tmp_path, "train", context=10, window=50)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gaze/one.npy", None, r"one\.npy is missing"),
        ("motion/one.pt", None, r"one\.pt is missing"),
        ("audio/one.npy", b"no array", r"one\.npy can't be read"),
        ("smirk/one.pt", b"no tensors", r"one\.pt can't be read"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    write_clip(tmp_path, "one", clip(70))
    path = tmp_path / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ClipError, match=message):
        read_clip(tmp_path, "one")


def test_misshapen_sequences_are_named(tmp_path: Path) -> None:
    write_clip(tmp_path, "one", clip(70))
    torch.save({"pose_params": torch.zeros(70, 3)}, tmp_path / "smirk" / "one.pt")
    with pytest.raises(ClipError, match="pose_params and cam"):
        read_clip(tmp_path, "one")
    write_clip(tmp_path, "one", clip(70))
    torch.save(torch.zeros(70), tmp_path / "motion" / "one.pt")
    with pytest.raises(ClipError, match=r"expected motion as \[frames, width\], found \[70\]"):
        read_clip(tmp_path, "one")


def test_a_slice_is_written_alone(tmp_path: Path) -> None:
    """torch would save all of what a slice is a part of."""
    whole, cut = clip(2000), clip(2000)
    write_clip(tmp_path, "one", MotionClip(**{name: getattr(cut, name)[:10] for name in WIDTHS}))
    assert len(read_clip(tmp_path, "one")) == 10
    assert (tmp_path / "motion" / "one.pt").stat().st_size < whole.motion.nbytes / 10


def test_a_clip_that_cant_be_finished_is_not_found(tmp_path: Path) -> None:
    """The motion, by which clips are found, comes last; and nothing half written lies under a name that counts."""
    write_clip(tmp_path, "one", clip(12))
    (tmp_path / "smirk" / "one.pt").unlink()
    (tmp_path / "smirk" / "one.pt").mkdir()
    with pytest.raises(OSError, match="one"):
        write_clip(tmp_path, "one", clip(13))
    assert not list((tmp_path / "motion").iterdir())
    assert not list(tmp_path.rglob("*.part"))

"""The renderer's data on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from imtalker.training.masks import eye_mask, mouth_mask
from imtalker.training.picture_clips import (
    PictureClipError,
    PictureClips,
    face_mask,
    find_clips,
    read_landmarks,
    write_landmarks,
)

POINTS = torch.rand(68, 2, generator=torch.Generator().manual_seed(0))


def make_clip(root: Path, name: str, count: int, *, layout: str = "{root}/{part}", landmarks: bool = True) -> None:
    frames = Path(layout.format(root=root, part="video_frame")) / name
    frames.mkdir(parents=True)
    for n in range(count):
        (frames / f"{name}_{n}.png").write_text(f"{name} {n}")
    if landmarks:
        names = {path.name: POINTS for path in frames.iterdir()}
        write_landmarks(Path(layout.format(root=root, part="lmd")) / f"{name}.txt", names)


def read(path: Path) -> torch.Tensor:
    """The clip's letter and the frame's number as levels."""
    name, number = path.read_text().split()
    return torch.tensor([float(ord(name)), float(number), 0.0])[:, None, None].expand(3, 32, 32)


def test_clips_are_found_in_order_of_time(tmp_path: Path) -> None:
    make_clip(tmp_path, "b", 30)
    make_clip(tmp_path, "a", 26)
    make_clip(tmp_path, "short", 25)
    make_clip(tmp_path, "unmarked", 30, landmarks=False)
    clips = find_clips(tmp_path)
    assert [clip.name for clip in clips] == ["a", "b"]
    assert [path.name for path in clips[1].frames] == [f"b_{n}.png" for n in range(30)]
    torch.testing.assert_close(clips[0].landmarks, POINTS.expand(26, 68, 2), atol=1e-5, rtol=0)


def test_the_other_layout(tmp_path: Path) -> None:
    make_clip(tmp_path / "set", "a", 26, layout="{root}_{part}")
    assert [clip.name for clip in find_clips(tmp_path / "set")] == ["a"]
    with pytest.raises(PictureClipError, match=r"neither .*nothing/video_frame nor .*nothing_video_frame is a folder"):
        find_clips(tmp_path / "nothing")


def test_a_frame_without_landmarks_is_left_out(tmp_path: Path) -> None:
    make_clip(tmp_path, "a", 30)
    file = tmp_path / "lmd" / "a.txt"
    lines = file.read_text().splitlines()
    file.write_text("\n".join(line for line in lines if not line.startswith("a_7.png")))
    assert len(find_clips(tmp_path)[0].frames) == 29


def test_pairs_are_of_one_clip_and_negatives_of_another(tmp_path: Path) -> None:
    for name in "abc":
        make_clip(tmp_path, name, 26)
    batch = PictureClips(tmp_path, "train", read).batch(60, torch.Generator().manual_seed(0))
    clip, frame = batch.reference[:, 0, 0, 0], batch.reference[:, 1, 0, 0]
    assert torch.equal(clip, batch.target[:, 0, 0, 0])
    assert (frame != batch.target[:, 1, 0, 0]).all()
    assert (clip != batch.negative[:, 0, 0, 0]).all()
    assert len(clip.unique()) == 3 and len(batch.negative[:, 1, 0, 0].unique()) > 15
    assert batch.face is not None
    torch.testing.assert_close(batch.face[0], face_mask(read_landmarks(tmp_path / "lmd" / "a.txt")["a_0.png"], 32))


def test_the_mask_is_the_sum() -> None:
    assert torch.equal(face_mask(POINTS, 64)[0], eye_mask(POINTS, 64).float() + mouth_mask(POINTS, 64).float())


def test_a_split_needs_two_clips(tmp_path: Path) -> None:
    make_clip(tmp_path, "a", 26)
    with pytest.raises(PictureClipError, match="1 clips for train, at least 2"):
        PictureClips(tmp_path, "train", read)
    make_clip(tmp_path, "b", 26)
    assert len(PictureClips(tmp_path, "train", read).clips) == 2
    with pytest.raises(PictureClipError, match="0 clips for validation"):
        PictureClips(tmp_path, "validation", read)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.png 1_2 3_4", "line 2: expected a file name and 68 tokens x_y, found 2 tokens"),
        ("a.png " + "1_x " * 68, "line 2: could not convert"),
        ("a.png " + "1_2_3 " * 68, "line 2: expected"),
    ],
)
def test_broken_landmarks_are_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "a.txt"
    write_landmarks(path, {"first.png": POINTS})
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(PictureClipError, match=message):
        read_landmarks(path)

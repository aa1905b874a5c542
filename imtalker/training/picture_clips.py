"""The published data layout of the renderer: folders of frames, and a file of landmarks for each.

``video_frame/<clip>/<name>_<number>.png`` (or jpg), and ``lmd/<clip>.txt`` with a line for each frame: its file name,
then 68 tokens ``x_y`` in units of a 512-pixel picture. ``<root>_video_frame`` and ``<root>_lmd`` beside the root will
do, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from imtalker.training.masks import eye_mask, mouth_mask
from imtalker.training.pictures import PictureBatch

ReadPicture = Callable[[Path], Tensor]
"""A file -> float [3, R, R] in 0..1."""

TRAINED_ON = 500
"""How many clips are for training, by name; the rest is for validation."""

_UNITS = 512
_POINTS = 68
_FEWEST = 26
_SUFFIXES = (".png", ".jpg")


class PictureClipError(ValueError):
    """A data set that can't be used."""


@dataclass(frozen=True)
class PictureClip:
    """Frames that have landmarks, in order of time."""

    name: str
    frames: tuple[Path, ...]
    landmarks: Tensor
    """float32 [frames, 68, 2], x and y in 0..1."""


def find_clips(root: Path) -> list[PictureClip]:
    """All clips of more than 25 frames that have landmarks, by name.

    Frames are matched with landmarks by file name. Raises PictureClipError for a missing folder or a broken line.
    """
    frames, landmarks = (_folder(root, name) for name in ("video_frame", "lmd"))
    clips = []
    for folder in sorted(path for path in frames.iterdir() if path.is_dir()):
        file = landmarks / f"{folder.name}.txt"
        if file.exists():
            points = read_landmarks(file)
            paths = sorted((p for p in folder.iterdir() if p.suffix in _SUFFIXES), key=_number)
            kept = tuple(path for path in paths if path.name in points)
            if len(kept) >= _FEWEST:
                clips.append(PictureClip(folder.name, kept, torch.stack([points[path.name] for path in kept])))
    return clips


def read_landmarks(path: Path) -> dict[str, Tensor]:
    """File name -> float32 [68, 2] in 0..1. Raises PictureClipError naming file and line."""
    points = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        name, *tokens = line.split()
        try:
            values = torch.tensor([[float(value) for value in token.split("_")] for token in tokens])
        except ValueError as exc:
            raise PictureClipError(f"{path}, line {number}: {exc}") from exc
        if values.shape != (_POINTS, 2):
            raise PictureClipError(
                f"{path}, line {number}: expected a file name and {_POINTS} tokens x_y, found {len(tokens)} tokens"
            )
        points[name] = values / _UNITS
    return points


def write_landmarks(path: Path, points: dict[str, Tensor]) -> None:
    """The inverse of `read_landmarks`; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        " ".join([name, *(f"{x:.3f}_{y:.3f}" for x, y in (values * _UNITS).tolist())])
        for name, values in sorted(points.items())
    ]
    path.write_text("\n".join(lines) + "\n")


class PictureClips:
    """Random pairs of frames of a clip, each with a frame of another clip. As published, the first 500 clips by name
    are for training and the rest for validation.
    """

    def __init__(self, root: Path, split: Literal["train", "validation"], read: ReadPicture) -> None:
        """Raises PictureClipError when there are fewer than two clips."""
        clips = find_clips(root)
        self.clips = clips[:TRAINED_ON] if split == "train" else clips[TRAINED_ON:]
        if len(self.clips) < 2:
            raise PictureClipError(
                f"{root}: {len(self.clips)} clips for {split}, at least 2 are needed (those of {_FEWEST} frames or "
                f"more that have landmarks; the first {TRAINED_ON} are for training, the rest for validation)"
            )
        self._read = read

    def batch(self, rows: int, draw: torch.Generator) -> PictureBatch:
        """Pictures and masks of clips drawn at random. Raises what reading a picture raises."""

        def pick(count: int) -> int:
            return int(torch.randint(count, (), generator=draw))

        references, targets, negatives, masks = [], [], [], []
        for _ in range(rows):
            chosen = pick(len(self.clips))
            clip = self.clips[chosen]
            # Two different frames, and a clip that is another one.
            first = pick(len(clip.frames))
            second = (first + 1 + pick(len(clip.frames) - 1)) % len(clip.frames)
            other = self.clips[(chosen + 1 + pick(len(self.clips) - 1)) % len(self.clips)]
            references.append(self._read(clip.frames[first]))
            targets.append(self._read(clip.frames[second]))
            negatives.append(self._read(other.frames[pick(len(other.frames))]))
            masks.append(face_mask(clip.landmarks[second], targets[-1].shape[-1]))
        reference, target, negative, face = (torch.stack(part) for part in (references, targets, negatives, masks))
        return PictureBatch(reference, target, negative, face)


def face_mask(landmarks: Tensor, size: int) -> Tensor:
    """Eyes and mouth as the losses weigh them: float32 [1, size, size], the sum of their masks."""
    return (eye_mask(landmarks, size).float() + mouth_mask(landmarks, size).float())[None]


def _folder(root: Path, name: str) -> Path:
    for folder in (root / name, root.with_name(f"{root.name}_{name}")):
        if folder.is_dir():
            return folder
    raise PictureClipError(f"neither {root / name} nor {root.with_name(f'{root.name}_{name}')} is a folder")


def _number(path: Path) -> tuple[int, str]:
    """Frames without a number come first, by name."""
    number = path.stem.rpartition("_")[2]
    return (int(number) if number.isdecimal() else -1, path.name)

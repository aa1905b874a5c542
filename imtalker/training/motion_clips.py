"""The published data layout of the motion generator: one file a clip and kind of sequence, all at 25 frames a second.

``motion/<stem>.pt`` [N, 32] of the motion encoder, ``audio/<stem>.npy`` [N, 768] of the audio encoder,
``smirk/<stem>.pt`` with ``pose_params`` and ``cam`` [N, 3] each, ``gaze/<stem>.npy`` [N, 2]. Rows of pose, camera and
gaze that nobody knows are NaN; training drops them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from torch import Tensor

from imtalker.training.flow_matching import MotionBatch

ReferenceFrame = Literal["run", "clip"]
"""Where a run's reference is taken from: as published any of its own frames, near which motion then stays; or any of
its clip."""

_VALIDATION = 100


class ClipError(ValueError):
    """A clip's file is missing or misshapen."""


@dataclass(frozen=True)
class MotionClip:
    """All sequences of a clip, float32, of one length N."""

    motion: Tensor
    audio: Tensor
    pose: Tensor
    camera: Tensor
    gaze: Tensor

    def __len__(self) -> int:
        return len(self.motion)


def write_clip(folder: Path, stem: str, clip: MotionClip) -> None:
    """Keep a clip in the published layout under ``folder``; its subfolders are made.

    A file is there as a whole or not at all, and the motion, by which clips are found, comes last.
    """
    paths = clip_paths(folder, stem)
    paths["motion"].unlink(missing_ok=True)
    with _appearing(paths["audio"]) as file:
        np.save(file, clip.audio.numpy())
    with _appearing(paths["gaze"]) as file:
        np.save(file, clip.gaze.numpy())
    with _appearing(paths["smirk"]) as file:
        torch.save({"pose_params": _alone(clip.pose), "cam": _alone(clip.camera)}, file)
    with _appearing(paths["motion"]) as file:
        torch.save(_alone(clip.motion), file)


def read_clip(folder: Path, stem: str) -> MotionClip:
    """Read a clip; sequences are cut to the shortest. Raises ClipError naming the file."""
    paths = clip_paths(folder, stem)
    smirk = _tensors(paths["smirk"])
    if not isinstance(smirk, dict) or not {"pose_params", "cam"} <= smirk.keys():
        raise ClipError(f"{paths['smirk']}: expected a dict with pose_params and cam")
    sequences: dict[str, tuple[Path, Any]] = {
        "motion": (paths["motion"], _tensors(paths["motion"])),
        "audio": (paths["audio"], _array(paths["audio"])),
        "pose": (paths["smirk"], smirk["pose_params"]),
        "camera": (paths["smirk"], smirk["cam"]),
        "gaze": (paths["gaze"], _array(paths["gaze"])),
    }
    for name, (path, sequence) in sequences.items():
        if not isinstance(sequence, Tensor) or sequence.ndim != 2:
            found = list(sequence.shape) if isinstance(sequence, Tensor) else type(sequence).__name__
            raise ClipError(f"{path}: expected {name} as [frames, width], found {found}")
    length = min(len(sequence) for _, sequence in sequences.values())
    return MotionClip(**{name: sequence[:length].float() for name, (_, sequence) in sequences.items()})


class MotionClips:
    """Random runs of the clips in a folder.

    As published, clips shorter than a run are left out; of the sorted rest the last hundred, but for the very last, are
    for validation and all before them for training.
    """

    def __init__(
        self,
        folder: Path,
        split: Literal["train", "validation"],
        *,
        context: int,
        window: int,
        reference: ReferenceFrame = "run",
    ) -> None:
        """A run has ``context + window`` frames; ``reference`` says where its reference is taken from.

        Every clip is read once, to know that it is whole; a set need not fit into memory. Raises ClipError for broken
        clips and when none is left.
        """
        self._folder = folder
        self.context, self.window = context, window
        self._reference = reference
        stems = sorted(path.stem for path in (folder / "motion").glob("*.pt"))
        long_enough = [stem for stem in stems if len(read_clip(folder, stem)) >= context + window]
        part = long_enough[:-_VALIDATION] if split == "train" else long_enough[-_VALIDATION:-1]
        if not part:
            raise ClipError(
                f"{folder}: {len(stems)} clips, {len(long_enough)} of them with {context + window} frames or more; "
                f"more than {_VALIDATION} are needed, as the last {_VALIDATION} are kept for validation"
            )
        self.stems = part

    def batch(self, rows: int, draw: torch.Generator) -> MotionBatch:
        """Runs of clips drawn at random, each with the code of one frame as reference."""
        picked = torch.randint(len(self.stems), (rows,), generator=draw).tolist()
        return stacked([self._run(read_clip(self._folder, self.stems[index]), draw) for index in picked])

    def _run(self, clip: MotionClip, draw: torch.Generator) -> MotionBatch:
        length = self.context + self.window
        first = int(torch.randint(len(clip) - length + 1, (), generator=draw))
        run = slice(first, first + length)
        start, frames = (first, length) if self._reference == "run" else (0, len(clip))
        shown = start + int(torch.randint(frames, (), generator=draw))
        return MotionBatch(
            clip.motion[run][None],
            clip.audio[run][None],
            clip.pose[run][None],
            clip.camera[run][None],
            clip.gaze[run][None],
            clip.motion[shown][None],
        )


def stacked(batches: list[MotionBatch]) -> MotionBatch:
    """Batches of runs of one length as one batch."""
    names = ("motion", "audio", "pose", "camera", "gaze", "reference")
    return MotionBatch(*(torch.cat([getattr(batch, name) for batch in batches]) for name in names))


def clip_paths(folder: Path, stem: str) -> dict[str, Path]:
    """The files of a clip: motion, audio, smirk and gaze."""
    return {
        "motion": folder / "motion" / f"{stem}.pt",
        "audio": folder / "audio" / f"{stem}.npy",
        "smirk": folder / "smirk" / f"{stem}.pt",
        "gaze": folder / "gaze" / f"{stem}.npy",
    }


@contextmanager
def _appearing(path: Path) -> Iterator[BinaryIO]:
    """A file that appears as ``path`` when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    try:
        with partial.open("wb") as file:
            yield file
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _alone(sequence: Tensor) -> Tensor:
    """A copy: of a slice, torch would save the whole."""
    return sequence.clone(memory_format=torch.contiguous_format)


def _tensors(path: Path) -> Tensor | dict[str, Tensor]:
    try:
        found: Tensor | dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as exc:
        raise ClipError(f"{path} is missing; every clip needs motion, audio, smirk and gaze") from exc
    except Exception as exc:
        # torch names unreadable files in a dozen ways.
        raise ClipError(f"{path} can't be read: {exc}") from exc
    return found


def _array(path: Path) -> Tensor:
    try:
        return torch.from_numpy(np.load(path, allow_pickle=False))
    except FileNotFoundError as exc:
        raise ClipError(f"{path} is missing; every clip needs motion, audio, smirk and gaze") from exc
    except (ValueError, TypeError, OSError, EOFError) as exc:
        raise ClipError(f"{path} can't be read: {exc}") from exc

"""LSE-C and LSE-D: how well SyncNet finds that lips and sound belong together.

The protocol is that of SyncNet's authors (25 frames a second, windows of five, 15 shifts to either side), which Prajwal
et al., "A lip sync expert is all you need" (2020, section 4.2) made the measure of lip sync. In two things it differs,
see ``docs/metrics.md``: the face is cut where the portrait has it, and pictures are not encoded again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.inputs.fetch import file_sha256
from pipeline.metrics.catalogue import Values
from pipeline.metrics.face_square import cut_square
from pipeline.metrics.mfcc import SAMPLE_RATE, STEPS_PER_S, mfcc
from pipeline.metrics.regions import Box
from pipeline.metrics.syncnet import FRAMES, SIDE, SOUND_STEPS, load_syncnet

FPS = 25
SHIFTS = 15
MOST_FRAMES = 5 * 60 * FPS
"""An embedding is 4 kB: of longer items the first five minutes are judged."""

_BATCH = 32
_OUTSIDE = 110
"""Grey of what lies outside the picture, as in the protocol."""
_CROP_SCALE = 0.4

Embed = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Expert:
    """SyncNet's halves: ``see`` takes [n, 3, 5, 224, 224] BGR in 0..255, ``hear`` [n, 1, 13, 20]; both give [n, D]."""

    see: Embed
    hear: Embed
    device: torch.device
    sha256: str
    """Of the file of weights."""


@cache
def expert(path: str, device: str) -> Expert:
    """SyncNet with the weights at ``path``; one in a process. Raises CannotRun for other files."""
    network = load_syncnet(Path(path)).to(device)
    return Expert(network.see, network.hear, torch.device(device), file_sha256(Path(path)))


@dataclass(frozen=True)
class Agreement:
    """``distance`` (LSE-D) at the best shift, ``confidence`` (LSE-C): the median over all shifts less that, and
    ``offset`` in frames, as the protocol counts it."""

    distance: float
    confidence: float
    offset: int


def agreement(pictures: Tensor, sounds: Tensor) -> Agreement:
    """Compare embeddings [n, D] of windows that begin at the same frames.

    At each shift the distances of all windows are averaged; beyond the ends the sound's embedding is zero.
    """
    padded = F.pad(sounds, (0, 0, SHIFTS, SHIFTS))
    apart = torch.stack(
        [F.pairwise_distance(pictures, padded[k : k + len(pictures)]).mean() for k in range(2 * SHIFTS + 1)]
    )
    best = int(apart.argmin())
    least = float(apart[best])
    return Agreement(least, float(apart.median()) - least, SHIFTS - best)


class LseMeter:
    """Takes an item's frames in order and keeps an embedding of each window."""

    def __init__(self, judge: Expert, face: Box) -> None:
        """``face``: in the portrait, from hairline to chin."""
        self._judge, self._face = judge, face
        self._waiting = torch.empty(0, 3, SIDE, SIDE)
        self._seen: list[Tensor] = []
        self._frames = 0

    def add(self, frames: np.ndarray) -> None:
        """uint8 [n, R, R, 3] RGB, which are only read."""
        frames = frames[: MOST_FRAMES - self._frames]
        self._frames += len(frames)
        for begin in range(0, len(frames), _BATCH):
            self._waiting = torch.cat([self._waiting, cut(frames[begin : begin + _BATCH], self._face)])
            if len(self._waiting) >= FRAMES:
                windows = self._waiting.unfold(0, FRAMES, 1).permute(0, 1, 4, 2, 3)
                self._seen.append(self._embedded(self._judge.see, windows))
                self._waiting = self._waiting[-(FRAMES - 1) :]

    def values(self, recording: np.ndarray | None) -> Values:
        """``recording`` float [N] at 16 kHz. Without one, or with fewer than six frames of it, hashes alone."""
        found: Values = {"syncnet_sha256": self._judge.sha256}
        if recording is None:
            return found
        # As published: one window less than there is room for.
        windows = min(self._frames, len(recording) * FPS // SAMPLE_RATE) - FRAMES
        if windows < 1:
            return found
        steps = STEPS_PER_S // FPS
        needed = (windows - 1) * steps + SOUND_STEPS
        cepstra = torch.from_numpy(mfcc(recording[: (needed + 2) * SAMPLE_RATE // STEPS_PER_S])).float()
        sounds = cepstra.unfold(1, SOUND_STEPS, steps)[:, :windows].permute(1, 0, 2)[:, None]
        heard = torch.cat([self._embedded(self._judge.hear, part) for part in sounds.split(_BATCH)])
        result = agreement(torch.cat(self._seen)[: len(heard)], heard)
        return found | {"lse_d": result.distance, "lse_c": result.confidence, "lse_offset_frames": result.offset}

    @torch.inference_mode()
    def _embedded(self, embed: Embed, windows: Tensor) -> Tensor:
        return embed(windows.to(self._judge.device)).float().cpu()


def cut(frames: np.ndarray, face: Box) -> Tensor:
    """uint8 [n, R, R, 3] RGB -> BGR in 0..255, [n, 3, 224, 224]: the face as the protocol cuts it.

    Of a face that is higher than wide: a square as high as 1.4 faces, from the face's top on.
    """
    height, width = frames.shape[1:3]
    half = max((face.right - face.left) * width, (face.bottom - face.top) * height) / 2
    x, y = (face.left + face.right) / 2 * width, (face.top + face.bottom) / 2 * height
    left, top, side = int(x - half * (1 + _CROP_SCALE)), int(y - half), int(half * 2 * (1 + _CROP_SCALE))
    return cut_square(frames, left, top, side, SIDE, outside=_OUTSIDE).flip(1)

"""CSIM: how alike ArcFace finds the rendered face and the portrait's.

The cosine of two embeddings, as in Zakharov et al., "Few-shot adversarial learning of realistic neural talking head
models" (2019, section 4). Faces are not aligned by landmarks, see ``docs/metrics.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from imtalker.engine.precision import exact_float32
from pipeline.inputs.fetch import file_sha256
from pipeline.metrics.arcface import SIDE, load_arcface
from pipeline.metrics.catalogue import Level, Values
from pipeline.metrics.codes import cosine_distances
from pipeline.metrics.face_square import cut_square
from pipeline.metrics.regions import Box
from pipeline.metrics.sampling import is_judged

_BATCH = 16
_RISE = 0.035
"""Of a face's height from hairline to chin. So much above its box begins the square, as high as the box, in which eyes
and mouth lie as in ArcFace's aligned pictures: at 0.46 and 0.82 of the height, of 0.42 and 0.78 of the face."""


@dataclass(frozen=True)
class FaceExpert:
    """ArcFace: ``embed`` takes RGB in -1..1, [n, 3, 112, 112], and gives [n, D]."""

    embed: Callable[[Tensor], Tensor]
    device: torch.device
    sha256: str
    """Of the file of weights."""

    @torch.inference_mode()
    def embedded(self, frames: np.ndarray, face: Box) -> np.ndarray:
        """uint8 [n, R, R, 3] RGB -> embeddings float32 [n, D] of what stands where ``face`` is."""
        found = []
        with exact_float32(self.device):
            for begin in range(0, len(frames), _BATCH):
                pictures = aligned(frames[begin : begin + _BATCH], face) / 127.5 - 1
                found.append(self.embed(pictures.to(self.device)).float().cpu().numpy())
        return np.concatenate(found)


@cache
def face_expert(path: str, device: str) -> FaceExpert:
    """ArcFace with the weights at ``path``; one in a process. Raises CannotRun for other files."""
    return FaceExpert(load_arcface(Path(path)).to(device), torch.device(device), file_sha256(Path(path)))


def aligned(frames: np.ndarray, face: Box) -> Tensor:
    """uint8 [n, R, R, 3] -> 0..255, float32 [n, 3, 112, 112]: as near to ArcFace's pictures as a box allows."""
    height, width = frames.shape[1:3]
    side = (face.bottom - face.top) * height
    left, top = (face.left + face.right) / 2 * width - side / 2, face.top * height - _RISE * side
    # Black, as where the aligned pictures of the training reach outside.
    return cut_square(frames, round(left), round(top), max(round(side), 1), SIDE, outside=0, antialias=True)


class CsimMeter:
    """Takes an item's frames in order and keeps a number of those that `is_judged` names."""

    def __init__(self, judge: FaceExpert, face: Box, portrait: np.ndarray | None, frames: int, level: Level) -> None:
        """``face`` in the portrait; ``portrait`` its embedding [D], None where it is gone; ``frames`` in all."""
        self._judge, self._face, self._portrait = judge, face, portrait
        self._frames, self._level = frames, level
        self._seen = 0
        self._found: list[float] = []

    def add(self, frames: np.ndarray) -> None:
        """uint8 [n, R, R, 3] RGB, which are only read."""
        seen, count = self._seen, self._frames
        chosen = [index for index in range(len(frames)) if is_judged(seen + index, count, self._level)]
        self._seen += len(frames)
        if chosen and self._portrait is not None:
            embeddings = self._judge.embedded(frames[chosen], self._face)
            self._found += (1 - cosine_distances(embeddings, self._portrait)).tolist()

    def values(self, recording: np.ndarray | None) -> Values:
        """Without frames, or a portrait, the hash alone."""
        found: Values = {"arcface_sha256": self._judge.sha256}
        if self._found:
            found |= {"csim": float(np.mean(self._found)), "csim_worst": min(self._found)}
        return found

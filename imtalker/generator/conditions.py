"""What steers the motion: audio features, head pose, camera and gaze, one row per frame."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

POSE_WIDTH = 3
CAMERA_WIDTH = 3
GAZE_WIDTH = 2


def projection(width: int, dim: int) -> nn.Sequential:
    """[..., width] -> [..., dim]: the layer that brings each condition to the common width."""
    return nn.Sequential(nn.Linear(width, dim), nn.LayerNorm(dim), nn.SiLU())


@dataclass(frozen=True)
class Conditions:
    """Projected conditions, [B, frames, dim_c] each. One that is absent or dropped is zeros here."""

    audio: torch.Tensor
    pose: torch.Tensor
    camera: torch.Tensor
    gaze: torch.Tensor

    def total(self) -> torch.Tensor:
        """What the transformer sees: the sum, [B, frames, dim_c]."""
        return self.audio + self.without_audio()

    def without_audio(self) -> torch.Tensor:
        """The sum of all but the audio, for guidance."""
        return self.pose + self.camera + self.gaze


def fit_sequence(sequence: torch.Tensor, frames: int) -> torch.Tensor:
    """Cut raw [B, n, width] to ``frames`` rows, or fill it up with rows of zeros (published implementation)."""
    return F.pad(sequence[:, :frames], (0, 0, 0, max(0, frames - sequence.shape[1])))

"""Features of several recordings at once, batched by length."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from imtalker.engine.call_size import CallSize
from imtalker.engine.precision import exact_float32
from imtalker.generator.generator import MotionGenerator

_SHORTEST = 64
_BATCH_FRAMES = 1 << 14
"""Frames of a batch, fill included: 11 minutes, some 0.7 GB for the published sizes."""


def padded_length(frames: int) -> int:
    """The next length that batches are made for: at most an eighth longer, beyond short clips."""
    step = max(_SHORTEST, 1 << max(0, (frames - 1).bit_length() - 4))
    return -(-frames // step) * step


class AudioBatches:
    """`MotionGenerator.encode_audio` for recordings of any lengths, up to ``rows`` in a network call.

    Recordings are filled up to one of a few lengths, and the fill takes part in nothing. A batch's shape follows from
    the recording's own length, so its features don't depend on who shares the batch. With one row nothing is filled.
    Where the device's memory does not suffice, calls get fewer rows for good (`shrunk`).
    """

    def __init__(self, generator: MotionGenerator, *, device: str | torch.device, rows: int) -> None:
        """Raises ValueError for fewer than one row."""
        self.device = torch.device(device)
        self._call_size = CallSize(rows)
        self._generator = generator.eval()

    @property
    def shrunk(self) -> bool:
        """Whether the device had too little memory for as many rows as wished."""
        return self._call_size.shrunk

    def encode(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """Normalised 16 kHz waveforms [N] -> features float32 [T, hidden_size] of each, T = ceil(N * fps / 16000).

        Raises ValueError as `MotionGenerator.encode_audio` does.
        """
        with torch.inference_mode(), exact_float32(self.device):
            if self._call_size.wished == 1:
                return [self._generator.encode_audio(waveform[None])[0] for waveform in waveforms]
            heard = [self._generator.convolve_audio(waveform[None])[0] for waveform in waveforms]
            groups: dict[int, list[int]] = {}
            for index, row in enumerate(heard):
                groups.setdefault(padded_length(len(row)), []).append(index)
            found: dict[int, Tensor] = {}
            for length, members in groups.items():
                group = [heard[i] for i in members]
                features = self._call_size.run(partial(self._group, group, length))
                found |= zip(members, features, strict=True)
            return [found[index] for index in range(len(waveforms))]

    def _group(self, heard: list[Tensor], length: int, rows: int) -> list[Tensor]:
        """Features of recordings that are filled up to one length."""
        rows = max(1, min(rows, _BATCH_FRAMES // length))
        parts = (heard[first : first + rows] for first in range(0, len(heard), rows))
        return [features for part in parts for features in self._transformed(part, length, rows)]

    def _transformed(self, heard: list[Tensor], length: int, rows: int) -> list[Tensor]:
        """Rows [T, conv_dim] -> features [T, hidden_size], from a batch [rows, length, conv_dim]."""
        counts = [len(row) for row in heard]
        spare = rows - len(heard)
        filled = torch.stack([F.pad(row, (0, 0, 0, length - len(row))) for row in [*heard, *heard[-1:] * spare]])
        ends = torch.tensor([*counts, *counts[-1:] * spare], device=filled.device)
        valid = torch.arange(length, device=filled.device) < ends[:, None]
        features = self._generator.audio_encoder.transform(filled, valid)
        return [row[:count] for row, count in zip(features, counts, strict=False)]

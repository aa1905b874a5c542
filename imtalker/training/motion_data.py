"""Where a generator's training takes its batches from: a folder of clips, some for training, some for validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import torch

from imtalker.config import GeneratorConfig
from imtalker.training.chance import chance
from imtalker.training.flow_matching import MotionBatch
from imtalker.training.motion_clips import ClipError, MotionClips, ReferenceFrame, stacked


class MotionData:
    """Random runs. Each row has chance of its own, so a process reads only its own rows."""

    def __init__(
        self, folder: Path, config: GeneratorConfig, *, seed: int, rows: int, reference: ReferenceFrame = "run"
    ) -> None:
        """``rows`` in a batch. Raises ClipError for broken or too few clips, and for other widths than the config's."""
        context, window = config.num_prev_frames, config.window
        self._clips = MotionClips(folder, "train", context=context, window=window, reference=reference)
        self._others = MotionClips(folder, "validation", context=context, window=window, reference=reference)
        self._seed, self._rows = seed, rows
        one = self._clips.batch(1, chance(seed))
        wanted = {"motion": config.dim_motion, "audio": config.wav2vec2.hidden_size, "pose": 3, "camera": 3, "gaze": 2}
        for name, width in wanted.items():
            found = getattr(one, name).shape[-1]
            if found != width:
                raise ClipError(f"{folder}: {name} is {found} wide, but the generator's sizes say {width}")

    def parts(self, step: int, wanted: Sequence[int], count: int) -> list[MotionBatch]:
        """The ``wanted`` ones of ``count`` equal parts of a step's batch."""
        each = self._rows // count
        return [
            stacked([self._clips.batch(1, chance(self._seed, step, part * each + row)) for row in range(each)])
            for part in wanted
        ]

    def held_out(self, rows: int) -> MotionBatch:
        """Always the same runs of clips that are for validation."""
        return self._others.batch(rows, chance(0))


def placed(batch: MotionBatch, device: torch.device | str) -> MotionBatch:
    """The batch on a device."""
    return replace(batch, **{field.name: getattr(batch, field.name).to(device) for field in fields(batch)})

"""A small world for trainings: clips in both published layouts, and sizes that a CPU trains in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from imtalker.training.motion_clips import MotionClip, write_clip
from imtalker.training.picture_clips import write_landmarks
from pipeline.training.record import check_record
from pipeline.training.settings import GeneratorSettings, RendererSettings
from pipeline.training.work import work

RENDERER = {
    "resolution": 64,
    "channels": [16, 16, 8],
    "motion_levels": 2,
    "motion_encoder_channels": [8, 8, 16, 16],
    "dim_identity": 16,
    "dim_hidden": 16,
    "num_heads": 2,
    "swin_res_threshold": 32,
}
GENERATOR = {"dim_h": 32, "fmt_depth": 1, "num_heads": 2, "wav2vec_sec": 0.4, "num_prev_frames": 4}

_AUDIO_WIDTH = 64
"""Of the audio encoder of imtalker-tiny."""


def motion_clips(root: Path) -> Path:
    """103 clips of 16 frames: three for training, the rest for validation."""
    for number in range(103):
        draw = torch.Generator().manual_seed(number)
        widths = {"motion": 32, "audio": _AUDIO_WIDTH, "pose": 3, "camera": 3, "gaze": 2}
        sequences = {name: torch.randn(16, width, generator=draw) for name, width in widths.items()}
        write_clip(root, f"clip{number:03}", MotionClip(**sequences))
    return root


def picture_clips(root: Path, count: int = 2) -> Path:
    """Clips of 26 frames of 40 x 48 pixels, each of one colour."""
    points = torch.rand(68, 2, generator=torch.Generator().manual_seed(0))
    for clip in range(count):
        frames = root / "video_frame" / f"clip{clip}"
        frames.mkdir(parents=True)
        names = [f"clip{clip}_{number}.png" for number in range(26)]
        for number, name in enumerate(names):
            Image.new("RGB", (40, 48), (100 * clip, 5 * number, 0)).save(frames / name)
        write_landmarks(root / "lmd" / f"clip{clip}.txt", {name: points for name in names})
    return root


def train_two_steps(settings: RendererSettings | GeneratorSettings) -> None:
    """The first stretch of a training that is stopped, in this process."""
    check_record("renderer" if isinstance(settings, RendererSettings) else "generator", settings)
    stop = iter([False, True])
    with pytest.raises(KeyboardInterrupt):
        work(settings, torch.device("cpu"), lambda progress: None, stop=lambda: next(stop))


def generator_document(data: Path, output: Path, **more: Any) -> dict[str, Any]:
    """Settings of a generator that trains in a moment."""
    document = {
        "model": "imtalker-tiny",
        "sizes": GENERATOR,
        "data": data,
        "output": output,
        "batch": 4,
        "average": 0.5,
    }
    return document | {"learning_rate": 1e-2, "device": "cpu", **more}


def renderer_document(output: Path, **more: Any) -> dict[str, Any]:
    """Settings of a renderer that trains in a moment, on avatars."""
    document: dict[str, Any] = {"model": "imtalker-tiny", "sizes": RENDERER, "output": output, "batch": 4}
    document |= {"avatars": {"groups": 2, "states": 3}, "warmup": 1, "average": 0.5, "device": "cpu"}
    return document | more

"""What a benchmark of the networks measures, and how much of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class NetworkOptions:
    """Sizes of the measurement. The defaults take some minutes for the published sizes on two CPU cores."""

    model: str = "imtalker"
    """Preset whose sizes are measured; its weights are seeded stand-ins."""
    device: str = "cpu"
    precisions: tuple[str, ...] = ("float32", "bfloat16")
    """Of the engine's rows, names of `DTYPES`; the other paths are float32."""
    compile: bool = False
    """Measure the engine with ``torch.compile`` too."""
    batch_size: int = 4
    """Frames rendered at once."""
    frames: int = 8
    """Frames of a round."""
    audio_seconds: float = 4.0
    in_flight: int = 4
    """Recordings in one batch of audio encoder and motion generator."""
    rounds: int = 3
    """The best of them counts."""
    threads: int | None = None
    """Torch threads of every path; the published one takes as many of them as suit it best. None: torch's own."""
    matrix_size: int | None = None
    """Side of the matrices whose product is the device's peak; None: 2048 on CPUs, 8192 on GPUs."""

    @property
    def product_size(self) -> int:
        return self.matrix_size or (2048 if self.device == "cpu" else 8192)


def default_device() -> str:
    """A GPU where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"

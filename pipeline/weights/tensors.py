"""Tensors of files that hold no model of the catalogue."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from imtalker.safetensors_files import check_finite, read_safetensors
from imtalker.torch_files import CheckpointError, read_torch_file
from pipeline.errors import CannotRun


def read_tensors(path: Path) -> dict[str, Tensor]:
    """By name, from a safetensors file or a torch file, of which nothing is run.

    Raises CannotRun for a file that is missing, broken or holds other things, or values that are not finite.
    """
    try:
        found = read_safetensors(path) if path.suffix == ".safetensors" else read_torch_file(path)
        check_finite(found, str(path))
    except CheckpointError as exc:
        raise CannotRun(str(exc)) from exc
    return found

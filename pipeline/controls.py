"""Control sequences that an item may bring: head pose, camera and gaze, one row a frame at 25 a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.errors import InputError

WIDTHS = {"pose": 3, "camera": 3, "gaze": 2}
"""Columns: pose and camera as SMIRK gives them, gaze as pitch and yaw in radians (L2CS-Net)."""


def read_controls(role: str, path: Path, uri: str) -> dict[str, np.ndarray]:
    """Read one file: ``.npy`` [T, n], or for ``pose`` a SMIRK ``.pt`` that holds pose and camera.

    Returns float32 sequences by name. Raises InputError for another format, shape or non-finite values.
    """
    if path.suffix == ".pt" and role == "pose":
        content = _load_pt(path, uri)
        return {
            "pose": _checked("pose", content["pose_params"], uri),
            "camera": _checked("camera", content["cam"], uri),
        }
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as exc:
        raise InputError(
            f"{role} file {uri} is not a plain .npy array: {exc}",
            hint=f"save float rows with numpy.save, shape [frames, {WIDTHS[role]}]",
        ) from exc
    return {role: _checked(role, array, uri)}


def _load_pt(path: Path, uri: str) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as exc:
        raise InputError(f"pose file {uri} can't be read: {exc}", hint="give SMIRK's .pt or a .npy") from exc
    if not isinstance(content, dict) or not {"pose_params", "cam"} <= set(content):
        raise InputError(
            f"pose file {uri} does not hold 'pose_params' and 'cam'", hint="give SMIRK's .pt, or a .npy [frames, 3]"
        )
    return content


def _checked(role: str, value: Any, uri: str) -> np.ndarray:
    array = np.asarray(value, dtype=np.float32)
    if array.ndim != 2 or array.shape[1] != WIDTHS[role] or not len(array):
        raise InputError(
            f"{role} in {uri} has shape {list(array.shape)}; expected [frames, {WIDTHS[role]}], 25 rows a second",
            hint="convert the sequence to one row a frame",
        )
    if not np.isfinite(array).all():
        raise InputError(f"{role} in {uri} holds values that are not finite", hint="repair the sequence")
    return array

"""Control sequences that an item may bring: head pose, camera and gaze, one row a frame at 25 a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.errors import InputError

WIDTHS = {"pose": 3, "camera": 3, "gaze": 2}
"""Columns: pose and camera as SMIRK gives them, gaze as pitch and yaw in radians (L2CS-Net)."""

_SMIRK = {"pose": "pose_params", "camera": "cam"}
"""What a SMIRK file calls them."""


def read_controls(role: str, path: Path, uri: str) -> dict[str, np.ndarray]:
    """Read one file: ``.npy`` [T, n], or for ``pose`` a SMIRK ``.pt`` that holds pose and camera.

    Returns float32 sequences by name. Raises InputError for another format, shape or non-finite values.
    """
    if path.suffix.lower() == ".pt" and role == "pose":
        content = _load_pt(path, uri)
        return {name: _checked(name, content[key], uri) for name, key in _SMIRK.items()}
    try:
        # Mapped, so that a header that promises more than the file holds costs no memory.
        array = np.load(path, allow_pickle=False, mmap_mode="r")
    except (OSError, ValueError, EOFError) as exc:
        raise _not_an_array(role, uri, str(exc)) from exc
    if not isinstance(array, np.ndarray):
        array.close()
        raise _not_an_array(role, uri, "it is an archive (.npz)")
    return {role: _checked(role, array, uri)}


def _not_an_array(role: str, uri: str, reason: str) -> InputError:
    return InputError(
        f"{role} file {uri} is not a plain .npy array: {reason}",
        hint=f"save float rows with numpy.save, shape [frames, {WIDTHS[role]}]",
    )


def _load_pt(path: Path, uri: str) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as exc:  # the reader raises nearly anything for a damaged or hostile file
        # Its own words advise to load the file unsafely.
        raise InputError(
            f"pose file {uri} is not a torch file of plain tensors ({type(exc).__name__})",
            hint="give SMIRK's .pt with tensors 'pose_params' and 'cam', or a .npy [frames, 3]",
        ) from exc
    if not isinstance(content, dict) or not set(_SMIRK.values()) <= set(content):
        raise InputError(
            f"pose file {uri} does not hold 'pose_params' and 'cam'", hint="give SMIRK's .pt, or a .npy [frames, 3]"
        )
    return content


def _checked(role: str, value: Any, uri: str) -> np.ndarray:
    if isinstance(value, torch.Tensor) and not value.is_complex():
        value = value.detach().to(torch.float32).numpy()
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
        kind = value.dtype if isinstance(value, np.ndarray | torch.Tensor) else type(value).__name__
        raise InputError(f"{role} in {uri} holds {kind}; expected numbers", hint="store the sequence as float32")
    if value.ndim != 2 or value.shape[1] != WIDTHS[role] or not len(value):
        raise InputError(
            f"{role} in {uri} has shape {list(value.shape)}; expected [frames, {WIDTHS[role]}], 25 rows a second",
            hint="convert the sequence to one row a frame",
        )
    with np.errstate(over="ignore"):  # what float32 can't hold is infinite below
        array = np.array(value, dtype=np.float32)
    if not np.isfinite(array).all():
        raise InputError(f"{role} in {uri} holds values that are not finite", hint="repair the sequence")
    return array

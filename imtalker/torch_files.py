"""Reading other people's torch files (``.ckpt``, ``.bin``) without running anything that they hold."""

from __future__ import annotations

import argparse
import pathlib
import pickle
import re
import zipfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


class CheckpointError(ValueError):
    """A file of weights that can't be used. The message names the file, what is wrong, and what to do."""


def _plain_dict(*_: object) -> dict[Any, Any]:
    """Stands in for ``defaultdict``, which torch's reader would not fill."""
    return {}


# Its module moved between numpy 1 and 2; files name it either way.
_numpy_scalar: Any = np.float64(0).__reduce__()[0]

# Everything a file may name beyond torch's own tensors. Lightning stores hyper-parameters and the state of its
# callbacks; these types carry values only. Paths become pure paths, dicts of other kinds plain ones.
_ALLOWED_GLOBALS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    argparse.Namespace,
    (_plain_dict, "collections.defaultdict"),
    dict,
    float,
    int,
    list,
    (pathlib.PurePosixPath, "pathlib.PosixPath"),
    (pathlib.PureWindowsPath, "pathlib.WindowsPath"),
    (dict, "pytorch_lightning.utilities.parsing.AttributeDict"),
    (dict, "lightning.pytorch.utilities.parsing.AttributeDict"),
    (dict, "lightning_fabric.utilities.data.AttributeDict"),
    (dict, "lightning.fabric.utilities.data.AttributeDict"),
    (_numpy_scalar, "numpy.core.multiarray.scalar"),
    (_numpy_scalar, "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(name)) for name in ("bool", "int32", "int64", "float32", "float64")),
]

# Entries of a Lightning file beside the weights, for files that keep the weights at the top level too.
_TRAINER_ENTRIES = frozenset(
    {
        "callbacks",
        "ema_state_dict",
        "epoch",
        "global_step",
        "hparams_name",
        "hyper_parameters",
        "loops",
        "lr_schedulers",
        "optimizer_states",
        "pytorch-lightning_version",
    }
)

_LISTED = 10


def read_torch_file(path: Path) -> dict[str, Tensor]:
    """The tensors that ``path`` keeps in ``state_dict``, else at its top level; in it ``model``, if that nests.

    The tensors stay mapped to the file where its format allows. Raises CheckpointError if the file is missing, not
    whole, names a global that isn't allowed, or holds something else than tensors.
    """
    content = _load(path)
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}; expected a dict of tensors")
    weights = content.get("state_dict", content)
    if isinstance(weights, Mapping):
        weights = weights.get("model", weights)
    if not isinstance(weights, Mapping):
        raise CheckpointError(f"the state_dict in {path} is a {type(weights).__name__}; expected a dict of tensors")
    found = {key: value for key, value in weights.items() if key not in _TRAINER_ENTRIES}
    if foreign := [str(key) for key, value in found.items() if not isinstance(value, Tensor)]:
        raise CheckpointError(f"{path} has entries that are not tensors: {listed(foreign)}")
    return found


def listed(names: Collection[str]) -> str:
    """The first ten of ``names``, for a message."""
    shown = ", ".join(list(names)[:_LISTED])
    return f"{shown}, ... ({len(names) - _LISTED} more)" if len(names) > _LISTED else shown


def _load(path: Path) -> Any:
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}: expected a .ckpt or .safetensors file")
    zipped = zipfile.is_zipfile(path)
    try:
        with torch.serialization.safe_globals(_ALLOWED_GLOBALS):
            refused = torch.serialization.get_unsafe_globals_in_checkpoint(path) if zipped else []
            if not refused:
                return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError) as error:
        refused = re.findall(r"GLOBAL (\S+)", str(error))
        if not refused:
            raise CheckpointError(
                f"{path} is not a whole torch checkpoint, or not one that can be read safely ({_reason(error)}); "
                "fetch it again and compare its checksum"
            ) from error
    raise CheckpointError(
        f"{path} names {listed(sorted(refused))}, which a file of weights may not; nothing of it was run. "
        "Get the file from a source you trust, or save its state_dict alone"
    )


def _reason(error: Exception) -> str:
    """What was found, without the advice that torch wraps it in."""
    inner = error.__context__ if isinstance(error.__context__, pickle.UnpicklingError) else error
    return str(inner).partition(". ")[0].strip() or type(error).__name__

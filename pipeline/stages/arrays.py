"""Checks of what networks return."""

from __future__ import annotations

import numpy as np

from pipeline.errors import ItemError
from pipeline.talker import Arrays


def checked_finite(arrays: Arrays, what: str) -> Arrays:
    """The arrays themselves. Raises an ItemError of kind ``model`` that counts the values that aren't finite."""
    for name, array in arrays.items():
        if array.dtype.kind != "f":
            continue
        bad = int(array.size - np.isfinite(array).sum())
        if bad:
            raise ItemError(
                "model",
                f"{what}: {bad} of {array.size} values of {name!r} are not finite",
                hint="check the weights (imtalker models verify) and try precision: float32",
            )
    return arrays

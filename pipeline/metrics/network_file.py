"""Weights that the user names, laid into a network: nothing missing, nothing of another shape, nothing unknown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from torch import Tensor, nn

from pipeline.errors import CannotRun

N = TypeVar("N", bound=nn.Module)

ANY = ("",)
"""For ``unused``: whatever else a file holds."""


def filled(network: N, found: Mapping[str, Tensor], path: Path, what: str, unused: tuple[str, ...] = ()) -> N:
    """``network`` with the tensors that were ``found`` in ``path``, frozen, in evaluation mode.

    Tensors whose names begin with one of ``unused`` are left alone. Raises CannotRun for a file that doesn't hold
    ``what``.
    """
    # Norms count their batches, which nothing here reads and some versions of files lack.
    expected = {name: value for name, value in network.state_dict().items() if not _counts(name)}
    wrong = [name for name, value in expected.items() if name not in found or found[name].shape != value.shape]
    if wrong:
        raise CannotRun(
            f"{path} doesn't hold {what}: {len(wrong)} tensors are missing or of another shape, {wrong[0]} the first"
        )
    strange = [name for name in found if name not in expected and not _counts(name) and not name.startswith(unused)]
    if strange:
        raise CannotRun(f"{path} doesn't hold {what}: {len(strange)} tensors are not of it, {strange[0]} the first")
    network.load_state_dict({name: found[name] for name in expected}, strict=False)
    return network.requires_grad_(False).eval()


def _counts(name: str) -> bool:
    return name.endswith("num_batches_tracked")

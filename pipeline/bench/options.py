"""What a benchmark measures, and how much of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from imtalker.engine.bench.networks import NETWORK_PARTS
from imtalker.engine.bench.options import DTYPES, NetworkOptions, default_device
from imtalker.presets import PRESETS
from pipeline.errors import CannotRun

PARTS = (*NETWORK_PARTS, "crop", "decode", "encode", "whole")
"""What can be measured alone; ``whole`` is the pipeline."""
SIMULATED = ("scaling",)
"""Measured only when it is asked for: it says nothing about this machine's speed."""


@dataclass(frozen=True)
class BenchOptions:
    """Sizes of the measurement."""

    networks: NetworkOptions = field(default_factory=NetworkOptions)
    only: frozenset[str] = frozenset(PARTS)
    """Of `PARTS` and `SIMULATED`."""
    media_seconds: float = 4.0
    """Of the demo's driver and recordings, decoded and encoded."""
    items: int = 8
    """Items of the run that is the whole pipeline."""
    item_seconds: float = 4.0
    executor: Literal["auto", "ray", "process"] = "auto"
    """Of that run; ``auto``: Ray where it is installed, else this process."""

    @property
    def run_precision(self) -> str:
        """Precision of that run: the last one that the engine is measured with."""
        return self.networks.precisions[-1]


def bench_options(
    *,
    only: Sequence[str],
    media_seconds: float,
    items: int,
    item_seconds: float,
    executor: Literal["auto", "ray", "process"],
    device: Literal["cpu", "cuda"] | None,
    precisions: Sequence[str],
    **networks: Any,
) -> BenchOptions:
    """Options from flags; what is not named here is a field of `NetworkOptions`.

    ``device`` None is a GPU where there is one. Raises CannotRun for what is not known or not there.
    """
    _check_known("part", only, (*PARTS, *SIMULATED))
    _check_known("precision", precisions, DTYPES)
    _check_known("model", [networks["model"]], PRESETS)
    place = device or default_device()
    if place == "cuda" and not torch.cuda.is_available():
        raise CannotRun("device cuda was asked for, but torch sees no GPU; use cpu")
    chosen = NetworkOptions(device=place, precisions=tuple(precisions), **networks)
    return BenchOptions(chosen, frozenset(only), media_seconds, items, item_seconds, executor)


def _check_known(what: str, given: Sequence[str], known: Any) -> None:
    if unknown := [name for name in given if name not in known]:
        raise CannotRun(f"there is no {what} {', '.join(map(repr, unknown))}; choose of {', '.join(known)}")

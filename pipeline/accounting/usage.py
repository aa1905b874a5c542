"""Seconds of processors and GPUs, and whose share of a machine they are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pydantic import BaseModel

if TYPE_CHECKING:
    from pipeline.machines.resources import Placement

RENDER = "render"


class Share(BaseModel):
    """What an actor of a stage has of its machine."""

    cpus: float
    gpus: float
    items_at_once: int = 1


class Usage(BaseModel):
    """``cpu_s`` and ``gpu_s`` are seconds of one whole CPU or GPU: half a GPU for ten seconds is five."""

    busy_s: float = 0.0
    cpu_s: float = 0.0
    gpu_s: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(busy_s=self.busy_s + other.busy_s, cpu_s=self.cpu_s + other.cpu_s, gpu_s=self.gpu_s + other.gpu_s)

    def rounded(self) -> Usage:
        return Usage(busy_s=round(self.busy_s, 4), cpu_s=round(self.cpu_s, 4), gpu_s=round(self.gpu_s, 4))


def shares(placement: Placement) -> dict[str, Share]:
    """Each stage's share, of the actors' pools."""
    return {
        stage: Share(cpus=pool.num_cpus, gpus=pool.num_gpus, items_at_once=pool.items_at_once)
        for stage, pool in placement.items()
    }


def used(seconds: float, share: Share, *, device_s: float | None = None) -> Usage:
    """What ``seconds`` of an actor come to.

    An actor that has several items in hand spends the time of each on all of them; its device works on one at a time,
    for ``device_s`` where that is known.
    """
    own = seconds / share.items_at_once
    on_device = device_s if device_s is not None and share.items_at_once > 1 else own
    return Usage(busy_s=seconds, cpu_s=own * share.cpus, gpu_s=on_device * share.gpus)


def total(usages: Iterable[Usage]) -> Usage:
    return sum(usages, Usage())

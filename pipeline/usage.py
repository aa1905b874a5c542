"""What an item used of processors and GPUs in each stage."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pydantic import BaseModel

if TYPE_CHECKING:
    from pipeline.resources import Placement
    from pipeline.tasks import ItemTask

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


def own_usage(item: ItemTask) -> dict[str, Usage]:
    """What an item, or a part of one, used in the stages of its own, motion and render."""
    found = {
        stage: used(seconds, item.shares[stage]) for stage, seconds in item.seconds.items() if stage in item.shares
    }
    if RENDER in found:
        share = item.shares[RENDER]
        if item.parts:
            found[RENDER] = total(used(part.seconds, share, device_s=part.device_s) for part in item.parts)
            found[RENDER] += joining_usage(item)
        else:
            device_s = item.part.device_s if item.part else (item.video or {}).get("render_s")
            found[RENDER] = used(item.seconds[RENDER], share, device_s=device_s)
    return found


def joining_usage(item: ItemTask) -> Usage:
    """What it took to join an item's parts: one CPU, beside the actors."""
    seconds = max(item.seconds.get(RENDER, 0.0) - sum(part.seconds for part in item.parts), 0.0)
    return Usage(busy_s=seconds, cpu_s=seconds)


def item_usage(item: ItemTask) -> dict[str, Usage]:
    """What an item used in every stage; files that several items name are shared out among these."""
    found = own_usage(item)
    for asset in (item.portrait, item.audio, item.driver):
        if asset is None:
            continue
        for stage, seconds in asset.seconds.items():
            if stage in item.shares:
                part = used(seconds / max(asset.items, 1), item.shares[stage])
                found[stage] = found.get(stage, Usage()) + part
    return {stage: usage.rounded() for stage, usage in found.items()}


def total(usages: Iterable[Usage]) -> Usage:
    return sum(usages, Usage())

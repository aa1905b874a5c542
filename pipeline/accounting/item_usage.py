"""What an item used of processors and GPUs in each stage."""

from __future__ import annotations

from pipeline.accounting.usage import RENDER, Usage, total, used
from pipeline.tasks import ItemTask


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

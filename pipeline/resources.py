"""What each stage's actors get: the job's wishes, filled up from what the machine or the cluster has."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.config import Resources, StageResources
from pipeline.errors import CannotRun

PHASES = (("crop", "features"), ("motion", "render"))
"""Stages that run at the same time: assets first, then items."""

# Shares of one GPU where the stages of a phase share it.
_GPU_SHARE = {"crop": 0.0, "features": 1.0, "motion": 0.2, "render": 0.8}


@dataclass(frozen=True)
class Pool:
    """The actors of one stage."""

    actors: int
    num_cpus: float
    num_gpus: float
    threads: int
    """Torch threads of each actor."""


Placement = dict[str, Pool]


def place(wishes: Resources, available: Mapping[str, float]) -> Placement:
    """A pool for every stage that fits ``available`` (Ray's resource names: CPU, GPU).

    Without GPUs the networks run on CPUs, with the stages of a phase sharing all of them; with one GPU the stages
    share it; with more there is a render actor for each. Raises CannotRun naming the resource that is short.
    """
    cpus, gpus = available.get("CPU", 0.0), available.get("GPU", 0.0)
    placement: Placement = {}
    for phase in PHASES:
        pools = {stage: _pool(stage, getattr(wishes, stage), cpus, int(gpus)) for stage in phase}
        for resource, have, field in (("CPU", cpus, "num_cpus"), ("GPU", gpus, "num_gpus")):
            need = sum(getattr(pool, field) * pool.actors for pool in pools.values())
            if need > have + 1e-6:
                raise CannotRun(
                    f"stages {' and '.join(phase)} need {need:g} {resource}, but there are {have:g}; "
                    f"lower resources.<stage>.{field} or .actors, or add machines"
                )
        placement |= pools
    return placement


def _pool(stage: str, wish: StageResources, cpus: float, gpus: int) -> Pool:
    network = stage != "crop"
    actors = wish.actors or (max(gpus, 1) if stage in ("features", "render") else 1)
    if wish.num_cpus is not None:
        num_cpus = wish.num_cpus
    elif stage in ("crop", "motion"):
        num_cpus = min(1.0, cpus / 4)
    else:
        # What the phase's other stage leaves; a GPU worker needs no more than two for decoding and encoding.
        left = (cpus - min(1.0, cpus / 4)) / actors
        num_cpus = min(left, 2.0) if gpus else left
    num_cpus = math.floor(num_cpus * 100) / 100
    num_gpus = wish.num_gpus
    if num_gpus is None:
        num_gpus = _GPU_SHARE[stage] if gpus and network else 0.0
    return Pool(actors, num_cpus, num_gpus, wish.threads or max(1, math.ceil(num_cpus)))

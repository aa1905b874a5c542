"""What each stage's actors get: the job's wishes, filled up from what the machine or the cluster has."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.config import RenderResources, Resources, StageResources
from pipeline.errors import CannotRun

PHASES = (("crop", "features"), ("motion", "render"))
"""Stages that run at the same time: assets first, then items. The second of each does most of the work."""

_MOTION_GPU_SHARE = 0.2
_GPU_WORKER_CPUS = {"features": 2.0, "render": 10.0}
"""More does not help an actor whose networks run on a GPU: it decodes beside them, or hashes, encodes and muxes."""
_MOST_ENCODERS = 8
"""At 512 pixels so many libx264 threads keep up with the fastest GPUs."""


PATIENT_THREADS = {"GOMP_SPINCOUNT": "2000"}
"""Environment in which torch's threads soon sleep at a barrier. By default they spin for milliseconds, and as soon as
another process wants a core (another stage, an encoder) every barrier lasts until the system's scheduler comes round:
networks on two shared cores ran up to 20 times slower. Sleeping at once would cost a sixth where nothing else runs, so
they spin for some 50 microseconds. Read when torch is first imported."""


@dataclass(frozen=True)
class Pool:
    """The actors of one stage."""

    actors: int
    num_cpus: float
    num_gpus: float
    threads: int
    """Torch threads of each actor."""
    encoders: int | None = None
    """Encoder threads of each actor of the render stage; None for the others."""

    @property
    def items_at_once(self) -> int:
        """Items that an actor has in hand: beside one on the GPU, as many as there are threads to encode them."""
        return 1 + self.encoders if self.encoders and self.num_gpus else 1


Placement = dict[str, Pool]


def place(wishes: Resources, *machines: Mapping[str, float]) -> Placement:
    """A pool for every stage that fits the machines; each is given by Ray's resource names (CPU, GPU).

    Without GPUs the networks run on CPUs, an actor on each machine, and the stages of a phase share all of them; with
    one GPU the stages share it; with more there is an actor of the heavy stages for each. Every actor finds room on
    one machine, and every share of a GPU on one GPU, because Ray would wait for ever for one that does not. Raises
    CannotRun naming the resource that is short.
    """
    return {
        stage: pool for phase in PHASES for stage, pool in _place_phase(phase, wishes, _with_cpus(machines)).items()
    }


@dataclass
class _Machine:
    """What is left of a machine: CPUs, and the free share of each GPU."""

    cpus: float
    gpus: list[float]

    def take(self, num_cpus: float, num_gpus: float) -> bool:
        """Give an actor its share, on the fullest GPU that has room; False when there is none."""
        share, count = min(num_gpus, 1.0), math.ceil(num_gpus)
        room = sorted((free, gpu) for gpu, free in enumerate(self.gpus) if _fits(share, free))[:count]
        if not _fits(num_cpus, self.cpus) or len(room) < count:
            return False
        self.cpus -= num_cpus
        for _, gpu in room:
            self.gpus[gpu] -= share
        return True


def _fits(need: float, free: float) -> bool:
    return need <= free + 1e-6


def _with_cpus(machines: Sequence[Mapping[str, float]]) -> list[_Machine]:
    found = [_Machine(m.get("CPU", 0.0), [1.0] * int(m.get("GPU", 0))) for m in machines]
    usable = [machine for machine in found if machine.cpus > 0]
    if not usable:
        raise CannotRun("no stage can run: there are 0 CPU; start Ray with --num-cpus, or add machines")
    return usable


def reserved(placement: Placement) -> tuple[float, float]:
    """CPUs and GPUs that a run keeps from others: those of its larger phase."""
    pools = [[placement[stage] for stage in phase] for phase in PHASES]
    return (
        max(sum(pool.num_cpus * pool.actors for pool in phase) for phase in pools),
        max(sum(pool.num_gpus * pool.actors for pool in phase) for phase in pools),
    )


def _place_phase(phase: tuple[str, str], wishes: Resources, machines: list[_Machine]) -> Placement:
    side, main = phase
    side_pool = _side_pool(side, getattr(wishes, side), getattr(wishes, main), machines)
    pools = {side: side_pool, main: _main_pool(main, getattr(wishes, main), side_pool, machines)}
    _check(pools, machines)
    return pools


def _side_pool(stage: str, wish: StageResources, main: StageResources, machines: list[_Machine]) -> Pool:
    """The light stage of a phase: a quarter of the CPUs, or half when several actors are wished for."""
    actors = wish.actors or 1
    num_cpus = wish.num_cpus
    if num_cpus is None:
        cpus = sum(machine.cpus for machine in machines)
        left = cpus - (main.num_cpus or 0.0) * (main.actors or 1)
        share = min(1.0, cpus / max(4, 2 * actors))
        num_cpus = _floor(min(share, left / actors) if left > 0 else share)
    num_gpus = wish.num_gpus
    gpus = _count_gpus(machines)
    if num_gpus is None:
        share = _MOTION_GPU_SHARE if stage == "motion" and gpus else 0.0
        if main.num_gpus is not None and main.num_gpus < 1:
            share = min(share, 1 - main.num_gpus)
        num_gpus = _floor(share / math.ceil(actors / gpus)) if gpus else 0.0
    return Pool(actors, num_cpus, num_gpus, wish.threads or _threads(num_cpus))


def _main_pool(stage: str, wish: StageResources, side: Pool, machines: list[_Machine]) -> Pool:
    """The heavy stage of a phase: what the light one leaves."""
    gpus = _count_gpus(machines)
    side_cpus = side.num_cpus * side.actors
    # What the light stage takes of every GPU, if it does not take whole ones.
    side_share = side.num_gpus * math.ceil(side.actors / gpus) if gpus else 0.0
    num_gpus = wish.num_gpus
    if num_gpus is None:
        num_gpus = 0.0 if not gpus else _floor(1 - side_share) if side_share < 1 else 1.0
    if num_gpus:
        # One for each GPU; where the light stage takes whole ones, for each that is left.
        left = gpus if side_share < 1 else gpus - math.ceil(side.num_gpus * side.actors)
        actors = wish.actors or max(1, left)
        hosts = [machine for machine in machines if machine.gpus]
        spread = min(((m.cpus - side_cpus) / len(m.gpus) for m in hosts), default=0.0)
        if wish.actors is not None:
            spread = (sum(m.cpus for m in hosts) - side_cpus) / actors
        share = min(_GPU_WORKER_CPUS[stage], spread)
    else:
        largest = max(machine.cpus for machine in machines)
        hosts = [machine for machine in machines if _fits(largest, machine.cpus)]
        actors = wish.actors or len(hosts)
        share = (largest - side_cpus) / math.ceil(actors / len(hosts))
    num_cpus = _floor(max(share, 0.0)) if wish.num_cpus is None else wish.num_cpus
    encoders = None
    if isinstance(wish, RenderResources):
        encoders = wish.encoders or (min(max(round(num_cpus), 1), _MOST_ENCODERS) if num_gpus else 1)
    return Pool(actors, num_cpus, num_gpus, wish.threads or _threads(num_cpus), encoders)


def _check(pools: Placement, machines: list[_Machine]) -> None:
    """Raises CannotRun for a phase that does not fit."""
    names = " and ".join(pools)
    for resource, field, have in (
        ("CPU", "num_cpus", sum(m.cpus for m in machines)),
        ("GPU", "num_gpus", float(_count_gpus(machines))),
    ):
        need = sum(getattr(pool, field) * pool.actors for pool in pools.values())
        if not _fits(need, have):
            raise CannotRun(
                f"stages {names} need {need:g} {resource}, but there are {have:g}; "
                f"lower resources.<stage>.{field} or .actors, or add machines"
            )
    free = [_Machine(machine.cpus, list(machine.gpus)) for machine in machines]
    actors = [(pool, stage) for stage, pool in pools.items() for _ in range(pool.actors)]
    for pool, stage in sorted(actors, key=lambda a: (a[0].num_gpus, a[0].num_cpus), reverse=True):
        if pool.num_gpus > 1 and pool.num_gpus != int(pool.num_gpus):
            raise CannotRun(f"stage {stage}: resources.{stage}.num_gpus is {pool.num_gpus:g}; above 1 it must be whole")
        if not any(machine.take(pool.num_cpus, pool.num_gpus) for machine in free):
            short = "GPU" if pool.num_gpus else "CPU"
            raise CannotRun(
                f"stages {names} don't fit: the machines have no room for {pool.actors} actors of {stage} with "
                f"{pool.num_cpus:g} CPU and {pool.num_gpus:g} GPU each, though there is enough {short} in all; lower "
                f"resources.{stage}.num_{short.lower()}s or .actors, or add machines"
            )


def _count_gpus(machines: Sequence[_Machine]) -> int:
    return sum(len(machine.gpus) for machine in machines)


def _floor(share: float) -> float:
    """Ray counts shares in ten-thousandths; two decimals read well. The small sum is for 1 - 0.2, which is not 0.8."""
    return math.floor(share * 100 + 1e-6) / 100


def _threads(num_cpus: float) -> int:
    return max(1, math.ceil(num_cpus))

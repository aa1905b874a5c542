"""Placements fit the machines they were made for, and impossible wishes say what is short."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest
from pydantic import ValidationError

from pipeline.config import Resources
from pipeline.errors import CannotRun
from pipeline.machines.resources import PHASES, Placement, Pool, place

NOTHING = Resources()


def machine(cpus: float, gpus: int = 0) -> dict[str, float]:
    return {"CPU": cpus, "GPU": gpus, "memory": 1e9, "node:10.0.0.1": 1.0}


def wish(**stages: Mapping[str, float]) -> Resources:
    return Resources.model_validate(stages)


def fits(placement: Placement, *machines: Mapping[str, float]) -> bool:
    """Whether both phases can be started, by trying every way to hand out the actors."""
    return all(
        _fits([pool for stage in phase for pool in [placement[stage]] * placement[stage].actors], machines)
        for phase in PHASES
    )


def _fits(actors: list[Pool], machines: tuple[Mapping[str, float], ...]) -> bool:
    """Depth first, the largest actors first; a GPU's share is on one GPU."""
    cpus = [m["CPU"] for m in machines]
    gpus = [[1.0] * int(m["GPU"]) for m in machines]

    def give(at: int) -> bool:
        if at == len(order):
            return True
        actor = order[at]
        for m in range(len(machines)):
            if cpus[m] < actor.num_cpus - 1e-9:
                continue
            share, count = (actor.num_gpus, 1) if actor.num_gpus < 1 else (1.0, int(actor.num_gpus))
            room = [g for g, free in enumerate(gpus[m]) if free > share - 1e-9]
            for chosen in itertools.combinations(room, count if actor.num_gpus else 0):
                cpus[m] -= actor.num_cpus
                for g in chosen:
                    gpus[m][g] -= share
                if give(at + 1):
                    return True
                cpus[m] += actor.num_cpus
                for g in chosen:
                    gpus[m][g] += share
        return False

    order = sorted(actors, key=lambda pool: (-pool.num_gpus, -pool.num_cpus))
    return give(0)


@pytest.mark.parametrize("cpus", [0.5, 1, 2, 3, 4, 16, 96])
def test_without_gpus_the_stages_of_a_phase_share_the_cpus(cpus: float) -> None:
    placement = place(NOTHING, machine(cpus))
    assert list(placement) == ["crop", "features", "motion", "render"]
    assert fits(placement, machine(cpus))
    for pool in placement.values():
        assert pool.num_cpus > 0
        assert pool.num_gpus == 0
        assert pool.actors == 1
        assert pool.threads >= 1
    for small, large in PHASES:
        assert placement[small].num_cpus + placement[large].num_cpus == pytest.approx(cpus, abs=0.02)


def test_one_cpu() -> None:
    assert place(NOTHING, machine(1)) == {
        "crop": Pool(1, 0.25, 0.0, 1),
        "features": Pool(1, 0.75, 0.0, 1),
        "motion": Pool(1, 0.25, 0.0, 1),
        "render": Pool(1, 0.75, 0.0, 1, encoders=1),
    }


def test_sixteen_cpus_give_the_networks_threads() -> None:
    placement = place(NOTHING, machine(16))
    assert placement["render"] == Pool(1, 15.0, 0.0, 15, encoders=1)
    assert placement["motion"] == Pool(1, 1.0, 0.0, 1)


@pytest.mark.parametrize("cpus", [1, 2, 8, 64])
@pytest.mark.parametrize("gpus", [1, 2, 4, 8])
def test_gpus_are_shared_and_every_one_gets_a_render_actor(cpus: int, gpus: int) -> None:
    placement = place(NOTHING, machine(cpus, gpus))
    assert fits(placement, machine(cpus, gpus))
    assert placement["crop"].num_gpus == 0
    assert placement["features"].actors == placement["render"].actors == gpus
    assert placement["features"].num_gpus == 1
    assert (placement["motion"].num_gpus, placement["render"].num_gpus) == (0.2, 0.8)
    assert all(0 < placement[stage].num_cpus <= 2 for stage in ("crop", "features", "motion"))
    assert 0 < placement["render"].num_cpus <= 10


@pytest.mark.parametrize(
    ("cpus", "gpus", "num_cpus", "encoders"),
    [(1, 1, 0.75, 1), (4, 1, 3, 3), (8, 1, 7, 7), (16, 1, 10, 8), (16, 8, 1.87, 2), (192, 8, 10, 8)],
)
def test_renderers_on_gpus_get_processors_to_encode_with(cpus: int, gpus: int, num_cpus: float, encoders: int) -> None:
    placement = place(NOTHING, machine(cpus, gpus))
    assert (placement["render"].num_cpus, placement["render"].encoders) == (num_cpus, encoders)
    assert placement["render"].items_at_once == encoders + 1
    assert placement["features"].num_cpus <= 2
    assert {placement[stage].encoders for stage in ("crop", "features", "motion")} == {None}
    assert {placement[stage].items_at_once for stage in ("crop", "features", "motion")} == {1}


def test_encoders_by_hand() -> None:
    placement = place(wish(render={"encoders": 5}), machine(4, 1))
    assert (placement["render"].encoders, placement["render"].items_at_once) == (5, 6)
    # On processors rendering is what takes the time: one item after the other, its segments side by side.
    placement = place(wish(render={"encoders": 5}), machine(4))
    assert (placement["render"].encoders, placement["render"].items_at_once) == (5, 1)
    assert place(NOTHING, machine(64))["render"].items_at_once == 1
    with pytest.raises(ValidationError, match="encoders"):
        wish(motion={"encoders": 5})


def test_a_cluster_of_cpu_machines_gets_a_render_actor_on_each() -> None:
    machines = [machine(8)] * 4
    placement = place(NOTHING, *machines)
    assert fits(placement, *machines)
    assert placement["render"] == Pool(4, 7.0, 0.0, 7, encoders=1)


@pytest.mark.parametrize(
    "machines",
    [
        [machine(0), machine(8, 1), machine(8, 1)],
        [machine(2), machine(16, 4), machine(16, 4)],
        [machine(64), machine(4, 4)],
        [machine(2), machine(64), machine(64)],
        [machine(1, 1), machine(32, 1)],
    ],
)
def test_machines_that_differ(machines: list[dict[str, float]]) -> None:
    placement = place(NOTHING, *machines)
    assert fits(placement, *machines)
    gpus = sum(int(m["GPU"]) for m in machines)
    if gpus:
        assert placement["render"].actors == gpus


def test_wishes_are_kept_and_the_rest_is_filled_around_them() -> None:
    placement = place(wish(motion={"num_cpus": 2}, crop={"actors": 3}), machine(4))
    assert placement["motion"].num_cpus == 2
    assert placement["render"].num_cpus == 2
    assert placement["crop"].actors == 3
    assert fits(placement, machine(4))
    placement = place(wish(render={"num_cpus": 4, "threads": 3}, motion={"num_cpus": 0}), machine(4))
    assert placement["render"] == Pool(1, 4, 0.0, 3, encoders=1)
    assert placement["motion"] == Pool(1, 0, 0.0, 1)
    placement = place(wish(render={"actors": 4}), machine(16))
    assert placement["render"].actors == 4
    assert placement["render"].num_cpus == 3.75
    placement = place(wish(render={"num_cpus": 1 / 3}), machine(2))
    assert placement["render"].num_cpus == 1 / 3


def test_wishes_for_gpus() -> None:
    # A whole GPU for motion leaves three for rendering.
    placement = place(wish(motion={"num_gpus": 1}), machine(16, 4))
    assert (placement["render"].actors, placement["render"].num_gpus) == (3, 1)
    assert fits(placement, machine(16, 4))
    # Half a GPU for rendering is enough for two actors on one, if motion stays on the CPU.
    placement = place(wish(render={"actors": 2, "num_gpus": 0.5}, motion={"num_gpus": 0}), machine(8, 1))
    assert fits(placement, machine(8, 1))
    # A large share leaves motion what is left.
    placement = place(wish(render={"num_gpus": 0.9}), machine(8, 1))
    assert placement["motion"].num_gpus == 0.1
    # Without any: the CPUs.
    none = {"num_gpus": 0}
    placement = place(wish(features=none, motion=none, render=none), machine(8, 2))
    assert placement["render"] == Pool(1, 7.0, 0, 7, encoders=1)
    # Actors with two GPUs each.
    placement = place(wish(render={"actors": 2, "num_gpus": 2}, motion={"num_gpus": 0}), machine(8, 4))
    assert fits(placement, machine(8, 4))


@pytest.mark.parametrize("stage", ["crop", "features", "motion", "render"])
@pytest.mark.parametrize("machines", [[machine(4)], [machine(8, 1)], [machine(16, 4)], [machine(8), machine(8, 2)]])
@pytest.mark.parametrize("actors", [1, 2, 3, 8])
def test_any_number_of_actors_is_placed(stage: str, machines: list[dict[str, float]], actors: int) -> None:
    gpus = sum(int(m["GPU"]) for m in machines)
    share = {"num_gpus": 0.8 / -(-actors // gpus)} if gpus and stage in ("features", "render") else {}
    placement = place(wish(**{stage: {"actors": actors, **share}}), *machines)
    assert placement[stage].actors == actors
    assert fits(placement, *machines)


@pytest.mark.parametrize(
    ("wishes", "machines", "words"),
    [
        (wish(render={"num_cpus": 4}), [machine(2)], ["motion and render", "CPU, but there are 2", "render"]),
        (wish(crop={"actors": 5, "num_cpus": 1}), [machine(4)], ["crop and features", "CPU, but there are 4"]),
        (wish(render={"num_gpus": 1}), [machine(8)], ["motion and render need 1 GPU, but there are 0", "num_gpus"]),
        (wish(render={"num_gpus": 1}), [machine(8, 1)], ["motion and render need 1.2 GPU, but there are 1"]),
        (wish(features={"actors": 2}), [machine(8, 1)], ["crop and features need 2 GPU, but there are 1"]),
        # Enough in all, but not on one GPU, or not on one machine.
        (wish(render={"actors": 3, "num_gpus": 0.6}), [machine(8, 2)], ["3 actors of render", "GPU", "don't fit"]),
        (wish(render={"actors": 1, "num_cpus": 12}), [machine(8), machine(8)], ["1 actors of render with 12 CPU"]),
        (wish(render={"actors": 1, "num_gpus": 1.5}), [machine(8, 2)], ["render", "1.5", "must be whole"]),
        (NOTHING, [machine(0)], ["0 CPU"]),
        (NOTHING, [], ["0 CPU"]),
        (NOTHING, [{}], ["0 CPU"]),
    ],
)
def test_what_can_not_be_placed_is_said(wishes: Resources, machines: list[dict[str, float]], words: list[str]) -> None:
    with pytest.raises(CannotRun) as caught:
        place(wishes, *machines)
    for word in words:
        assert word in str(caught.value)

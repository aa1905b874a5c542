"""A Ray cluster: joined, asked whether the run fits, and every machine of it looked at by a task of its own."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from pipeline.doctor.checks import examine_node, node_limit_s
from pipeline.doctor.finding import Finding, Request, fail, note, ok
from pipeline.errors import CannotRun
from pipeline.machines.cluster import connected
from pipeline.machines.resources import place

_MUST_AGREE = {"weights": "fail", "packages": "note"}
"""Facts that should be the same on every machine, and what it is when they aren't."""


def check(request: Request) -> Iterator[Finding]:
    try:
        with connected(request.address):
            yield from _look_around(request)
    except CannotRun as exc:
        yield fail(" ".join(str(exc).split()), "is it there, and may this machine reach it?")


def _look_around(request: Request) -> Iterator[Finding]:
    import ray

    machines = [node for node in ray.nodes() if node["Alive"]]
    total = ray.cluster_resources()
    yield ok(f"{len(machines)} machines, {total.get('CPU', 0):g} CPUs, {total.get('GPU', 0):g} GPUs")
    try:
        placed = place(request.settings.resources, *(machine["Resources"] for machine in machines))
    except CannotRun as exc:
        yield fail(str(exc), "add machines, or change resources in the job file")
    else:
        yield ok("the stages fit: " + ", ".join(f"{name} {pool.actors}" for name, pool in placed.items()) + " actors")
    found = [finding for findings in _ask(request, machines) for finding in findings]
    yield from found
    yield from differences(found)


def _ask(request: Request, machines: Sequence[dict[str, Any]]) -> Iterator[list[Finding]]:
    """The findings of each machine; one that fails or does not answer in time is a finding."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    names = dict(zip((m["NodeID"] for m in machines), _names(machines), strict=True))
    look = ray.remote(_look)
    waiting = {}
    for machine in machines:
        node = machine["NodeID"]
        update = {"on_node": True, "gpus": machine["Resources"].get("GPU", 0.0), "probe": f"{request.probe}-{node[:8]}"}
        strategy = NodeAffinitySchedulingStrategy(node, soft=False)
        asked = request.model_copy(update=update).model_dump_json()
        options = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": strategy}
        waiting[look.options(**options).remote(asked)] = names[node]
    deadline = time.monotonic() + node_limit_s(request)
    while waiting:
        done, _ = ray.wait(list(waiting), num_returns=1, timeout=max(0.0, deadline - time.monotonic()))
        if not done:
            break
        name = waiting.pop(done[0])
        try:
            answer = [Finding(**finding) for finding in ray.get(done[0])]
        except (ray.exceptions.RayError, ImportError) as exc:
            answer = [_unasked(exc)]
        yield [replace(finding, node=name) for finding in answer]
    for late, name in waiting.items():
        ray.cancel(late, force=True)
        yield [replace(fail("no answer in time", "look at the machine, or take it out"), check="machine", node=name)]


def _look(request: str) -> list[dict[str, Any]]:
    """Runs on the machine that is looked at."""
    return [finding.as_dict() for finding in examine_node(Request.model_validate_json(request))]


def _unasked(exc: Exception) -> Finding:
    lines = str(exc).strip().splitlines()
    reason = lines[-1] if lines else type(exc).__name__
    return replace(
        fail(f"can't be asked: {reason}", "the program must be installed on every machine, in the same version"),
        check="machine",
    )


def _names(machines: Sequence[dict[str, Any]]) -> list[str]:
    """Host names, with the start of Ray's id where several machines, or parts of one, share a name."""
    hosts = [machine["NodeManagerHostname"] for machine in machines]
    count = Counter(hosts)
    return [h if count[h] == 1 else f"{h}/{m['NodeID'][:6]}" for h, m in zip(hosts, machines, strict=True)]


def differences(findings: Iterable[Finding]) -> Iterator[Finding]:
    """What differs between machines and should not."""
    values: defaultdict[tuple[str, str], defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for finding in findings:
        if finding.check in _MUST_AGREE and finding.status == "ok":
            for name, value in finding.facts.items():
                values[finding.check, name][str(value)].append(finding.node)
    for (subject, name), machines in values.items():
        if len(machines) < 2:
            continue
        shown = "; ".join(f"{value[:16]} on {', '.join(nodes)}" for value, nodes in sorted(machines.items()))
        what = f"{subject}: {name} differs: {shown}"
        if _MUST_AGREE[subject] == "fail":
            yield fail(what, "give every machine the same files")
        else:
            yield note(what, "equal frames are promised for equal versions only")

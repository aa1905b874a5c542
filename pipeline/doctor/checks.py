"""Which checks there are, how long each may take, and which belong where."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pipeline.doctor.examine import Check, examine_all
from pipeline.doctor.finding import Finding, Request

_PYTHON = Check("python", "pipeline.doctor.packages:check_python", 20)
_PACKAGES = Check("packages", "pipeline.doctor.packages:check_packages", 120)
_GPU = Check("gpu", "pipeline.doctor.gpu:check", 90)
_ENCODER = Check("encoder", "pipeline.doctor.encoder:check", 60)
_WEIGHTS = Check("weights", "pipeline.doctor.weights:check", 300)
_STORAGE = Check("storage", "pipeline.doctor.storage:check", 60)
_DISK = Check("disk", "pipeline.doctor.disk:check", 30)
_RAY = Check("ray", "pipeline.doctor.ray:check", 60)
_ESPEAK = Check("espeak-ng", "pipeline.doctor.espeak:check", 20)

_ALONE = (_PYTHON, _PACKAGES, _GPU, _ENCODER, _WEIGHTS, _STORAGE, _DISK, _RAY, _ESPEAK)
_DRIVER = (_PYTHON, _PACKAGES, _WEIGHTS, _STORAGE, _RAY)
"""What the machine needs that starts a run on a cluster."""
_NODE = (_PYTHON, _PACKAGES, _GPU, _ENCODER, _WEIGHTS, _STORAGE, _DISK)
"""What each machine of the cluster needs."""

_START_S = 60.0


def examine_all_of(request: Request) -> Iterator[Finding]:
    """Every finding about a run that stays here or, with an address, about a run on that cluster."""
    yield from examine_all(_limited(_ALONE if request.address is None else _DRIVER, request), request)
    if request.address is not None:
        yield from examine_all([Check("cluster", "pipeline.doctor.cluster:check", node_limit_s(request) + 30)], request)


def examine_node(request: Request) -> Iterator[Finding]:
    """Every finding about one machine of a cluster; called on it."""
    yield from examine_all(_limited(_NODE, request), request)


def node_limit_s(request: Request) -> float:
    """How long a machine of a cluster may take for all its checks, a worker's start included."""
    # Several run at once, so no machine takes longer than two of the longest in turn.
    return _START_S + 2 * max(check.limit_s for check in _limited(_NODE, request))


def _limited(checks: tuple[Check, ...], request: Request) -> list[Check]:
    return [replace(check, limit_s=request.timeout_s or check.limit_s) for check in checks]

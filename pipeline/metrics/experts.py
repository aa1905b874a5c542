"""Networks that only measure, with weights that the user names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from torch import device

from pipeline.config import RunSettings
from pipeline.errors import CannotRun
from pipeline.machines.device import pick_device
from pipeline.metrics.catalogue import Values
from pipeline.metrics.csim import FaceExpert, face_expert
from pipeline.metrics.lpips import PerceptionExpert, perception_expert
from pipeline.metrics.lse import Expert, expert

E = TypeVar("E")


@dataclass(frozen=True)
class Experts:
    """Each is None where nobody named its weights."""

    lips: Expert | None
    face: FaceExpert | None
    perception: PerceptionExpert | None


def measuring_device(settings: RunSettings) -> device:
    """The device of the settings where it is there: videos are joined, and measured, on machines without GPU too."""
    return pick_device("cpu" if settings.device == "cpu" else "auto")


def named_experts(settings: RunSettings) -> Experts:
    """The experts on the `measuring_device`. Raises CannotRun for a file that holds something else."""
    return _experts(settings, str(measuring_device(settings)))


def given_weights(settings: RunSettings) -> Values:
    """What the metrics of an item will say about the weights they were measured with, if any.

    Raises CannotRun for a file that can't be used.
    """
    # Asked where no network runs, and there may be no GPU.
    found = _experts(settings, "cpu")
    hashes: Values = {}
    if found.lips is not None:
        hashes["syncnet_sha256"] = found.lips.sha256
    if found.face is not None:
        hashes["arcface_sha256"] = found.face.sha256
    if found.perception is not None:
        hashes |= found.perception.sha256
    return hashes


def _experts(settings: RunSettings, on: str) -> Experts:
    named = settings.metric_weights
    if settings.metrics == "off":
        return Experts(None, None, None)
    return Experts(
        _loaded("syncnet", expert, named.syncnet, device=on),
        _loaded("arcface", face_expert, named.arcface, device=on),
        _loaded("lpips", perception_expert, named.lpips_backbone, named.lpips, device=on),
    )


def _loaded(name: str, load: Callable[..., E], *paths: str | None, device: str) -> E | None:
    """None where no path is given. Raises CannotRun, which names the setting."""
    if None in paths:
        return None
    try:
        return load(*paths, device)
    except CannotRun as exc:
        raise CannotRun(f"metric_weights.{name}: {exc}") from exc

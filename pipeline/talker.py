"""What every model family implements, and the registry that finds one by name.

A family is reached through this module alone. Motion and features are named arrays whose first axis is time, so
their widths, rates and meanings are the family's own business; so are its chunking of frames and its resolution.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol

import numpy as np

from pipeline.config import RunSettings
from pipeline.errors import CannotRun

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Uses:
    """What of a run shapes the result of one of a model's steps; a change of anything else leaves it as it was."""

    parts: tuple[str, ...] | None = None
    """Parts of the weights; None for all of them."""
    settings: tuple[str, ...] = ("precision", "batch_size", "compile", "items_in_flight")
    """Settings of its numerics, by name."""


@dataclass(frozen=True)
class TalkerInfo:
    """What a run needs to know of a model before it loads any weights."""

    model: str
    """Preset name."""
    version: int
    """Version of the family's own code; a change makes every result of older code stale."""
    resolution: int
    """Width and height of its pictures and frames."""
    fps: int
    weights: str
    """``published``, ``trained`` or ``random``."""
    weights_sha256: dict[str, str] = field(default_factory=dict)
    features_only: bool = False
    """Whether portraits, recordings and drivers are encoded and no more: what makes motion need not be there."""
    uses: dict[str, Uses] = field(default_factory=dict)
    """By step: ``portrait``, ``audio`` and ``driver`` (encoding them), ``motion``, ``render``. A step that is not named
    uses everything."""
    window: int | None = None
    """Frames of motion that are generated at a time; None for motion without seams."""


@dataclass(frozen=True)
class MotionRequest:
    """What the motion of one item is to be made from, and how."""

    portrait: Arrays
    """Of `Talker.encode_portrait`."""
    audio: Arrays
    """Of `Talker.encode_audio`."""
    seed: int
    cfg_scale: float
    nfe: int
    controls: Arrays = field(default_factory=dict)
    """Optional sequences at the model's frame rate: pose [T, 3], camera [T, 3], gaze [T, 2] (radians)."""


class Talker(Protocol):
    """One model on one device. A stage warms what it uses, so it holds only the networks it needs."""

    info: TalkerInfo
    precision: str
    """What rendering computes with: the settings' wish, or what the device has instead."""

    @property
    def shrunk(self) -> bool:
        """Whether the device had too little memory and batches became smaller; results then differ by rounding."""

    def warm(self, stage: str) -> None:
        """Load the networks that ``features``, ``motion`` or ``render`` use. Raises CannotRun for unusable weights."""

    def encode_portrait(self, image: np.ndarray) -> Arrays:
        """uint8 [R, R, 3] -> what motion and rendering need of a portrait besides its pixels."""

    def encode_audio(self, waveforms: Sequence[np.ndarray]) -> list[Arrays]:
        """Recordings, float32 [N] each, 16 kHz mono in -1..1 -> features of each; none depends on the others."""

    def encode_driver(self, windows: Iterable[np.ndarray]) -> Arrays:
        """uint8 [n, R, R, 3] windows of a driving video at the model's frame rate -> motion."""

    def generate(self, requests: Sequence[MotionRequest]) -> list[Arrays]:
        """Motion for each request; none depends on the others."""

    def prepare(self, image: np.ndarray, portrait: Arrays) -> Any:
        """All rendering work that depends on the portrait alone."""

    def render(self, prepared: Any, motion: Arrays) -> Iterator[np.ndarray]:
        """uint8 [n, R, R, 3] RGB, in order, as many frames as the motion has."""

    def inspect(self, frames: np.ndarray) -> Arrays:
        """What rendered frames or a portrait, uint8 [n, R, R, 3], look like to the model, for metrics.

        ``motion`` [n, ...] in the terms of `generate`, and ``identity`` [n, D], a vector whose direction is the
        person; what a family has no encoder for is left out. Changes nothing that `render` gives.
        """


# Preset -> module that offers `info(settings, features_only=...)` and `load(settings, info)`.
_FAMILIES = {
    "imtalker": "pipeline.talkers.imtalker",
    "imtalker-demo": "pipeline.talkers.imtalker",
    "imtalker-tiny": "pipeline.talkers.imtalker",
}


def _family(model: str) -> Any:
    if model not in _FAMILIES:
        raise CannotRun(f"there is no model {model!r}; the models are {', '.join(sorted(_FAMILIES))}")
    return import_module(_FAMILIES[model])


def info(settings: RunSettings, *, features_only: bool = False) -> TalkerInfo:
    """Facts about ``settings.model``, its weights' hashes among them. Raises CannotRun when weights are missing."""
    found: TalkerInfo = _family(settings.model).info(settings, features_only=features_only)
    return found


def load(model: str, settings: RunSettings | None = None, known: TalkerInfo | None = None) -> Talker:
    """The talker for a preset. Raises CannotRun for an unknown name, missing weights or a missing device.

    ``known`` is what `info` said before, so that workers need not hash the weights again.
    """
    settings = settings or RunSettings(model=model)
    talker: Talker = _family(model).load(settings, known or info(settings))
    return talker

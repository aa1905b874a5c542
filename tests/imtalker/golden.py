"""Golden vectors of the published model: load a file and compare tensors with it by name.

Values come from a float64 run of the published implementation with the weights of `imtalker.seeded`. Every
file names its seed in its metadata. Large tensors are stored as views (see `Golden.check`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

DATA = Path(__file__).parent.parent / "data" / "imtalker"

_CROP = re.compile(r"\.crop_(\d+)_(\d+)")
_CROP_SIDE = 64
_KEPT = 4096
_KEPT_SMALL = 2048
_TIE = 1e-4


@cache
def state_spec(part: str) -> dict[str, tuple[int, ...]]:
    """Key -> shape of ``renderer``, ``generator`` or ``discriminator``, in the published order."""
    entries: dict[str, Any] = json.loads((DATA / "state_dict.json").read_text())[part]
    return {key: tuple(entry["shape"]) for key, entry in entries.items()}


@dataclass(frozen=True)
class Golden:
    """One golden file: its tensors as stored, its metadata, and the tolerances that belong to it."""

    name: str
    tensors: dict[str, torch.Tensor]
    metadata: dict[str, str]
    tolerances: dict[str, dict[str, Any]]
    deviations: dict[str, float] = field(default_factory=dict)
    """Largest deviation per name that has been checked."""

    @property
    def seed(self) -> int:
        return int(self.metadata["seed"])

    def __getitem__(self, key: str) -> torch.Tensor:
        return self.tensors[key]

    def atol(self, name: str) -> float:
        return float(self.tolerances[name]["atol"])

    def views(self, name: str, tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
        """(stored key, expected, actual) of everything the file holds about ``name``."""
        for key, expected in self.tensors.items():
            suffix = key.removeprefix("out.").removeprefix(name)
            if key not in (name + suffix, "out." + name + suffix):
                continue
            view = self._view(name, suffix, tensor)
            if view is not None:
                yield key, expected, view

    def check(self, name: str, tensor: torch.Tensor, *, atol: float | None = None) -> float:
        """Assert that ``tensor`` agrees with all stored views of ``name``; return the largest deviation.

        ``name`` is without the prefix ``out.`` and without a view's suffix; ``tensor`` is the whole tensor,
        with its batch axis. Views: the full tensor, ``.samples`` (every k-th value), ``.channel_mean`` and
        ``.channel_std`` (pixels of batch item 0), ``.stride4`` and ``.crop_Y_X`` (of batch item 0), ``.uint8``
        (truncated, one step of slack, not part of the returned number). The tolerance is absolute: ``atol``,
        or the file's own. Raises KeyError when the file holds nothing under ``name``.
        """
        limit = self.atol(name) if atol is None else atol
        largest = None
        for key, expected, actual in self.views(name, tensor.detach().cpu()):
            assert actual.shape == expected.shape, f"{self.name}: {key} is {expected.shape}, got {actual.shape}"
            deviation = (actual.double() - expected.double()).abs().max().item()
            allowed = 1.0 if key.endswith(".uint8") else limit
            assert deviation <= allowed, f"{self.name}: {key} deviates by {deviation:.3g}, allowed {allowed:.3g}"
            if not key.endswith(".uint8"):
                largest = max(largest or 0.0, deviation)
        if largest is None:
            raise KeyError(f"{self.name} holds nothing named {name!r}")
        self.deviations[name] = max(self.deviations.get(name, 0.0), largest)
        return largest

    def check_argmax(self, name: str, chosen: torch.Tensor) -> int:
        """Assert that ``chosen`` is ``argmax_<name>`` where ``margin_<name>`` exceeds 1e-4; return the flips.

        ``chosen``: the key each query picked, in row-major order, with or without a batch axis of 1.
        """
        different = chosen.detach().cpu().flatten() != self[f"argmax_{name}"]
        wrong = different & (self[f"margin_{name}"] > _TIE)
        assert not wrong.any(), f"{self.name}: argmax_{name} differs at {wrong.nonzero().flatten().tolist()}"
        return int(different.sum())

    def ties_settled(self, name: str, chosen: torch.Tensor) -> torch.Tensor:
        """``chosen``, int64 [1, N], with ``argmax_<name>`` where ``margin_<name>`` is at most 1e-4.

        There rounding decides, differently on different CPUs, and a frame shows what was chosen.
        """
        return torch.where(self[f"margin_{name}"] > _TIE, chosen, self[f"argmax_{name}"].long())

    def _view(self, name: str, suffix: str, tensor: torch.Tensor) -> torch.Tensor | None:
        if suffix == "":
            return tensor
        if suffix == ".samples":
            small = self.name == "renderer_options" or name.startswith("pyramid")
            kept = _KEPT_SMALL if small else _KEPT
            return tensor.flatten()[:: max(1, tensor.numel() // kept) | 1]
        if suffix == ".channel_mean":
            return tensor[0].double().mean(dim=(1, 2))
        if suffix == ".channel_std":
            return tensor[0].double().std(dim=(1, 2), correction=0)
        if suffix == ".stride4":
            return tensor[0, :, ::4, ::4]
        if suffix == ".uint8":
            return (tensor[0] * 255).to(torch.uint8)
        if match := _CROP.fullmatch(suffix):
            top, left = (int(n) for n in match.groups())
            return tensor[0, :, top : top + _CROP_SIDE, left : left + _CROP_SIDE]
        return None


def load(name: str) -> Golden:
    """The golden file ``name`` (without ``.safetensors``)."""
    with safe_open(DATA / f"{name}.safetensors", framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (a handle, not a dict)
        metadata = dict(file.metadata())
    tolerances = json.loads((DATA / "tolerances.json").read_text())[name]
    return Golden(name, tensors, metadata, tolerances)

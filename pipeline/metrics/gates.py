"""Gates: bounds on metrics, and what becomes of an item that is outside."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.errors import ErrorRecord
from pipeline.metrics.catalogue import BY_NAME, Values

FLAG = "gate:"
"""Before the metric's name, in the flags of an item outside a gate."""
UNJUDGED = "unjudged:"
"""The same for a metric that a failing gate wants and that could not be measured."""
LIPS_NOT_FROM_AUDIO = "lips_not_from_audio"
"""Flag of an item that a video drives under another sound: nobody expects its lips to fit."""


class Gate(BaseModel):
    """Bounds of one metric; both are allowed values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min: float | None = None
    max: float | None = None
    action: Literal["flag", "fail", "off"] = Field("flag", description="fail: the item fails with the kind quality")

    @model_validator(mode="after")
    def _has_bounds(self) -> Gate:
        if self.action != "off" and self.min is None and self.max is None:
            raise ValueError("a gate needs min, max or both")
        return self

    def holds(self, value: float) -> bool:
        return (self.min is None or value >= self.min) and (self.max is None or value <= self.max)

    @property
    def bounds(self) -> str:
        """In words."""
        parts = [
            f"at least {self.min:g}" if self.min is not None else "",
            f"at most {self.max:g}" if self.max is not None else "",
        ]
        return " and ".join(part for part in parts if part)


_ANY_FILE: Mapping[str, Gate] = {
    "frames_missing": Gate(min=0, max=0),
    "end_gap_s": Gate(min=-0.08, max=0.08),
    "nonfinite_values": Gate(max=0),
    "black_frames": Gate(max=0),
    "audio_correlation": Gate(min=0.8),
    "audio_level_db": Gate(min=-3, max=3),
}
"""Defaults that hold for any file."""

_PEOPLE: Mapping[str, Gate] = {
    "longest_freeze_s": Gate(max=0.12),
    "brightness_shift": Gate(min=-40, max=40),
    "brightness_jump": Gate(max=20),
    "sharpness_ratio": Gate(min=0.2, max=4),
    "flicker": Gate(max=2),
    "largest_step_pixels": Gate(max=15),
    "portrait_distance": Gate(max=40),
    "seam_step": Gate(max=6),
    "seam_step_pixels": Gate(max=2),
    "mouth_silence_ratio": Gate(max=1),
    "lip_lag_frames": Gate(min=-2, max=2),
    "lip_correlation": Gate(min=0.48),
    "identity_worst": Gate(max=0.3),
}
"""Defaults for videos of people: what seeded stand-ins for weights draw is noise, and is not judged by these."""


DEFAULTS: Mapping[str, Gate] = {**_ANY_FILE, **_PEOPLE}

_LIPS = frozenset({"mouth_silence_ratio", "lip_lag_frames", "lip_correlation"})
"""What compares lips with the sound: no default for items whose lips are another recording's by their row."""


@dataclass(frozen=True)
class Verdict:
    """``error`` is that of the gates that fail items; None if all hold."""

    flags: tuple[str, ...]
    error: ErrorRecord | None


def gates_of(own: Mapping[str, Gate], weights: str | None, flags: Collection[str] = ()) -> dict[str, Gate]:
    """A job's gates over the defaults that hold for an item.

    ``weights`` are those of `pipeline.talker.TalkerInfo`, ``flags`` the item's.
    """
    defaults = _ANY_FILE if weights == "random" else DEFAULTS
    if LIPS_NOT_FROM_AUDIO in flags:
        defaults = {name: gate for name, gate in defaults.items() if name not in _LIPS}
    return {name: gate for name, gate in {**defaults, **own}.items() if gate.action != "off"}


def judge(values: Values, gates: Mapping[str, Gate]) -> Verdict:
    """Hold metrics against gates. What was not measured passes; a failing gate then leaves a flag of its own."""
    outside = {
        name: gate for name, gate in gates.items() if values.get(name) is not None and not gate.holds(values[name])
    }
    unjudged = [name for name, gate in gates.items() if gate.action == "fail" and values.get(name) is None]
    flags = (*(f"{FLAG}{name}" for name in outside), *(f"{UNJUDGED}{name}" for name in unjudged))
    failing = {name: gate for name, gate in outside.items() if gate.action == "fail"}
    if not failing:
        return Verdict(flags, None)
    found = "; ".join(f"{name} is {values[name]:g}, expected {gate.bounds}" for name, gate in failing.items())
    hint = "look at the video, which is kept; if it is good, change gates and run: imtalker metrics OUTPUT"
    return Verdict(flags, ErrorRecord("quality", "render", found, hint))


def rejudged(flags: list[str], verdict: Verdict) -> list[str]:
    """An item's flags with those of earlier verdicts replaced."""
    kept = [flag for flag in flags if not flag.startswith((FLAG, UNJUDGED))]
    return [*kept, *verdict.flags]


def check_names(gates: Mapping[str, Gate]) -> Iterator[str]:
    """What is wrong with a job's gates, in words: names of no metric, and of metrics that are words."""
    for name in gates:
        if name not in BY_NAME:
            close = get_close_matches(name, BY_NAME, n=1)
            yield f"{name!r} is no metric" + (f"; did you mean {close[0]!r}?" if close else "")
        elif BY_NAME[name].type == "string":
            yield f"{name!r} is a word, and has no bounds"

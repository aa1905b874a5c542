"""What the doctor is asked, and what it finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pydantic import Field

from pipeline.config import RunSettings, Settings

Status = Literal["ok", "note", "fail"]
"""Fine; worth knowing, or not needed by every run; in a run's way."""


class Request(Settings):
    """The run that is being prepared, as far as it is known."""

    settings: RunSettings = RunSettings()
    output: str | None = Field(None, description="URI of the output folder; absolute")
    address: str | None = Field(None, description="Ray cluster that the run joins")
    on_node: bool = Field(False, description="asked on a machine of a cluster, to which nothing is fetched")
    gpus: float | None = Field(None, description="GPUs that Ray offers on this machine, where it is asked")
    timeout_s: float | None = Field(None, gt=0, description="limit of every check, instead of its own")
    probe: str = Field(".imtalker-doctor", description="name of the object that the storage is tried with")


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, how it stands, and what to do."""

    status: Status
    message: str
    hint: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Plain values for machines; the same facts of several machines are compared."""
    check: str = ""
    node: str = ""
    """Machine of the cluster; empty for the one that the doctor runs on."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def ok(message: str, **facts: Any) -> Finding:
    return Finding("ok", message, facts=facts)


def note(message: str, hint: str = "", **facts: Any) -> Finding:
    return Finding("note", message, hint, facts)


def fail(message: str, hint: str, **facts: Any) -> Finding:
    return Finding("fail", message, hint, facts)

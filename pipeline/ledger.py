"""The ledger: one JSON record for every item.

A record is the item's commit: it is written after the video is in place, and it alone makes an item done.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.accounting.item_usage import item_usage
from pipeline.accounting.usage import Usage
from pipeline.config import RunSettings
from pipeline.errors import ErrorRecord
from pipeline.locks.lease import confirm
from pipeline.retry import Retries
from pipeline.reuse.fingerprint import digest, versions
from pipeline.storage import Store
from pipeline.talker import TalkerInfo
from pipeline.tasks import Input, ItemTask, Worker

STAGES = ("crop", "features", "motion", "render")


class Record(BaseModel):
    """What is known of an item after it was attempted."""

    model_config = ConfigDict(extra="ignore")

    id: str
    index: int = Field(description="row of the manifest")
    status: Literal["ok", "failed"]
    error: ErrorRecord | None = None
    flags: list[str] = Field(default_factory=list)
    request: str | None = Field(None, description="fingerprint of the request: row, settings, model")
    fingerprint: str | None = Field(None, description="of the inputs' content, settings, weights and code: no names")
    mode: str | None = None
    seed: int | None = None
    cfg_scale: float | None = None
    nfe: int | None = None
    settings: dict[str, Any] = Field(default_factory=dict, description="what shaped the result")
    consent: str | None = Field(None, description="what the manifest says of the consent of who is shown and heard")
    same_identity: bool = Field(False, description="portrait and driver show one person, as the manifest says")
    model: str | None = None
    weights: str | None = None
    weights_sha256: dict[str, str] = Field(default_factory=dict)
    versions: dict[str, int] = Field(default_factory=dict, description="of the model's code and of each stage's")
    precision: str | None = None
    uris: dict[str, str] = Field(default_factory=dict, description="files that the row named, by role")
    inputs: dict[str, Input] = Field(default_factory=dict)
    identities: dict[str, str | None] = Field(default_factory=dict, description="inputs as the plan saw them")
    limits: str | None = Field(None, description="fingerprint of the limits on inputs that held")
    faces_seen: int | None = None
    decoder: str | None = Field(None, description="what read the driver: decord or pyav")
    cache: dict[str, str] = Field(default_factory=dict, description="store keys of its portrait's crop and its motion")
    video: dict[str, Any] | None = None
    metrics: dict[str, Any] = Field(default_factory=dict, description="by name, see pipeline.metrics.catalogue")
    seconds: dict[str, float] = Field(default_factory=dict)
    workers: dict[str, Worker] = Field(default_factory=dict)
    usage: dict[str, Usage] = Field(default_factory=dict, description="of CPUs and GPUs, by stage")
    computed: list[str] = Field(default_factory=list)
    retries: dict[str, Retries] = Field(default_factory=dict, description="what had to be tried again, by stage")
    copied_from: str | None = Field(None, description="item whose video of the same fingerprint this one's is")
    finished_at: str | None = None
    version: str | None = Field(None, description="version of this program")
    fence: int | None = Field(None, description="token of the lease of the run that wrote it")

    @property
    def self_reenactment(self) -> bool:
        """Whether its frames should be the driver's."""
        return self.same_identity and self.mode == "driver"

    @property
    def started_at(self) -> str | None:
        """When the first of its stages began, by that worker's clock."""
        began = [worker.started_at for worker in self.workers.values() if worker.started_at is not None]
        return clock_time(min(began)) if began else None

    @property
    def attempts(self) -> int:
        """How often it was attempted: once, and once more for all that had to be tried again; 0 if no stage began."""
        return bool(self.workers) + sum(retries.count for retries in self.retries.values())

    @property
    def first_error_at(self) -> str | None:
        """When something went wrong for the first time."""
        moments = [retries.first for retries in self.retries.values() if retries.first is not None]
        return clock_time(min(moments)) if moments else self.last_error_at

    @property
    def last_error_at(self) -> str | None:
        """When something went wrong for the last time: for an item that failed, what it failed with."""
        worker = self.workers.get(self.error.stage) if self.error else None
        moments = [retries.last for retries in self.retries.values() if retries.last is not None]
        if worker is not None and worker.ended_at is not None:
            moments.append(worker.ended_at)
        return clock_time(max(moments)) if moments else self.finished_at if self.error else None

    @classmethod
    def of(cls, task: ItemTask, settings: RunSettings, info: TalkerInfo) -> Record:
        """The record of a task that has gone its way."""
        assets = [a for a in (task.portrait, task.audio, task.driver) if a is not None]
        seconds = dict(task.seconds)
        workers = dict(task.workers)
        computed = list(task.computed)
        retries = {stage: found.model_copy() for stage, found in task.retries.items()}
        roles = {"portrait": "image", "audio": "audio", "driver": "driver"}
        # An item that failed early has no inputs of its own yet.
        read = {roles[asset.kind]: asset.input for asset in assets if asset.input is not None}
        kept = {"picture": task.portrait.picture, "motion": task.motion}
        # The worker that a stage failed on is the one to name.
        for asset in sorted(assets, key=lambda asset: asset.error is not None):
            for stage, value in asset.seconds.items():
                seconds[stage] = round(seconds.get(stage, 0.0) + value, 4)
            workers |= asset.workers
            computed += asset.computed
            for stage, found in asset.retries.items():
                retries[stage] = found.joined(retries.get(stage))
        return cls(
            id=task.key,
            index=task.index,
            status="failed" if task.error else "ok",
            error=task.error,
            flags=task.flags,
            request=task.request,
            fingerprint=task.fingerprint,
            mode=task.mode,
            seed=task.seed,
            cfg_scale=task.cfg_scale,
            nfe=task.nfe,
            settings=task.settings,
            consent=task.consent,
            same_identity=task.same_identity,
            model=info.model,
            weights=info.weights,
            weights_sha256=info.weights_sha256,
            versions=versions(info),
            precision=(task.video or {}).get("precision", settings.precision),
            uris=task.uris,
            inputs=read | task.inputs,
            identities=task.identities,
            limits=digest(settings.limits.model_dump()),
            faces_seen=task.portrait.faces_seen,
            decoder=task.driver.facts.get("decoder") if task.driver else None,
            cache={role: key for role, key in kept.items() if key is not None},
            # What a gate has stopped is kept, to be looked at.
            video=task.video if task.error is None or task.error.kind == "quality" else None,
            metrics=task.metrics,
            seconds=seconds,
            workers=workers,
            usage=item_usage(task),
            computed=sorted(set(computed)),
            retries=retries,
            finished_at=now(),
            version=_program_version(),
            fence=task.fence,
        )


class Ledger:
    """Records under ``items/`` of a run's output."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def write(self, record: Record, *, key: str | None = None) -> None:
        """Commit an item. ``key`` replaces the id where the id can't be a file name (`manifests.row.Row.key`).

        Raises `LeaseLost` for a record with a fence if the output's lease has another one by now.
        """
        if record.fence is not None:
            confirm(self.store, record.fence)
        self.store.put_bytes(f"items/{key or record.id}.json", record.model_dump_json(indent=1).encode())

    def read(self, ids: Iterable[str]) -> dict[str, Record]:
        """The records of those ids that have one, each from its own file; many are read from a `RecordIndex`.

        A record that can't be read is none: the item is made again, and its record with it.
        """
        keys = {f"items/{id}.json": id for id in ids}
        existing = self.store.list("items")
        found = self.store.get_many(key for key in keys if key in existing)
        return {keys[key]: record for key, data in found.items() if (record := parse_record(data)) is not None}


def parse_record(data: bytes | str) -> Record | None:
    """The record in a JSON text; None for one that can't be read."""
    try:
        return Record.model_validate_json(data)
    except ValidationError:
        return None


@cache
def _program_version() -> str | None:
    """None where the code runs without being installed, as in a job whose working folder Ray ships."""
    try:
        return version("imtalker")
    except PackageNotFoundError:
        return None


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def clock_time(unix: float) -> str:
    """ISO 8601, UTC."""
    return datetime.fromtimestamp(unix, UTC).isoformat(timespec="seconds")

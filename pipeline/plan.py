"""The plan: what a manifest asks for, what is done already, and what has to be made."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from manifests.reader import Manifest
from manifests.row import Row
from pipeline.config import RunSettings
from pipeline.errors import ErrorRecord
from pipeline.fetch import identity
from pipeline.fingerprint import digest, model_facts
from pipeline.ledger import Ledger, Record
from pipeline.stages import STAGE_VERSIONS
from pipeline.talker import TalkerInfo
from pipeline.tasks import AssetKind, AssetTask, ItemTask, Mode

REDONE = frozenset({"infrastructure", "bug"})
"""Kinds of failure that a plain second run tries again even when nothing has changed."""

_URI_ROLES = ("image", "audio", "driver", "pose", "camera", "gaze")


@dataclass
class Plan:
    """Every row of the manifest is in exactly one of ``items``, ``invalid``, ``done`` and ``skipped``."""

    assets: dict[str, AssetTask] = field(default_factory=dict)
    """Distinct portraits, recordings and drivers that ``items`` need, by key."""
    items: list[ItemTask] = field(default_factory=list)
    """What has to be made."""
    invalid: list[tuple[Row, ErrorRecord]] = field(default_factory=list)
    """Rows that can't be attempted."""
    done: dict[int, Record] = field(default_factory=dict)
    """Rows whose record still holds, by row."""
    skipped: dict[int, str] = field(default_factory=dict)
    """Why a row is not attempted in this run, by row."""

    def summary(self) -> dict[str, int]:
        kinds = [asset.kind for asset in self.assets.values()]
        return {
            "to_make": len(self.items),
            "already_done": len(self.done),
            "invalid": len(self.invalid),
            "skipped": len(self.skipped),
            "portraits": kinds.count("portrait"),
            "recordings": kinds.count("audio"),
            "drivers": kinds.count("driver"),
        }


def make_plan(
    manifest: Manifest, settings: RunSettings, info: TalkerInfo, ledger: Ledger, *, limit: int | None = None
) -> Plan:
    """Compare the manifest with the records of earlier runs.

    ``limit`` is how many of the manifest's first rows are attempted. No input is read, only looked up.
    """
    plan = Plan()
    rows = manifest.rows if limit is None else manifest.rows[:limit]
    plan.skipped = {row.index: "limit" for row in manifest.rows[len(rows) :]}
    valid: list[Row] = []
    for row in rows:
        if row.problem is None:
            valid.append(row)
        else:
            plan.invalid.append((row, ErrorRecord("input", "plan", row.problem.message, row.problem.hint)))
    identities = _identities((uri for row in valid for uri in _inputs(row, settings).values()), settings)
    records = ledger.read(row.id for row in valid)
    for row in valid:
        seen = {role: identities[uri] for role, uri in _inputs(row, settings).items()}
        request = _request(row, settings, info)
        record = records.get(row.id)
        if record is not None and _holds(record, request, seen):
            plan.done[row.index] = record.model_copy(update={"index": row.index})
        else:
            plan.items.append(_item(row, settings, request, seen, plan.assets))
    return plan


def _holds(record: Record, request: str, seen: dict[str, str | None]) -> bool:
    """Whether an earlier result answers the same request on the same inputs."""
    if record.request != request or record.identities != seen:
        return False
    return record.status == "ok" or (record.error is not None and record.error.kind not in REDONE)


def _mode(row: Row, settings: RunSettings) -> Mode:
    mode = row.motion_source(settings.motion_from)
    assert mode is not None  # noqa: S101  (a row without one has a problem)
    return mode


def _inputs(row: Row, settings: RunSettings) -> dict[str, str]:
    """The URIs that shape the row's result, by role."""
    mode = _mode(row, settings)
    unused = ("driver",) if mode == "audio" else ("pose", "camera", "gaze")
    found = {role: getattr(row, role) for role in _URI_ROLES if role not in unused}
    return {role: uri for role, uri in found.items() if uri is not None}


def _identities(uris: Iterable[str], settings: RunSettings) -> dict[str, str | None]:
    distinct = list(dict.fromkeys(uris))
    with ThreadPoolExecutor(16) as pool:
        return dict(zip(distinct, pool.map(lambda uri: identity(uri, settings.storage_options), distinct), strict=True))


def _semantics(row: Row, settings: RunSettings) -> dict[str, Any]:
    """Settings of one item that shape its result, the row's own before the run's."""
    mode = _mode(row, settings)
    crop = settings.crop if row.crop is None else row.crop
    rule = mode_rule(mode) if settings.crop_rule == "auto" else settings.crop_rule
    facts: dict[str, Any] = {
        "mode": mode,
        "crop": {"rule": rule, "face": settings.face, "detector": settings.detector} if crop else None,
        "max_seconds": settings.max_seconds,
        "batch_size": settings.batch_size,
        "video": settings.video.model_dump(),
    }
    if mode == "audio":
        facts |= {
            "cfg_scale": settings.cfg_scale if row.cfg_scale is None else row.cfg_scale,
            "nfe": settings.nfe if row.nfe is None else row.nfe,
            "seed": row.seed if row.seed is not None else {"run": settings.seed},
        }
    else:
        facts["driver_face"] = settings.driver_face
    return facts


def mode_rule(mode: Mode) -> Any:
    """The crop rule of the published entry point for a mode."""
    return {"audio": "audio", "driver": "video"}[mode]


def _request(row: Row, settings: RunSettings, info: TalkerInfo) -> str:
    """Fingerprint of what a row asks for; the content of its inputs is not in it."""
    return digest(
        {
            "inputs": _inputs(row, settings),
            "settings": _semantics(row, settings),
            "model": model_facts(info, settings),
            "stages": STAGE_VERSIONS,
        }
    )


def _item(
    row: Row, settings: RunSettings, request: str, seen: dict[str, str | None], assets: dict[str, AssetTask]
) -> ItemTask:
    mode = _mode(row, settings)
    facts = _semantics(row, settings)
    inputs = _inputs(row, settings)
    crop = facts["crop"]
    portrait = _asset(
        assets, "portrait", inputs["image"], crop=crop is not None, crop_rule=crop["rule"] if crop else "audio"
    )
    audio = driver = None
    if "audio" in inputs:
        audio = _asset(assets, "audio", inputs["audio"], needs_features=mode == "audio")
    if "driver" in inputs:
        driver = _asset(assets, "driver", inputs["driver"])
    return ItemTask(
        key=row.id,
        index=row.index,
        mode=mode,
        portrait=portrait,
        audio=audio,
        driver=driver,
        pose=inputs.get("pose"),
        camera=inputs.get("camera"),
        gaze=inputs.get("gaze"),
        seed=row.seed,
        cfg_scale=settings.cfg_scale if row.cfg_scale is None else row.cfg_scale,
        nfe=settings.nfe if row.nfe is None else row.nfe,
        request=request,
        identities=seen,
        flags=["lips_not_from_audio"] if mode == "driver" and audio else [],
    )


def _asset(
    assets: dict[str, AssetTask],
    kind: AssetKind,
    uri: str,
    *,
    crop: bool = False,
    crop_rule: Any = "audio",
    needs_features: bool = False,
) -> AssetTask:
    """The one asset for a file and the way it is used; made at its first mention."""
    key = digest([kind, uri, crop, crop_rule])
    asset = assets.setdefault(
        key, AssetTask(key=key, kind=kind, uri=uri, crop=crop, crop_rule=crop_rule, needs_features=False)
    )
    asset.needs_features |= needs_features
    return asset

"""The plan: what a manifest asks for, what is done already, and what has to be made."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from manifests.reader import Manifest
from manifests.row import Row
from pipeline.config import RunSettings
from pipeline.errors import ErrorKind, ErrorRecord, Retry
from pipeline.fetch import UNKNOWN, identities
from pipeline.fingerprint import digest, model_facts
from pipeline.ledger import Ledger
from pipeline.record_index import Outcome, RecordIndex, identities_text
from pipeline.stages import STAGE_VERSIONS
from pipeline.talker import TalkerInfo
from pipeline.tasks import AssetKind, AssetTask, ItemTask, Mode

REDONE: frozenset[ErrorKind] = frozenset({"infrastructure", "bug"})
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
    told: set[int] = field(default_factory=set)
    """Those of ``invalid`` whose record says so already."""
    done: dict[int, ErrorKind | None] = field(default_factory=dict)
    """Rows whose record still holds, by row: what kind of failure it is, None for ok."""
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
    manifest: Manifest,
    settings: RunSettings,
    info: TalkerInfo,
    ledger: Ledger,
    *,
    limit: int | None = None,
    retry: Retry | None = None,
) -> Plan:
    """Compare the manifest with the records of earlier runs.

    ``limit`` is how many of the manifest's first rows are attempted; later rows are skipped unless they are ok
    already. No input is read, only looked up. Raises CannotRun when the records can't be read.
    """
    plan = Plan()
    asks: list[_Ask] = []
    common = {"model": model_facts(info, settings), "stages": STAGE_VERSIONS}

    def attempted(row: Row) -> bool:
        return limit is None or row.index < limit

    for row in manifest.rows:
        if row.problem is None:
            asks.append(_ask(row, settings, common))
        elif attempted(row):
            plan.invalid.append((row, ErrorRecord("input", "plan", row.problem.message, row.problem.hint)))
        else:
            plan.skipped[row.index] = "limit"
    again = REDONE if retry is None else frozenset(get_args(ErrorKind)) if retry == "failed" else REDONE | {retry}
    keys = {ask.row.id for ask in asks} | {row.key for row, _ in plan.invalid}
    records = RecordIndex(ledger.store).outcomes(keys)
    for row, error in plan.invalid:
        told = records.get(row.key)
        if told is not None and told.request == problem_fingerprint(error):
            plan.told.add(row.index)
    # Beyond the limit nothing but what may be ok already is worth looking up.
    looked_up = [ask for ask in asks if attempted(ask.row) or _is_ok(records.get(ask.row.id), ask.request)]
    seen = identities((uri for ask in looked_up for uri in ask.inputs.values()), settings.storage_options)
    for ask in looked_up:
        record = records.get(ask.row.id)
        marks = {role: seen[uri] for role, uri in ask.inputs.items()}
        if record is not None and _holds(record, ask.request, marks, settings, again):
            plan.done[ask.row.index] = record.error_kind
        elif attempted(ask.row):
            plan.items.append(_item(ask, settings, marks, plan.assets))
    known = {*plan.done, *(item.index for item in plan.items)}
    plan.skipped |= {ask.row.index: "limit" for ask in asks if ask.row.index not in known}
    return plan


@dataclass(frozen=True)
class _Ask:
    """What a valid row asks for."""

    row: Row
    mode: Mode
    inputs: dict[str, str]
    """The URIs that shape the row's result, by role."""
    crop: dict[str, Any] | None
    """How the portrait is cropped; None for not at all."""
    settings: dict[str, Any]
    """Settings that shape the result, the row's own before the run's."""
    request: str
    """Fingerprint of all this and of the model; the content of the inputs is not in it."""


def _ask(row: Row, settings: RunSettings, common: dict[str, Any]) -> _Ask:
    mode = row.motion_source(settings.motion_from)
    assert mode is not None  # noqa: S101  (a row without one has a problem)
    unused = ("driver",) if mode == "audio" else ("pose", "camera", "gaze")
    uris = {role: getattr(row, role) for role in _URI_ROLES if role not in unused}
    inputs: dict[str, str] = {role: uri for role, uri in uris.items() if uri is not None}
    crop = None
    if settings.crop if row.crop is None else row.crop:
        rule = mode_rule(mode) if settings.crop_rule == "auto" else settings.crop_rule
        crop = {"rule": rule, "face": settings.face, "detector": settings.detector}
    facts = {
        "mode": mode,
        "crop": crop,
        "max_seconds": settings.max_seconds,
        "precision": settings.precision,
        "batch_size": settings.batch_size,
        "compile": settings.compile,
        "video": settings.video.model_dump(),
        **_motion_facts(row, mode, settings),
    }
    return _Ask(row, mode, inputs, crop, facts, digest({"inputs": inputs, "settings": facts, **common}))


def _motion_facts(row: Row, mode: Mode, settings: RunSettings) -> dict[str, Any]:
    """Settings that shape the motion, the row's own before the run's."""
    if mode == "driver":
        return {"driver_face": settings.driver_face}
    return {
        "cfg_scale": settings.cfg_scale if row.cfg_scale is None else row.cfg_scale,
        "nfe": settings.nfe if row.nfe is None else row.nfe,
        "items_in_flight": settings.items_in_flight,
        "seed": row.seed if row.seed is not None else {"run": settings.seed},
    }


def mode_rule(mode: Mode) -> Literal["audio", "video"]:
    """The crop rule of the published entry point for a mode."""
    return "audio" if mode == "audio" else "video"


def problem_fingerprint(error: ErrorRecord) -> str:
    """The request in the record of a row that can't be attempted."""
    return digest(error.as_dict())


def _is_ok(record: Outcome | None, request: str) -> bool:
    return record is not None and record.status == "ok" and record.request == request


def _holds(
    record: Outcome, request: str, seen: dict[str, str | None], settings: RunSettings, again: Collection[ErrorKind]
) -> bool:
    """Whether an earlier result answers the same request on inputs that are known to be the same."""
    if record.request != request or record.identities != identities_text(seen) or UNKNOWN in seen.values():
        return False
    if record.error_kind is None:
        return True
    # A failure may have been a limit's doing.
    return record.error_kind not in again and record.limits == digest(settings.limits.model_dump())


def _item(ask: _Ask, settings: RunSettings, seen: dict[str, str | None], assets: dict[str, AssetTask]) -> ItemTask:
    row, mode, inputs, crop = ask.row, ask.mode, ask.inputs, ask.crop
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
        settings=ask.settings,
        request=ask.request,
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

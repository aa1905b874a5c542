"""The plan: what a manifest asks for, what is done already, and what has to be made."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from manifests.reader import Manifest
from manifests.row import Row
from pipeline.config import RunSettings
from pipeline.errors import ErrorKind, ErrorRecord, Retry
from pipeline.forecast import Forecast, Forecaster
from pipeline.inputs.fetch import UNKNOWN, identities
from pipeline.ledger import Ledger
from pipeline.metrics.gates import LIPS_NOT_FROM_AUDIO
from pipeline.records.history import History
from pipeline.records.index import Outcome, RecordIndex, identities_text
from pipeline.reuse.cache import Cache
from pipeline.reuse.fingerprint import digest, model_facts
from pipeline.reuse.stage_facts import StageFacts
from pipeline.stages import STAGE_VERSIONS
from pipeline.talker import TalkerInfo
from pipeline.tasks import AssetKind, AssetTask, ItemTask, Mode

REDONE: frozenset[ErrorKind] = frozenset({"infrastructure", "bug"})
"""Kinds of failure that a plain second run tries again even when nothing has changed."""

_URI_ROLES = ("image", "audio", "driver", "pose", "camera", "gaze")


@dataclass
class Plan:
    """Every row of the manifest is in exactly one of ``items``, ``copies``, ``invalid``, ``done`` and ``skipped``."""

    assets: dict[str, AssetTask] = field(default_factory=dict)
    """Distinct portraits, recordings and drivers that ``items`` need, by key."""
    items: list[ItemTask] = field(default_factory=list)
    """What has to be made."""
    copies: list[tuple[ItemTask, str]] = field(default_factory=list)
    """Items whose video is there under another request, as that of another id; each with the key of its record."""
    invalid: list[tuple[Row, ErrorRecord]] = field(default_factory=list)
    """Rows that can't be attempted."""
    told: set[int] = field(default_factory=set)
    """Those of ``invalid`` whose record says so already."""
    done: dict[int, ErrorKind | None] = field(default_factory=dict)
    """Rows whose record still holds, by row: what kind of failure it is, None for ok."""
    skipped: dict[int, str] = field(default_factory=dict)
    """Why a row is not attempted in this run, by row."""
    forecast: Forecast = field(default_factory=Forecast)

    def summary(self) -> dict[str, int]:
        kinds = [asset.kind for asset in self.assets.values()]
        return {
            "to_make": len(self.items),
            "to_copy": len(self.copies),
            "already_done": len(self.done),
            "invalid": len(self.invalid),
            "skipped": len(self.skipped),
            "portraits": kinds.count("portrait"),
            "recordings": kinds.count("audio"),
            "drivers": kinds.count("driver"),
        }

    def as_dict(self) -> dict[str, Any]:
        return {**self.summary(), **self.forecast.as_dict()}

    def lines(self) -> list[str]:
        """For people."""
        counts = [f"{name.replace('_', ' '):<14}{value}" for name, value in self.summary().items()]
        return [*counts, *self.forecast.lines()]


def make_plan(
    manifest: Manifest,
    settings: RunSettings,
    info: TalkerInfo,
    ledger: Ledger,
    *,
    limit: int | None = None,
    retry: Retry | None = None,
    gone: Collection[str] = (),
    cache: Cache | None = None,
) -> Plan:
    """Compare the manifest with the records of earlier runs.

    ``limit`` is how many of the manifest's first rows are attempted; later rows are skipped unless they are ok
    already. ``gone`` are keys of records whose videos are not what those say; ``cache`` is the output's. No input is
    read, only looked up. Raises CannotRun when the records can't be read.
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
    index = RecordIndex(ledger.store)
    records = index.outcomes(keys)
    for row, error in plan.invalid:
        told = records.get(row.key)
        if told is not None and told.request == problem_fingerprint(error):
            plan.told.add(row.index)
    # Beyond the limit nothing but what may be ok already is worth looking up.
    looked_up = [ask for ask in asks if attempted(ask.row) or _is_ok(records.get(ask.row.id), ask.request)]
    seen = identities(
        (uri for ask in looked_up for uri in ask.inputs.values()), settings.storage_options, settings.limits
    )
    wanted: list[tuple[_Ask, dict[str, str | None]]] = []
    for ask in looked_up:
        record = records.get(ask.row.id)
        marks = {role: seen[uri] for role, uri in ask.inputs.items()}
        if record is not None and _holds(record, ask.request, marks, settings, again):
            plan.done[ask.row.index] = record.error_kind
        elif attempted(ask.row):
            wanted.append((ask, marks))
    _Making(plan, settings, info, cache or Cache(ledger.store, settings.cache)).add(wanted, index, gone)
    made = (*plan.items, *(item for item, _ in plan.copies))
    known = {*plan.done, *(item.index for item in made)}
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
        "label": settings.label,
        "producer": settings.producer,
        **_motion_facts(row, mode, settings),
    }
    asked = {"inputs": inputs, "settings": facts, "consent": row.consent, **common}
    if row.same_identity:
        # It shapes no frame, and rows that don't say so ask for what they asked for before there was the column.
        asked["same_identity"] = True
    return _Ask(row, mode, inputs, crop, facts, digest(asked))


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


class _Making:
    """Tasks for what is to be made, by what earlier runs have left."""

    def __init__(self, plan: Plan, settings: RunSettings, info: TalkerInfo, cache: Cache) -> None:
        self._plan, self._settings, self._info, self._cache = plan, settings, info, cache
        self._facts = StageFacts(settings, info)
        self._assets: dict[str, tuple[AssetTask, str | None, str]] = {}
        """Each with the content of its file, if that is known, and the first item that wants it."""

    def add(
        self, wanted: Sequence[tuple[_Ask, dict[str, str | None]]], index: RecordIndex, gone: Collection[str]
    ) -> None:
        plan, history = self._plan, History()
        if wanted:
            ids = {ask.row.id for ask, _ in wanted}
            history = History.read(index, ids, {uri for ask, _ in wanted for uri in ask.inputs.values()})
        items: list[tuple[ItemTask, Mapping[str, str] | None]] = []
        for ask, marks in wanted:
            found = {role: history.content(uri, marks[role]) for role, uri in ask.inputs.items()}
            contents = {role: content for role, content in found.items() if content is not None}
            known = contents if len(contents) == len(found) else None
            item = _item(ask, self._settings, marks, found)
            source = None if known is None else self._copied(item, known, history, gone)
            if source is not None:
                plan.copies.append((item, source))
                continue
            plan.items.append(item)
            items.append((item, known))
            self._share(item, found, known)
        plan.assets = {key: asset for key, (asset, _, _) in self._assets.items()}
        reused = len(plan.copies) + sum(kind is None for kind in plan.done.values())
        forecaster = Forecaster(self._settings, self._info, self._cache, history)
        plan.forecast = forecaster.forecast(self._assets.values(), items, reused)

    def _copied(
        self, item: ItemTask, contents: Mapping[str, str], history: History, gone: Collection[str]
    ) -> str | None:
        """The record of the same video, its own before another's."""
        keys = [key for key in history.videos(self._facts.fingerprint(item, contents)) if key not in gone]
        return item.key if item.key in keys else min(keys, default=None)

    def _share(self, item: ItemTask, contents: Mapping[str, str | None], known: Mapping[str, str] | None) -> None:
        """One asset for all items that name the same file in the same use, or other files of the same content."""
        for role, wish in (("image", item.portrait), ("audio", item.audio), ("driver", item.driver)):
            if wish is None:
                continue
            if role == "audio" and known is not None and wish.needs_features:
                wish.needs_features = self._facts.motion_key(item, known) not in self._cache
            first, *_ = self._assets.setdefault(wish.key, (wish, contents[role], item.key))
            first.needs_features |= wish.needs_features
            if first.uri == wish.uri:
                setattr(item, "portrait" if role == "image" else role, first)


def _item(
    ask: _Ask, settings: RunSettings, seen: dict[str, str | None], contents: Mapping[str, str | None]
) -> ItemTask:
    """The task of a row; files are told apart by their content where it is known, else by their name."""
    row, mode, inputs, crop = ask.row, ask.mode, ask.inputs, ask.crop

    def asset(kind: AssetKind, role: str, **use: Any) -> AssetTask | None:
        if role not in inputs:
            return None
        key = digest([kind, contents[role] or inputs[role], use.get("crop"), use.get("crop_rule")])
        return AssetTask(key=key, kind=kind, uri=inputs[role], **use)

    portrait = asset("portrait", "image", crop=crop is not None, crop_rule=crop["rule"] if crop else "audio")
    assert portrait is not None  # noqa: S101  (a row without one has a problem)
    audio = asset("audio", "audio", needs_features=mode == "audio")
    return ItemTask(
        key=row.id,
        index=row.index,
        mode=mode,
        portrait=portrait,
        audio=audio,
        driver=asset("driver", "driver"),
        pose=inputs.get("pose"),
        camera=inputs.get("camera"),
        gaze=inputs.get("gaze"),
        seed=row.seed,
        cfg_scale=settings.cfg_scale if row.cfg_scale is None else row.cfg_scale,
        nfe=settings.nfe if row.nfe is None else row.nfe,
        settings=ask.settings,
        consent=row.consent,
        same_identity=bool(row.same_identity),
        request=ask.request,
        identities=seen,
        flags=[LIPS_NOT_FROM_AUDIO] if mode == "driver" and audio else [],
    )

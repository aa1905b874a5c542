"""A run: from a manifest to videos, records and the results table."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from manifests.errors import ManifestError
from manifests.reader import Manifest, read_manifest
from manifests.row import Row
from pipeline import talker
from pipeline.accounting.price import Price
from pipeline.accounting.telemetry import NoTelemetry, Telemetry, open_telemetry
from pipeline.config import RunSettings
from pipeline.errors import CannotRun, ErrorRecord, Retry
from pipeline.execute import Context, Executor, lost, through
from pipeline.forecast import announced
from pipeline.ledger import Ledger, Record, now
from pipeline.locks.claims import Claims
from pipeline.locks.lease import Lease, leased
from pipeline.metrics.experts import given_weights
from pipeline.parts import Joining
from pipeline.plan import Plan, make_plan, problem_fingerprint
from pipeline.progress import RunProgress
from pipeline.provenance.certificate import OWN, Signing, signing
from pipeline.provenance.manifest import check
from pipeline.records.compaction import Compactor
from pipeline.records.index import MANY_LOOSE, RecordIndex
from pipeline.records.row import RESULTS_SCHEMA
from pipeline.reuse.cache import Cache
from pipeline.reuse.copies import Copies
from pipeline.stages.crop import CropStage
from pipeline.stages.features import FeaturesStage
from pipeline.stages.join import JoinStage
from pipeline.stages.motion import MotionStage
from pipeline.stages.render import RenderStage
from pipeline.storage import Store
from pipeline.summary import RunSummary, Work, finish
from pipeline.talker import TalkerInfo
from pipeline.tasks import SMALLER_BATCHES, AssetTask, ItemTask
from pipeline.weights import FEATURE_PARTS, PARTS, ensure


def prepare(settings: RunSettings, *, features_only: bool = False) -> TalkerInfo:
    """Make sure of the weights and say what the model is. Raises CannotRun for weights that can't be used."""
    given_weights(settings)
    parts = FEATURE_PARTS if features_only else PARTS
    ensure(settings.model, settings.weights, download=settings.download, parts=parts)
    return talker.info(settings, features_only=features_only)


def load_manifest(uri: str, settings: RunSettings) -> Manifest:
    """Read the manifest for a run. Raises CannotRun when it can't be used as a whole."""
    try:
        return read_manifest(
            uri,
            settings.storage_options,
            results_columns=RESULTS_SCHEMA.names,
            motion_from=settings.motion_from,
            require_consent=settings.require_consent,
        )
    except ManifestError as exc:
        raise CannotRun(str(exc)) from exc


def run(
    manifest: Manifest,
    settings: RunSettings,
    info: TalkerInfo,
    output: str,
    open_executor: Callable[[Context], AbstractContextManager[Executor]],
    progress: RunProgress,
    *,
    limit: int | None = None,
    retry: Retry | None = None,
    price: Price | None = None,
) -> RunSummary:
    """Make what the manifest asks for and what earlier runs have not made.

    ``open_executor`` is entered only when there is something to make. ``price`` gives the results a cost.

    Raises CannotRun when the run as a whole can't go on, as where another one works on the output; whatever was made
    until then is kept.
    """
    started = time.monotonic()
    signer = _signing(settings)
    store = Store(output, settings.storage_options, settings.retries)
    store.check_writable()
    with leased(store) as lease:
        index = RecordIndex(store)
        # Left by a run that was killed.
        index.compact(many=MANY_LOOSE)
        ledger = Ledger(store)
        work = Work(signature=signer.facts() if signer else None)
        committed = _Committed(ledger, Compactor(index), lease, settings, info, work, signer)
        cache = Cache(store, settings.cache)
        plan = make_plan(manifest, settings, info, ledger, limit=limit, retry=retry, cache=cache)
        _announce(plan, progress)
        gone: set[str] = set()
        while plan.copies and (missing := _make_copies(plan, committed, index, progress)):
            # What can't be copied has to be made, and that was not planned.
            gone |= missing
            plan = make_plan(manifest, settings, info, ledger, limit=limit, retry=retry, gone=gone, cache=cache)
            _announce(plan, progress)
        for row, error in plan.invalid:
            if row.index in plan.told:
                continue
            ledger.write(_unattempted(row, error, lease), key=row.key)
        if plan.items:
            with open_executor(Context(settings, info, store.uri, signer)) as executor:
                work.placement = executor.placement
                committed.telemetry = open_telemetry()
                assets = _make_assets(plan, executor, progress, committed, Claims(store, "asset"))
                committed.telemetry.queued("videos", len(plan.items))
                _make_items(plan, assets, committed, executor, progress, Claims(store, "item"))
        lease.confirm()
        index.compact()
        work.cache = cache.end(work.used)
        return finish(manifest, plan, work, store, settings, info, time.monotonic() - started, price)


def _signing(settings: RunSettings) -> Signing | None:
    """Who signs the run's videos. Raises CannotRun for a certificate that can't."""
    if settings.label == "none":
        return None
    found = signing(settings.signing)
    if found.kind == OWN:
        check(found)
    return found


def _announce(plan: Plan, progress: RunProgress) -> None:
    facts = plan.summary()
    progress.say(
        f"plan: {facts['to_make']} to make ({facts['portraits']} portraits, {facts['recordings']} recordings, "
        f"{facts['drivers']} drivers), {facts['to_copy']} to copy, {facts['already_done']} done already, "
        f"{facts['invalid']} rows that can't be attempted, {facts['skipped']} skipped"
    )
    progress.say(announced(plan.forecast))


def _unattempted(row: Row, error: ErrorRecord, lease: Lease) -> Record:
    return Record(
        id=row.id,
        index=row.index,
        status="failed",
        error=error,
        request=problem_fingerprint(error),
        finished_at=now(),
        fence=lease.token,
    )


def _make_copies(plan: Plan, committed: _Committed, index: RecordIndex, progress: RunProgress) -> set[str]:
    """Items whose video is there already; returns the records whose video is not."""
    for item, _ in plan.copies:
        item.fence = committed.lease.token

    def keep(item: ItemTask) -> None:
        committed.note_copy(item)
        progress.advance(failed=item.error is not None)

    progress.begin("copies", len(plan.copies))
    copies = Copies(committed.ledger, index, committed.settings, committed.info, committed.signing)
    return copies.make(plan.copies, keep)


def _make_assets(
    plan: Plan, executor: Executor, progress: RunProgress, committed: _Committed, claims: Claims
) -> dict[str, AssetTask]:
    """Crops, codes, features and drivers' motion: each once, however many items name it."""
    done: dict[str, AssetTask] = {}

    def keep(asset: AssetTask) -> None:
        committed.lease.check()
        done[asset.key] = asset
        committed.telemetry.worked("media", committed.work.count_asset(asset))
        progress.advance(failed=asset.error is not None)

    progress.begin("portraits and media", len(plan.assets))
    committed.telemetry.queued("media", len(plan.assets))
    stages = (CropStage, FeaturesStage)
    for gone in through(
        list(plan.assets.values()), stages, executor, keep, claims, progress.say, committed.lease.confirm
    ):
        keep(gone.model_copy(update={"error": lost("features")}))
        claims.release(gone.key)
    return done


@dataclass
class _Committed:
    """Hears of every record of this run, and writes those of items that no stage has committed."""

    ledger: Ledger
    compactor: Compactor
    lease: Lease
    settings: RunSettings
    info: TalkerInfo
    work: Work
    signing: Signing | None
    telemetry: Telemetry = field(default_factory=NoTelemetry)

    def write(self, item: ItemTask) -> None:
        self.ledger.write(Record.of(item, self.settings, self.info))
        self.note(item)

    def note(self, item: ItemTask) -> None:
        self.lease.check()
        self.telemetry.worked("videos", self.work.count_item(item))
        made = item.video["frames"] if item.video and item.error is None else 0
        self.telemetry.item("failed" if item.error else "ok", item.error.kind if item.error else "", made)
        self.compactor.note(item.key)

    def note_part(self, task: ItemTask) -> None:
        self.lease.check()
        # A task more than was foreseen.
        self.telemetry.queued("videos", 1)
        self.telemetry.worked("videos", self.work.count_part(task))

    def note_copy(self, item: ItemTask) -> None:
        self.lease.check()
        self.work.copied += item.error is None
        self.compactor.note(item.key)


def _make_items(
    plan: Plan,
    assets: dict[str, AssetTask],
    committed: _Committed,
    executor: Executor,
    progress: RunProgress,
    claims: Claims,
) -> None:
    """Motion and video of every item whose assets could be made; a record of every item."""
    ready: list[ItemTask] = []
    _count_items(plan.items, assets)
    for item in plan.items:
        item.fence = committed.lease.token
        item.shares = committed.work.shares
        _attach(item, assets)
        if item.error is None:
            ready.append(item)
        else:
            committed.write(item)
    ready = _by_portrait(ready)

    def advance(item: ItemTask) -> None:
        progress.advance(failed=item.error is not None, frames=item.video["frames"] if item.video else 0)

    def keep(item: ItemTask) -> None:
        committed.note(item)
        advance(item)

    progress.begin("videos", len(ready), frames=sum(item.due_frames for item in ready))
    joining = Joining(executor, JoinStage, committed.note_part)
    stages = (MotionStage, RenderStage)
    for gone in through(ready, stages, joining, keep, claims, progress.say, committed.lease.confirm):
        item = gone.model_copy(update={"error": lost("render")})
        committed.write(item)
        claims.release(item.key)
        advance(item)


def _count_items(items: list[ItemTask], assets: dict[str, AssetTask]) -> None:
    """Say in every asset how many items share its cost."""
    for item in items:
        for wanted in (item.portrait, item.audio, item.driver):
            if wanted is not None:
                assets[wanted.key].items += 1


def _attach(item: ItemTask, assets: dict[str, AssetTask]) -> None:
    """Put what was made of the item's assets into it, and the first error that one of them had."""
    for role in ("portrait", "audio", "driver"):
        wanted: AssetTask | None = getattr(item, role)
        if wanted is None:
            continue
        made = assets[wanted.key]
        if made.uri != wanted.uri:
            # Another file of the same content was read in its place.
            read = made.input.model_copy(update={"uri": wanted.uri}) if made.input else None
            made = made.model_copy(update={"uri": wanted.uri, "input": read})
        setattr(item, role, made)
        item.error = item.error or made.error
        if made.facts.get(SMALLER_BATCHES):
            item.flag(SMALLER_BATCHES)


def _by_portrait(items: list[ItemTask]) -> list[ItemTask]:
    """Items of a portrait together, so that it is prepared once; the longest group first, the longest item first."""
    total: Counter[str] = Counter()
    for item in items:
        total[item.portrait.key] += item.due_frames
    return sorted(items, key=lambda item: (-total[item.portrait.key], item.portrait.key, -item.due_frames, item.index))

"""A run: from a manifest to videos, records and the results table."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager

from manifests.errors import ManifestError
from manifests.reader import Manifest, read_manifest
from pipeline import talker
from pipeline.config import RunSettings
from pipeline.errors import CannotRun
from pipeline.execute import Context, Executor, lost, through
from pipeline.ledger import RESULTS_SCHEMA, Ledger, Record, now
from pipeline.plan import Plan, make_plan
from pipeline.progress import RunProgress
from pipeline.stages.crop import CropStage
from pipeline.stages.features import FeaturesStage
from pipeline.stages.motion import MotionStage
from pipeline.stages.render import RenderStage
from pipeline.storage import Store
from pipeline.summary import RunSummary, finish
from pipeline.talker import TalkerInfo
from pipeline.tasks import AssetTask, ItemTask
from pipeline.weights import FEATURE_PARTS, PARTS, ensure


def prepare(settings: RunSettings, *, features_only: bool = False) -> TalkerInfo:
    """Make sure of the weights and say what the model is. Raises CannotRun for weights that are missing."""
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
) -> RunSummary:
    """Make what the manifest asks for and what earlier runs have not made.

    ``open_executor`` is entered only when there is something to make.

    Raises CannotRun when the run as a whole can't go on; whatever was made until then is kept.
    """
    started = time.monotonic()
    store = Store(output, settings.storage_options)
    store.check_writable()
    ledger = Ledger(store)
    plan = make_plan(manifest, settings, info, ledger, limit=limit)
    _announce(plan, progress)
    for row, error in plan.invalid:
        ledger.write(Record(id=row.id, index=row.index, status="failed", error=error, finished_at=now()), key=row.key)
    assets: dict[str, AssetTask] = {}
    records: dict[int, Record] = {}
    if plan.items:
        with open_executor(Context(settings, info, store.uri)) as executor:
            assets = _make_assets(plan, executor, progress)
            records = _make_items(plan, assets, ledger, settings, info, executor, progress)
    return finish(manifest, plan, records, assets.values(), store, settings, info, time.monotonic() - started)


def _announce(plan: Plan, progress: RunProgress) -> None:
    facts = plan.summary()
    progress.say(
        f"plan: {facts['to_make']} to make ({facts['portraits']} portraits, {facts['recordings']} recordings, "
        f"{facts['drivers']} drivers), {facts['already_done']} done already, {facts['invalid']} rows that can't be "
        f"attempted, {facts['skipped']} skipped"
    )


def _make_assets(plan: Plan, executor: Executor, progress: RunProgress) -> dict[str, AssetTask]:
    """Crops, codes, features and drivers' motion: each once, however many items name it."""
    done: dict[str, AssetTask] = {}

    def keep(asset: AssetTask) -> None:
        done[asset.key] = asset
        progress.advance(failed=asset.error is not None)

    progress.begin("portraits and media", len(plan.assets))
    for gone in through(list(plan.assets.values()), (CropStage, FeaturesStage), executor, keep):
        keep(plan.assets[gone.key].model_copy(update={"error": lost("features")}))
    return done


def _make_items(
    plan: Plan,
    assets: dict[str, AssetTask],
    ledger: Ledger,
    settings: RunSettings,
    info: TalkerInfo,
    executor: Executor,
    progress: RunProgress,
) -> dict[int, Record]:
    """Motion and video of every item whose assets could be made; a record of every item. By row."""
    records: dict[int, Record] = {}
    ready: list[ItemTask] = []
    for item in plan.items:
        _attach(item, assets)
        if item.error is None:
            ready.append(item)
        else:
            record = Record.of(item, settings, info)
            ledger.write(record)
            records[item.index] = record
    ready = _by_portrait(ready)

    def keep(item: ItemTask) -> None:
        records[item.index] = Record.of(item, settings, info)
        frames = item.video["frames"] if item.video else 0
        progress.advance(failed=item.error is not None, frames=frames)

    progress.begin("videos", len(ready), frames=sum(item.due_frames for item in ready))
    by_key = {item.key: item for item in ready}
    for gone in through(ready, (MotionStage, RenderStage), executor, keep):
        item = by_key[gone.key].model_copy(update={"error": lost("render")})
        ledger.write(Record.of(item, settings, info))
        keep(item)
    return records


def _attach(item: ItemTask, assets: dict[str, AssetTask]) -> None:
    """Put what was made of the item's assets into it, and the first error that one of them had."""
    for role in ("portrait", "audio", "driver"):
        wanted: AssetTask | None = getattr(item, role)
        if wanted is None:
            continue
        made = assets[wanted.key]
        setattr(item, role, made)
        item.error = item.error or made.error


def _by_portrait(items: list[ItemTask]) -> list[ItemTask]:
    """Items of a portrait together, so that it is prepared once; the longest group first, the longest item first."""
    total: Counter[str] = Counter()
    for item in items:
        total[item.portrait.key] += item.due_frames
    return sorted(items, key=lambda item: (-total[item.portrait.key], item.portrait.key, -item.due_frames, item.index))

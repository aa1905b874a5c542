"""The command that makes one item again, alone, from what its record says of it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from manifests import ids
from manifests.uri import scheme
from pipeline.config import RunSettings
from pipeline.ledger import Record
from pipeline.plan import mode_rule
from pipeline.reuse.fingerprint import digest

_FLAGS = {"video.crf": "--crf", "video.preset": "--x264-preset"}
_IRRELEVANT = frozenset(
    {
        "cache",
        "download",
        "gates",
        "landmarks",
        "metric_weights",
        "metrics",
        "progress_seconds",
        "report",
        "require_consent",
        "resources",
        "signing",
        "storage_options",
        "weights",
    }
)
"""Settings that shape no frame, or that are written in another way."""


@dataclass(frozen=True)
class Reproduction:
    """``command`` is quoted for a shell; ``notes`` say what it can't know."""

    command: str
    notes: tuple[str, ...]


def reproduce(record: Record, uris: Mapping[str, str], run: Mapping[str, Any] | None) -> Reproduction:
    """The call of ``imtalker generate`` that gives an item's frames, or its failure.

    ``generate`` runs the same stages as a run. Everything that shapes frames is fixed: the item's own seed, which would
    else follow from the run's, and the torch threads of each stage, which would else follow from the machine.

    Args:
        uris: the files of the row, by role; the record has them too if it came far enough.
        run: contents of the output's ``run.json``, for what records leave out: paths of weights, limits, device.
    """
    notes: list[str] = []
    settings = settings_of(record, run, notes)
    words = ["imtalker", "generate"]
    for role, uri in {**uris, **record.uris}.items():
        words += [f"--{role}", uri]
    words += ["--output", f"{record.id if ids.is_valid(record.id) else 'item'}.mp4"]
    if (seed := _item_seed(record)) is not None:
        words += ["--item-seed", str(seed)]
    words += _flags(settings)
    for part, path in sorted(settings.weights.items()):
        words += ["--weights", f"{part}={path}"]
    for stage, threads in threads_of(record).items():
        words += ["--set", f"resources.{stage}.threads={threads}"]
    if any(scheme(uri) for uri in (*uris.values(), *record.uris.values())):
        notes.append("storage options are not recorded: give the run's again, by environment or --set storage_options")
    if render := record.workers.get("render"):
        where = render.gpu or "without GPU"
        notes.append(f"equal frames are promised on the same kind of processor or GPU only: {render.node}, {where}")
    return Reproduction(shlex.join(words), tuple(notes))


def threads_of(record: Record) -> dict[str, int]:
    """Torch threads that each stage had."""
    return {stage: worker.threads for stage, worker in sorted(record.workers.items()) if worker.threads is not None}


def settings_of(record: Record, run: Mapping[str, Any] | None, notes: list[str]) -> RunSettings:
    """The settings that the item was made with, as far as they are known; ``notes`` gets what is not.

    Where it ran and with how many threads is not among them. ``run`` is as for `reproduce`.
    """
    values = _run_settings(record, run, notes).model_dump()
    own = record.settings
    for name in (
        "cfg_scale",
        "nfe",
        "max_seconds",
        "batch_size",
        "compile",
        "items_in_flight",
        "driver_face",
        "video",
        "label",
        "producer",
    ):
        if name in own:
            values[name] = own[name]
    if record.model:
        values["model"] = record.model
    if record.precision:
        values["precision"] = record.precision
    if _item_seed(record) is not None:
        values["seed"] = RunSettings().seed
    elif isinstance(seed := own.get("seed"), dict):
        values["seed"] = seed["run"]
    networks = [record.workers[stage] for stage in ("features", "motion", "render") if stage in record.workers]
    if networks and not any(worker.gpu for worker in networks):
        values["device"] = "cpu"
    if "crop" in own:
        values["crop"] = own["crop"] is not None
        if own["crop"] is not None:
            rule = own["crop"]["rule"]
            values |= {"face": own["crop"]["face"], "detector": own["crop"]["detector"]}
            values["crop_rule"] = "auto" if rule == mode_rule(own["mode"]) else rule
    if record.mode and {"audio", "driver"} <= record.uris.keys():
        values["motion_from"] = record.mode
    return RunSettings.model_validate(values)


def _item_seed(record: Record) -> int | None:
    """The item's own seed; None as long as the run's and the inputs have not been made one."""
    seed = record.seed if record.seed is not None else record.settings.get("seed")
    return seed if isinstance(seed, int) else None


def _run_settings(record: Record, run: Mapping[str, Any] | None, notes: list[str]) -> RunSettings:
    """Those of the output's last run, if the item is from a run with the same weights and limits; else the defaults."""
    run = run or {}
    settings = None
    if not record.weights_sha256 or run.get("model", {}).get("weights_sha256") == record.weights_sha256:
        with suppress(KeyError, ValidationError):
            settings = RunSettings.model_validate(run["settings"])
    if settings is None and record.weights_sha256:
        notes.append("paths of weights are not known: run.json is missing or of a run with others; compare the hashes")
    found = settings or RunSettings()
    if record.limits and record.limits != digest(found.limits.model_dump()):
        found = found.model_copy(update={"limits": RunSettings().limits})
        if record.limits != digest(found.limits.model_dump()):
            notes.append("the limits on inputs are not known: they were not the defaults")
    return found


def _flags(settings: RunSettings) -> Iterator[str]:
    """Flags for whatever is not the default, the model always."""
    defaults = _flat(RunSettings().model_dump(exclude=set(_IRRELEVANT)))
    for path, value in _flat(settings.model_dump(exclude=set(_IRRELEVANT))):
        if (path, value) in defaults and path != "model":
            continue
        if "." in path and path not in _FLAGS:
            yield from ("--set", f"{path}={json.dumps(value)}")
        elif isinstance(value, bool):
            yield f"--{'' if value else 'no-'}{path.replace('_', '-')}"
        else:
            yield from (_FLAGS.get(path, f"--{path.replace('_', '-')}"), str(value))


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Dotted paths and their plain values."""
    pairs: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            pairs += _flat(value, f"{prefix}{name}.")
        else:
            pairs.append((f"{prefix}{name}", value))
    return pairs

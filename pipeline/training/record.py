"""What a training was started with: a folder is not taken up with other settings by mistake."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from imtalker.training.loop import CHECKPOINT
from imtalker.training.renderer_run import CODES, POOLS, ROUTES
from pipeline.errors import CannotRun
from pipeline.training.settings import BasicSettings

RECORD = "training.json"

_FREE = {
    "output",
    "steps",
    "again",
    "again_rate",
    "device",
    "precision",
    "accumulate",
    "workers",
    "gpus_per_worker",
    "cpus_per_worker",
    "restarts",
    "address",
    "limits",
    "report_every",
    "checkpoint_every",
    "validate_every",
    "progress_seconds",
}
"""What may change from one stretch of a training to the next."""


def check_record(kind: str, settings: BasicSettings) -> None:
    """Compare the settings with those that the folder's training began with, or write them down.

    A setting that the record lacks, because an older version wrote it, counts as the default. A training without
    checkpoint has not really begun: it is begun anew, and avatars and lessons of other settings are removed. Raises
    CannotRun when the folder holds another training.
    """
    path = settings.output / RECORD
    wanted = {"kind": kind, **settings.model_dump(mode="json", exclude=_FREE)}
    found = _read(path)
    if found is not None:
        found = _completed(found, settings)
    if found != wanted and not has_checkpoint(settings.output):
        for name in (POOLS, CODES, ROUTES):
            shutil.rmtree(settings.output / name, ignore_errors=True)
        found = None
    _check(path, found, wanted, "a training")


def _completed(found: dict[str, Any], settings: BasicSettings) -> dict[str, Any]:
    """A record with the defaults of what it lacks; as it is when it isn't one of such settings."""
    free = settings.model_dump(mode="json", include=_FREE)
    began = {name: value for name, value in found.items() if name != "kind"}
    try:
        known = type(settings).model_validate({**free, **began})
    except ValidationError:
        return found
    return {"kind": found.get("kind"), **known.model_dump(mode="json", exclude=_FREE)}


def check_facts(path: Path, wanted: dict[str, Any], what: str) -> None:
    """Compare what a folder is made of with the facts in its file ``path``, or write them down where that is missing.

    Raises CannotRun when they differ; ``what`` says what the folder holds.
    """
    _check(path, _read(path), wanted, what)


def _check(path: Path, found: dict[str, Any] | None, wanted: dict[str, Any], what: str) -> None:
    if found is None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".part")
            partial.write_text(json.dumps(wanted, indent=1) + "\n")
            partial.replace(path)
        except OSError as exc:
            raise CannotRun(f"{path.parent} can't be used: {exc}") from exc
        return
    names = sorted(name for name in wanted | found if wanted.get(name) != found.get(name))
    if names:
        differences = [f"  {name}: {found.get(name)!r} there, {wanted.get(name)!r} here" for name in names]
        raise CannotRun(
            "\n".join(
                [
                    f"{path.parent} holds {what} with other settings:",
                    *differences,
                    "name another output, or go on with the old settings",
                ]
            )
        )


def _read(path: Path) -> dict[str, Any] | None:
    try:
        facts: Any = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        raise CannotRun(f"{path.parent} can't be used: {exc}") from exc
    if not isinstance(facts, dict):
        raise CannotRun(f"{path.parent} can't be used: {path.name} holds no settings; name another output")
    return facts


def has_checkpoint(folder: Path) -> bool:
    """Whether a training has begun there."""
    return (folder / CHECKPOINT).exists()

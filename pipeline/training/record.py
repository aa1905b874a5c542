"""What a training was started with: a folder is not taken up with other settings by mistake."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from imtalker.training.loop import CHECKPOINT
from imtalker.training.renderer_run import CODES, POOLS, ROUTES
from pipeline.errors import CannotRun
from pipeline.training.settings import BasicSettings

RECORD = "training.json"

_FREE = {
    "output",
    "steps",
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

    A training without checkpoint has not really begun: it is begun anew, and avatars and lessons of other settings are
    removed. Raises CannotRun when the folder holds another training.
    """
    path = settings.output / RECORD
    wanted = {"kind": kind, **settings.model_dump(mode="json", exclude=_FREE)}
    try:
        settings.output.mkdir(parents=True, exist_ok=True)
        found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        if found != wanted and not has_checkpoint(settings.output):
            for name in (POOLS, CODES, ROUTES):
                shutil.rmtree(settings.output / name, ignore_errors=True)
            partial = path.with_suffix(".part")
            partial.write_text(json.dumps(wanted, indent=1) + "\n")
            partial.replace(path)
            return
    except (OSError, ValueError) as exc:
        raise CannotRun(f"{settings.output} can't be used: {exc}") from exc
    names = sorted(name for name in wanted | found if wanted.get(name) != found.get(name))
    if names:
        differences = [f"  {name}: {found.get(name)!r} there, {wanted.get(name)!r} here" for name in names]
        raise CannotRun(
            "\n".join(
                [
                    f"{settings.output} holds a training with other settings:",
                    *differences,
                    "name another output, or go on with the old settings",
                ]
            )
        )


def has_checkpoint(folder: Path) -> bool:
    """Whether a training has begun there."""
    return (folder / CHECKPOINT).exists()

"""A run in a process of its own that is killed at a chosen place, as `kill -9` would."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from pipeline.config import RunSettings
from pipeline.storage import Store
from tests.runs import TINY, run_manifest

# Several runs share the machine's processors.
_ALONE = {"threads": 1}
_SETTINGS = RunSettings.model_validate(
    TINY.model_dump() | {"resources": {stage: _ALONE for stage in ("crop", "features", "motion", "render")}}
)

_PLACES = multiprocessing.get_context("forkserver")
# Everything is loaded once, in a server without threads; a process for a run is a fork of it.
_PLACES.set_forkserver_preload(["tests.killed_run", "transformers.models.wav2vec2.modeling_wav2vec2"])


IN_PARTS = RunSettings.model_validate(
    _SETTINGS.model_dump()
    | {
        "video": {"segment_seconds": 0.2},
        "resources": {stage: _ALONE for stage in ("crop", "features", "motion")}
        | {"render": {**_ALONE, "split_seconds": 0.2}},
    }
)
"""Every item of ten frames is rendered in two parts."""


def killed_at(manifest: str, output: Path, call: int, settings: RunSettings = _SETTINGS) -> bool:
    """Start a run and kill it before its storage call number ``call``, from 0; False if it ended before."""
    return _was_killed(_started(manifest, output, call, settings))


def killed_after(manifest: str, output: Path, seconds: float) -> bool:
    """Start a run and kill it after some time; False if it ended before."""
    process = _started(manifest, output)
    process.join(seconds)
    process.kill()
    return _was_killed(process)


def finished(manifest: str, output: Path, settings: RunSettings = _SETTINGS) -> None:
    """Let a run end."""
    assert not _was_killed(_started(manifest, output, settings=settings))


def _started(manifest: str, output: Path, call: int | None = None, settings: RunSettings = _SETTINGS) -> BaseProcess:
    process = _PLACES.Process(target=_run, args=(manifest, str(output), call, settings))
    process.start()
    return process


def _was_killed(process: BaseProcess) -> bool:
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL), process.exitcode
    return process.exitcode != 0


def _run(manifest: str, output: str, call: int | None, settings: RunSettings) -> None:
    if call is not None:
        _die_at(call)
    run_manifest(manifest, output, settings)


def _die_at(call: int) -> None:
    """Kill this process before the storage call of that number, or in it: when a local file is to get its name."""
    asked = 0
    tried: Callable[..., Any] = Store._tried
    replace: Callable[[Path, Any], Path] = Path.replace

    def count() -> None:
        nonlocal asked
        if asked == call:
            os.kill(os.getpid(), signal.SIGKILL)
        asked += 1

    def counted(self: Store, *args: Any, **options: Any) -> Any:
        count()
        return tried(self, *args, **options)

    def counted_replace(self: Path, target: Any) -> Path:
        count()
        return replace(self, target)

    Store._tried = counted  # type: ignore[method-assign]
    Path.replace = counted_replace  # type: ignore[method-assign, assignment]

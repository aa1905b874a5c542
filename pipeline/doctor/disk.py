"""Disks: room in the temporary folder, under Ray's, in shared memory and in a local output."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from manifests.uri import scheme
from pipeline.doctor.finding import Finding, Request, fail, note, ok

_LEAST_BYTES = 1 << 30
_RAY_FULL = 0.95
"""Ray's own limit: above it a machine takes no more objects (local_fs_capacity_threshold)."""
_TRIAL_BYTES = 1 << 20


def check(request: Request) -> Iterator[Finding]:
    try:
        temporary = Path(tempfile.gettempdir())
    except FileNotFoundError as exc:
        yield fail(f"no temporary folder can be written to: {exc}", "set TMPDIR to a folder on a local disk")
        return
    inputs = request.settings.limits.max_file_bytes
    yield _room("temporary folder", temporary, f"a worker copies an input of up to {inputs / 1e9:.1f} GB there", inputs)
    ray = Path(os.environ.get("RAY_TMPDIR", "/tmp/ray"))  # noqa: S108  (Ray's own default)
    used = shutil.disk_usage(existing(ray))
    if used.used / used.total > _RAY_FULL:
        yield fail(
            f"the disk of Ray's folder {ray} is {used.used / used.total:.0%} full: Ray takes no objects above 95 %",
            "make room, or set RAY_TMPDIR (with --temp-dir for ray start) to another disk",
        )
    if request.output is not None and scheme(request.output) is None:
        yield _room("output", existing(Path(request.output)), "", 0)


def _room(name: str, folder: Path, why: str, wanted: int) -> Finding:
    """Whether there is room, and whether it can be written to."""
    free = shutil.disk_usage(folder).free
    what = f"{name} {folder}: {free / 1e9:.1f} GB free"
    hint = "make room" if name == "output" else "make room, or set TMPDIR to another disk"
    if free < _LEAST_BYTES:
        return fail(what, hint, free_bytes=free)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_TRIAL_BYTES))
            file.flush()
    except OSError as exc:
        return fail(f"{what}, but a file of 1 MiB can't be written: {exc}", f"{hint}; is there a quota?")
    if free < wanted:
        return note(f"{what}; {why}", f"{hint}, or lower limits.max_file_bytes", free_bytes=free)
    return ok(what, free_bytes=free)


def existing(path: Path) -> Path:
    """``path``, or what there is of the folders above it."""
    return next(folder for folder in (path, *path.parents) if folder.exists())

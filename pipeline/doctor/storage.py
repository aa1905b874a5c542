"""The output's storage: written, read back, deleted, and whether it can refuse to write over what is there."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from manifests.uri import storage_errors
from pipeline.doctor.disk import existing
from pipeline.doctor.finding import Finding, Request, fail, note, ok
from pipeline.errors import CannotRun
from pipeline.storage import Store

_FIRST, _SECOND = b"doctor: first", b"doctor: second"
_MEND = "check the address, the credentials and what they allow (s3: GetObject, PutObject, DeleteObject, ListBucket)"


def check(request: Request) -> Iterator[Finding]:
    """One small object is written under the output, and taken away again, whatever happens in between."""
    if request.output is None:
        yield note("not looked at: no output was named", "--output URI, or a job file with --config")
        return
    try:
        store = Store(request.output, request.settings.storage_options)
    except CannotRun as exc:
        yield fail(str(exc), "give a local folder, or a URI whose package is installed, such as s3://bucket/prefix")
        return
    # No folder is made: other machines may be looking at it at the same time.
    folder = str(existing(Path(store.root))) if isinstance(store.fs, LocalFileSystem) else store.root
    yield from _try(store, folder, request.probe)


def _try(store: Store, folder: str, name: str) -> Iterator[Finding]:
    fs, path, doing, started = store.fs, f"{folder}/{name}", "written", time.perf_counter()
    unusable = (*storage_errors(), NotImplementedError)
    try:
        fs.pipe_file(path, _FIRST)
        doing = "read back"
        if (found := fs.cat_file(path)) != _FIRST:
            raise OSError(f"it holds {found[:40]!r}, not what was written")
        how, kept = _exclusion(fs, path)
        doing = "listed"
        fs.invalidate_cache()
        if name not in {listed.rpartition("/")[2] for listed in fs.ls(folder, detail=False)}:
            raise OSError("the listing does not have it, though it is there")
        doing = "deleted"
        fs.rm_file(path)
    except BaseException as exc:
        # Also when the check is cut off.
        with suppress(*unusable):
            fs.rm_file(path)
        if not isinstance(exc, unusable):
            raise
        reason = f"{type(exc).__name__}: {' '.join(str(exc).split())}"
        yield fail(f"{store.uri}: the object {name} can't be {doing}: {reason}", _MEND)
        return
    seconds = time.perf_counter() - started
    yield ok(f"{store.uri}: written, read, listed and deleted in {seconds:.2f} s", seconds=round(seconds, 3))
    yield _lease(how, kept)


def _exclusion(fs: AbstractFileSystem, path: str) -> tuple[str, bool]:
    """By what the store could keep a second writer out, and whether it does."""
    if isinstance(fs, LocalFileSystem):
        return "file locks", _locks(Path(path))
    if not hasattr(fs, "call_s3"):
        return "conditional writes", False
    wrong = '"00000000000000000000000000000000"'
    kept = not _puts(fs, path, IfNoneMatch="*") and not _puts(fs, path, IfMatch=wrong)
    return "conditional writes", kept and _puts(fs, path, IfMatch=fs.info(path, refresh=True)["ETag"])


def _puts(fs: AbstractFileSystem, path: str, **condition: str) -> bool:
    """Whether S3 takes a put under a condition."""
    bucket, key, _ = fs.split_path(path)
    try:
        fs.call_s3("put_object", Bucket=bucket, Key=key, Body=_SECOND, **condition)
    except storage_errors():
        # Refused, or not understood; a store that understands none takes none whose condition holds either.
        return False
    return True


def _locks(file: Path) -> bool:
    """Whether the disk knows file locks; some shared ones don't."""
    with file.open("rb") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


def _lease(how: str, kept: bool) -> Finding:
    if kept:
        return ok(f"{how} work: of two runs on one output, the second can be kept out for certain", lease_exact=True)
    return note(
        f"{how} are not kept to here: two runs that start on one output at the same moment may both go on",
        "start one run at a time on it",
        lease_exact=False,
    )

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
    made = _make_folders(Path(store.root)) if isinstance(store.fs, LocalFileSystem) else []
    if isinstance(made, OSError):
        yield fail(f"{store.uri} can't be made: {made}", "give a folder that may be written to")
        return
    try:
        yield from _try(store, f"{store.root}/{request.probe}")
    finally:
        for folder in reversed(made):
            with suppress(OSError):
                folder.rmdir()


def _try(store: Store, path: str) -> Iterator[Finding]:
    fs, doing, started = store.fs, "written", time.perf_counter()
    try:
        fs.pipe_file(path, _FIRST)
        doing = "read back"
        if (found := fs.cat_file(path)) != _FIRST:
            yield fail(f"{store.uri}: what was written is not what is read back ({found[:40]!r})", "don't use it")
        how, kept = _exclusion(fs, path)
        doing = "listed"
        fs.invalidate_cache()
        names = [name.rpartition("/")[2] for name in fs.ls(store.root, detail=False)]
        if path.rpartition("/")[2] not in names:
            yield fail(f"{store.uri}: an object that was written is not in the listing", "use a store that lists at once")
        doing = "deleted"
        fs.rm_file(path)
    except (*storage_errors(), NotImplementedError) as exc:
        reason = f"{type(exc).__name__}: {' '.join(str(exc).split())}"
        with suppress(*storage_errors(), NotImplementedError):
            fs.rm_file(path)
        yield fail(f"{store.uri}: an object can't be {doing}: {reason}", _MEND)
        return
    except BaseException:
        with suppress(*storage_errors(), NotImplementedError):
            fs.rm_file(path)
        raise
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


def _make_folders(folder: Path) -> list[Path] | OSError:
    """Make a folder and those above it that lack; returns what was made, outermost first."""
    made = [path for path in (folder, *folder.parents) if not path.exists()][::-1]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        return exc
    return made

"""The run's output folder, on a local disk or an object store, through fsspec.

Every write is atomic for readers: a temporary name and a rename on a local disk, one put (or one multipart
completion) on an object store. Uploads are whole bytes or finished local files, because s3fs commits what it has
when a block that writes raises.
"""

from __future__ import annotations

import io
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.local import LocalFileSystem

from manifests.uri import scheme, storage_errors
from pipeline.config import RetrySettings
from pipeline.errors import CannotRun, ItemError
from pipeline.filesystems import OBJECT_STORES, PART_BYTES, connect
from pipeline.listing import Stored, is_temporary, mark, modified, scanned
from pipeline.retry import is_transient, retried

R = TypeVar("R")

_DELETED_AT_ONCE = 1000
_PATTERNS = frozenset("*?[")


class StorageError(ItemError, CannotRun):
    """Storage failed: an ``infrastructure`` error of the item that was at work, or the end of a run that was."""

    def __init__(self, message: str, hint: str = "run again: done items are kept", *, transient: bool = False) -> None:
        super().__init__("infrastructure", message, hint=hint, transient=transient)

    def __reduce__(self) -> tuple[Any, ...]:
        return StorageError, (self.message, self.hint), {"transient": self.transient}


class Store:
    """Keys under one base URI. Keys are relative, with ``/`` between parts, and can't climb out of it.

    What the storage itself goes on failing with is raised as a `StorageError`.
    """

    def __init__(
        self, uri: str, storage_options: Mapping[str, Mapping[str, Any]], retries: RetrySettings | None = None
    ) -> None:
        """``retries`` are of what may be gone a moment later. Touches nothing.

        Raises CannotRun when the URI can't be an output or its options are wrong.
        """
        try:
            self.fs, root = connect(uri, storage_options)
        except storage_errors() as exc:
            raise CannotRun(f"output {uri}: {exc}") from exc
        self._retries = retries or RetrySettings()
        self.root = root.rstrip("/")
        if not uri or not self.root:
            raise CannotRun(f"output {uri!r}: expected a folder, or a bucket and a prefix; found neither")
        self.is_local = isinstance(self.fs, LocalFileSystem)
        # Workers have other working folders: a local output is known by its absolute path.
        self.uri = self.root if self.is_local else uri.rstrip("/")
        self._upload = {"chunksize": PART_BYTES} if scheme(uri) in OBJECT_STORES else {}

    def url(self, key: str) -> str:
        return f"{self.uri}/{key}"

    def path(self, key: str) -> str:
        """Where the filesystem finds ``key``."""
        if not {"", ".", ".."}.isdisjoint(key.split("/")):
            raise CannotRun(f"key {key!r}: expected names with '/' between them, none of them empty, '.' or '..'")
        return f"{self.root}/{key}"

    def put_file(self, local: Path, key: str) -> None:
        """Store a finished local file under ``key``."""
        path = self.path(key)

        def put() -> None:
            if not self.is_local:
                self.fs.put_file(str(local), path, **self._upload)
                return
            with local.open("rb") as source, _atomic(Path(path)) as target:
                shutil.copyfileobj(source, target, PART_BYTES)

        self._tried("writing", key, put)

    def put_bytes(self, key: str, data: bytes) -> None:
        path = self.path(key)

        def put() -> None:
            if not self.is_local:
                self.fs.pipe_file(path, data)
                return
            with _atomic(Path(path)) as target:
                target.write(data)

        self._tried("writing", key, put)

    def get_bytes(self, key: str) -> bytes:
        """Raises FileNotFoundError when there is nothing under ``key``."""
        path = self.path(key)
        data: bytes = self._tried("reading", key, lambda: self.fs.cat_file(path), absent=True)
        return data

    def get_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        """The bytes of every key that exists; object stores are asked concurrently."""
        distinct = list(dict.fromkeys(keys))
        # Not `cat`, which would take [ and * in the output's own name for a pattern.
        paths = [self.path(key) for key in distinct]
        values: list[bytes | Exception] = self.fs.cat_ranges(paths, None, None, on_error="return")
        found: dict[str, bytes] = {}
        for key, value in zip(distinct, values, strict=True):
            if not isinstance(value, Exception):
                found[key] = value
            elif not isinstance(value, FileNotFoundError):
                # One of many failed: it is asked for again by itself.
                with suppress(FileNotFoundError):
                    found[key] = self.get_bytes(key)
        return found

    def get_file(self, key: str, local: Path) -> None:
        """Raises FileNotFoundError when there is nothing under ``key``."""
        path = self.path(key)
        self._tried("reading", key, lambda: self.fs.get_file(path, str(local)), absent=True)

    def put_arrays(self, key: str, arrays: dict[str, np.ndarray]) -> None:
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]  # the stub forbids any keyword that isn't a bool
        self.put_bytes(key, buffer.getvalue())

    def get_arrays(self, key: str) -> dict[str, np.ndarray]:
        """Raises FileNotFoundError when there is nothing under ``key``."""
        with np.load(io.BytesIO(self.get_bytes(key)), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}

    def exists(self, key: str) -> bool:
        """Whether there is an object under ``key``; a folder of that name is none."""
        path = self.path(key)
        try:
            return bool(self._tried("looking for", key, lambda: self.fs.info(path), absent=True)["type"] == "file")
        except FileNotFoundError:
            return False

    def list(self, prefix: str) -> set[str]:
        """Keys directly under the folder ``prefix``, names of folders included."""
        path = self.path(prefix)
        try:
            paths = self._tried("listing", prefix, lambda: self.fs.ls(path, detail=False), absent=True)
        except FileNotFoundError:
            return set()
        names = (path.rstrip("/").rpartition("/")[2] for path in paths)
        return {f"{prefix}/{name}" for name in names if not is_temporary(name)}

    def marks(self, prefix: str) -> dict[str, str]:
        """Files directly under the folder ``prefix``, each with a mark that is another one after any later write.

        Made of what a listing says (size, etag, time, inode); empty where that is not enough to tell.
        """
        path = self.path(prefix)
        try:
            if self.is_local:
                return self._tried("listing", prefix, lambda: dict(scanned(Path(path), prefix)), absent=True)
            infos = self._tried("listing", prefix, lambda: self.fs.ls(path, detail=True), absent=True)
        except FileNotFoundError:
            return {}
        files = ((info["name"].rpartition("/")[2], info) for info in infos if info["type"] == "file")
        return {f"{prefix}/{name}": mark(info) for name, info in files if not is_temporary(name)}

    def files(self, prefix: str) -> dict[str, Stored]:
        """Every file under the folder ``prefix``, however deep; object stores are asked for one listing."""
        try:
            path = self.path(prefix)
            infos: dict[str, dict[str, Any]] = self._tried(
                "listing", prefix, lambda: self.fs.find(path, detail=True), absent=True
            )
        except FileNotFoundError:
            return {}
        start = len(self.root.lstrip("/")) + 1
        return {
            path.lstrip("/")[start:]: Stored(int(info["size"] or 0), modified(info))
            for path, info in infos.items()
            if info["type"] == "file" and not is_temporary(path.rpartition("/")[2])
        }

    def delete_many(self, keys: Iterable[str]) -> None:
        """Remove what is under each of ``keys``, and on a disk the folders that are empty then."""
        left = list(keys)
        for start in range(0, len(left), _DELETED_AT_ONCE):
            some = left[start : start + _DELETED_AT_ONCE]
            paths = [self.path(key) for key in some]
            # Given many paths, fsspec takes [ and * in them for patterns.
            if self.is_local or not _PATTERNS.isdisjoint(self.root):
                for key in some:
                    self.delete(key)
            else:
                with suppress(FileNotFoundError):
                    self._tried("deleting", some[0], partial(self.fs.rm, paths), absent=True)
            if self.is_local:
                _remove_empty({Path(path).parent for path in paths}, Path(self.root))

    def delete(self, key: str) -> None:
        """Remove what is under ``key``, if there is anything."""
        path = self.path(key)
        with suppress(FileNotFoundError):
            self._tried("deleting", key, lambda: self.fs.rm_file(path), absent=True)

    def check_writable(self, *, within_s: float = 20.0) -> None:
        """Write, read back and delete a small object, each step within ``within_s`` seconds.

        Raises CannotRun with the store's own words. An endpoint that never answers would otherwise hold the run for
        as long as all retries of the client last.
        """
        path = self.path(f".probe-{uuid.uuid4().hex}")
        bound = {"timeout": within_s} if isinstance(self.fs, AsyncFileSystem) else {}
        try:
            if self.is_local:
                Path(self.root).mkdir(parents=True, exist_ok=True)
            self.fs.pipe_file(path, b"probe", **bound)
            back = self.fs.cat_file(path, **bound)
            self.fs.rm_file(path, **bound)
        except _unwritable() as exc:
            reason = f"{type(exc).__name__}: {_line(exc)}" if str(exc) else f"no answer within {within_s:g} s"
            raise CannotRun(
                f"output {self.uri} can't be written: {reason}; check the address and the credentials"
            ) from exc
        if back != b"probe":
            raise CannotRun(f"output {self.uri}: what was written is not what is read back")

    def _tried(self, doing: str, key: str, operation: Callable[[], R], *, absent: bool = False) -> R:
        """Do it, again if need be; raise what the storage fails with as a StorageError.

        With ``absent``, not that there is nothing: FileNotFoundError says that.
        """

        def once() -> R:
            try:
                return operation()
            except storage_errors() as exc:
                if absent and isinstance(exc, FileNotFoundError):
                    raise
                raise StorageError(
                    f"{doing} {self.url(key)} failed: {type(exc).__name__}: {_line(exc)}", transient=is_transient(exc)
                ) from exc

        return retried(once, self._retries)


def _remove_empty(folders: set[Path], root: Path) -> None:
    """Remove those folders, and those that they lie in, that hold nothing; ``root`` stays."""
    while folders := {folder for folder in folders if folder.is_relative_to(root) and folder != root}:
        emptied = set()
        for folder in folders:
            with suppress(OSError):
                folder.rmdir()
                emptied.add(folder.parent)
        folders = emptied


@contextmanager
def _atomic(target: Path) -> Iterator[BinaryIO]:
    """A file that appears as ``target`` when the block is over, whole and on the disk, or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _unwritable() -> tuple[type[Exception], ...]:
    """What a filesystem raises that can't be written to; some have no writing at all."""
    return (*storage_errors(), NotImplementedError)


def _line(exc: Exception) -> str:
    return " ".join(str(exc).split())

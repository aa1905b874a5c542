"""Cells: one small object that is replaced only by who knows what stands in it.

A lease needs a store that refuses the second of two writers. What stores offer, the surest first:

- a local disk, NFS included: a file lock around read, compare and rename;
- S3: conditional puts (``If-None-Match``, ``If-Match``). Some servers take these headers and ignore them, so a server
  is tried out first;
- all others: write, wait, read back. Whoever finds the other's bytes has lost. Two writers can both win if one of them
  needs longer than the wait between its look and its write.
"""

from __future__ import annotations

import fcntl
import os
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from manifests.uri import storage_errors
from pipeline.storage import StorageError, Store

READ_BACK_AFTER_S = 3.0

# What S3 and its likes answer when a condition does not hold, or was about to stop holding.
_REFUSALS = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey", "412", "409", "404"})


class Cell(ABC):
    """The object under ``key``. Not for several threads at once."""

    how: ClassVar[str]
    """How a second writer is kept out, in words."""

    def __init__(self, store: Store, key: str) -> None:
        self.store = store
        self.key = key

    @abstractmethod
    def read(self) -> bytes | None:
        """What stands in the cell, None for nothing. Raises `StorageError`."""

    @abstractmethod
    def replace(self, data: bytes) -> bool:
        """Put ``data`` there, if nobody has written since this cell last read or wrote; else do nothing.

        ``data`` must be like nothing that another writer puts. Raises `StorageError`; it may be there all the same.
        """

    def _get(self) -> bytes | None:
        try:
            return self.store.get_bytes(self.key)
        except FileNotFoundError:
            return None


class LockedCell(Cell):
    """On a local disk."""

    how = "file lock"

    def __init__(self, store: Store, key: str) -> None:
        super().__init__(store, key)
        self._seen: bytes | None = None

    def read(self) -> bytes | None:
        self._seen = self._get()
        return self._seen

    def replace(self, data: bytes) -> bool:
        with file_lock(Path(self.store.path(f"{self.key}.lock"))):
            if self._get() != self._seen:
                return False
            self.store.put_bytes(self.key, data)
        self._seen = data
        return True


class ConditionalCell(Cell):
    """On an S3 server that keeps conditions."""

    how = "conditional put"

    def __init__(self, store: Store, key: str) -> None:
        super().__init__(store, key)
        self._etag: str | None = None

    def read(self) -> bytes | None:
        # Should the object change between the two calls, `replace` is refused, which is right.
        self._etag = self._current_etag()
        return None if self._etag is None else self._get()

    def replace(self, data: bytes) -> bool:
        condition = {"IfNoneMatch": "*"} if self._etag is None else {"IfMatch": self._etag}
        etag = put_if(self.store, self.key, data, **condition)
        if etag is None:
            # The client repeats a put whose answer got lost, and the second try is then refused.
            etag, found = self._current_etag(), self._get()
            if found != data:
                return False
        self._etag = etag
        return True

    def _current_etag(self) -> str | None:
        try:
            return str(self.store.fs.info(self.store.path(self.key), refresh=True)["ETag"])
        except FileNotFoundError:
            return None
        except storage_errors() as exc:
            raise StorageError(f"looking for {self.store.url(self.key)} failed: {exc}") from exc


class ReadBackCell(Cell):
    """On any other store."""

    how = "write, wait, read back"

    def __init__(
        self, store: Store, key: str, *, wait_s: float = READ_BACK_AFTER_S, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        super().__init__(store, key)
        self._wait_s = wait_s
        self._sleep = sleep
        self._seen: bytes | None = None

    def read(self) -> bytes | None:
        self._seen = self._get()
        return self._seen

    def replace(self, data: bytes) -> bool:
        if self._get() != self._seen:
            return False
        self.store.put_bytes(self.key, data)
        self._sleep(self._wait_s)
        if self._get() != data:
            return False
        self._seen = data
        return True


def open_cell(store: Store, key: str) -> Cell:
    """The surest cell that the store allows; this writes to it. Raises `StorageError`."""
    if store.is_local:
        return LockedCell(store, key) if _locks(Path(store.path(f"{key}.lock"))) else ReadBackCell(store, key)
    return ConditionalCell(store, key) if keeps_conditions(store) else ReadBackCell(store, key)


def keeps_conditions(store: Store) -> bool:
    """Whether the store is S3 and refuses puts whose condition does not hold. Raises `StorageError`."""
    if not hasattr(store.fs, "call_s3"):
        return False
    key = f".probe-{uuid.uuid4().hex}"
    try:
        first = put_if(store, key, b"1", IfNoneMatch="*")
        return (
            first is not None
            and put_if(store, key, b"2", IfNoneMatch="*") is None
            and put_if(store, key, b"3", IfMatch=f'"{uuid.uuid4().hex}"') is None
            and put_if(store, key, b"4", IfMatch=first) is not None
        )
    finally:
        store.delete(key)


def put_if(store: Store, key: str, data: bytes, **condition: str) -> str | None:
    """Put an object on S3 if a condition holds: its new etag, or None for a refusal. Raises `StorageError`."""
    bucket, name, _ = store.fs.split_path(store.path(key))
    try:
        answer: dict[str, Any] = store.fs.call_s3("put_object", Bucket=bucket, Key=name, Body=data, **condition)
    except storage_errors() as exc:
        if _code(exc) in _REFUSALS:
            return None
        raise StorageError(f"writing {store.url(key)} failed: {type(exc).__name__}: {exc}") from exc
    return str(answer["ETag"])


def _code(exc: Exception) -> str | None:
    """The server's own name for a failure; s3fs hides it in the cause."""
    response = getattr(exc, "response", None) or getattr(exc.__cause__, "response", None) or {}
    code: str | None = response.get("Error", {}).get("Code")
    return code


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold a lock that ends with the block or with the process. Raises `StorageError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as exc:
        raise StorageError(f"opening {path} failed: {exc}") from exc
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as exc:
            raise StorageError(f"locking {path} failed: {exc}") from exc
        yield
    finally:
        os.close(handle)


def _locks(path: Path) -> bool:
    """Whether the disk knows file locks; some shared ones don't."""
    try:
        with file_lock(path):
            return True
    except StorageError:
        return False

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
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
from fsspec.implementations.local import LocalFileSystem

from manifests.uri import storage_errors
from pipeline.errors import CannotRun


def options_for(uri: str, storage_options: dict[str, Any]) -> dict[str, Any]:
    """The fsspec options that ``storage_options`` ({protocol: options}) holds for a URI."""
    protocol = uri.split("://", 1)[0] if "://" in uri else "file"
    return dict(storage_options.get(protocol, {}))


class Store:
    """Keys under one base URI. Keys are relative, with ``/`` between parts."""

    def __init__(self, uri: str, storage_options: dict[str, Any]) -> None:
        """Raises CannotRun when the URI's protocol is unknown or its options are wrong. Touches nothing."""
        try:
            self.fs, root = fsspec.core.url_to_fs(uri, **options_for(uri, storage_options))
        except (ValueError, ImportError, TypeError) as exc:
            raise CannotRun(f"output {uri}: {exc}") from exc
        self.root = root.rstrip("/")
        self._local = isinstance(self.fs, LocalFileSystem)
        # Workers have other working folders: a local output is known by its absolute path.
        self.uri = self.root if self._local else uri.rstrip("/")

    def url(self, key: str) -> str:
        return f"{self.uri}/{key}"

    def put_file(self, local: Path, key: str) -> None:
        """Store a finished local file under ``key``."""
        if not self._local:
            self.fs.put_file(str(local), self._path(key))
            return
        target = Path(self._path(key))
        temporary = self._temporary(target)
        try:
            shutil.copyfile(local, temporary)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def put_bytes(self, key: str, data: bytes) -> None:
        if not self._local:
            self.fs.pipe_file(self._path(key), data)
            return
        target = Path(self._path(key))
        temporary = self._temporary(target)
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def get_bytes(self, key: str) -> bytes:
        """Raises FileNotFoundError when there is nothing under ``key``."""
        data: bytes = self.fs.cat_file(self._path(key))
        return data

    def get_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        """The bytes of every key that exists; object stores are asked concurrently."""
        paths = {self._path(key): key for key in keys}
        if not paths:
            return {}
        found: dict[str, Any] = self.fs.cat(list(paths), on_error="return")
        for path, value in found.items():
            if isinstance(value, Exception) and not isinstance(value, FileNotFoundError):
                raise CannotRun(f"reading {path} failed: {value}") from value
        return {paths[path]: value for path, value in found.items() if isinstance(value, bytes)}

    def get_file(self, key: str, local: Path) -> None:
        self.fs.get_file(self._path(key), str(local))

    def put_arrays(self, key: str, arrays: dict[str, np.ndarray]) -> None:
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]  # the stub forbids any keyword that isn't a bool
        self.put_bytes(key, buffer.getvalue())

    def get_arrays(self, key: str) -> dict[str, np.ndarray]:
        with np.load(io.BytesIO(self.get_bytes(key)), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}

    def exists(self, key: str) -> bool:
        self.fs.invalidate_cache(self._parent(key))
        return bool(self.fs.exists(self._path(key)))

    def list(self, prefix: str) -> set[str]:
        """Keys directly under the folder ``prefix``."""
        folder = self._path(prefix)
        self.fs.invalidate_cache(folder)
        try:
            names = self.fs.ls(folder, detail=False)
        except FileNotFoundError:
            return set()
        return {f"{prefix}/{Path(name).name}" for name in names}

    def check_writable(self) -> None:
        """Write, read back and delete a small object. Raises CannotRun with the store's own words."""
        key = f".probe-{uuid.uuid4().hex}"
        try:
            self.put_bytes(key, b"probe")
            if self.get_bytes(key) != b"probe":
                raise CannotRun(f"output {self.uri}: what was written is not what is read back")
            self.fs.rm_file(self._path(key))
        except storage_errors() as exc:
            raise CannotRun(
                f"output {self.uri} can't be written: {type(exc).__name__}: {exc}; check the address and credentials"
            ) from exc

    def _path(self, key: str) -> str:
        return f"{self.root}/{key}"

    def _parent(self, key: str) -> str:
        return self._path(key).rsplit("/", 1)[0]

    @staticmethod
    def _temporary(target: Path) -> Path:
        target.parent.mkdir(parents=True, exist_ok=True)
        return target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")

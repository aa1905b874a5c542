"""The lock of a model store: which commit each file came from, and its checksum."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from imtalker.files import file_sha256
from pipeline.config import Settings
from pipeline.errors import CannotRun

LOCK_NAME = "models.lock.json"


class LockedFile(Settings):
    """One file as it was fetched."""

    commit: str = Field(description="commit of the hub repository")
    size: int = Field(description="bytes")
    sha256: str
    mtime_ns: int = Field(description="modification time here; while it holds, the checksum is taken as read")

    def is_at(self, path: Path) -> bool:
        """Whether ``path`` is this file: by size and time, else by its checksum."""
        if not path.is_file() or path.stat().st_size != self.size:
            return False
        return path.stat().st_mtime_ns == self.mtime_ns or file_sha256(path) == self.sha256


class Lock(Settings):
    """Contents of ``models.lock.json``: repository -> file name -> what was fetched."""

    version: Literal[1] = 1
    repositories: dict[str, dict[str, LockedFile]] = Field(default_factory=dict)

    def find(self, repository: str, name: str) -> LockedFile | None:
        return self.repositories.get(repository, {}).get(name)

    def commit(self, repository: str) -> str | None:
        """The commit that the repository's files were last taken from."""
        files = self.repositories.get(repository, {})
        return next((file.commit for file in reversed(files.values())), None)

    def adding(self, repository: str, name: str, file: LockedFile, *, instead_of: tuple[str, ...] = ()) -> Lock:
        """This lock with ``file`` in place of what it held under ``name`` and ``instead_of``."""
        gone = {name, *instead_of}
        kept = {key: value for key, value in self.repositories.get(repository, {}).items() if key not in gone}
        return Lock(repositories={**self.repositories, repository: {**kept, name: file}})


def read_lock(store: Path) -> Lock:
    """The store's lock, empty where there is none; raises CannotRun if it can't be understood."""
    path = store / LOCK_NAME
    if not path.is_file():
        return Lock()
    try:
        return Lock.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise CannotRun(
            f"{path} is not a lock of this release ({error.error_count()} faults, first: "
            f"{error.errors()[0]['msg']}); delete it and run `imtalker models pull` again"
        ) from error


def write_lock(store: Path, lock: Lock) -> None:
    """Replace the store's lock, atomically."""
    path = store / LOCK_NAME
    temporary = path.with_name(f".{LOCK_NAME}.{os.getpid()}.tmp")
    temporary.write_text(lock.model_dump_json(indent=2) + "\n")
    temporary.replace(path)


def locked_file(path: Path, commit: str, sha256: str) -> LockedFile:
    """Describe ``path`` as fetched from ``commit``."""
    stat = path.stat()
    return LockedFile(commit=commit, size=stat.st_size, sha256=sha256, mtime_ns=stat.st_mtime_ns)

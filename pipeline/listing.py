"""What listings of a folder say of its files: sizes, times, and marks that tell one version from the next."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from stat import S_ISREG
from typing import Any

_STAMPS = ("ETag", "etag", "generation", "LastModified", "updated", "mtime")
"""What listings of object stores call the marks of an object's version."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What a listing says of a file."""

    size: int
    modified: float
    """Unix time; 0 where the store does not say."""


def scanned(folder: Path, prefix: str) -> Iterator[tuple[str, str]]:
    """`Store.marks` of a local folder, without fsspec's dictionary for every file."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_temporary(entry.name):
                continue
            try:
                stat = entry.stat()
            except FileNotFoundError:
                continue
            if S_ISREG(stat.st_mode):
                # A file that replaces another one was made beside it, so it has another inode.
                yield f"{prefix}/{entry.name}", f"{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ino}"


def mark(info: Mapping[str, Any]) -> str:
    """What any later write of the file changes; empty where its listing does not tell."""
    stamps = [str(info[name]) for name in _STAMPS if info.get(name)]
    return ":".join([str(info.get("size")), *stamps]) if stamps else ""


def modified(info: Mapping[str, Any]) -> float:
    """Unix time of a file's last change, whatever its listing calls it."""
    found = next((info[name] for name in ("mtime", "LastModified", "updated") if info.get(name)), 0.0)
    if isinstance(found, str):
        found = datetime.fromisoformat(found)
    return found.timestamp() if isinstance(found, datetime) else float(found)


def is_temporary(name: str) -> bool:
    """Whether it is a file that is being written, which no reader shall see."""
    return name.startswith(".") and name.endswith(".part")

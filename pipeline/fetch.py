"""Inputs: any URI that fsspec opens, copied to a local file under a size limit and hashed on the way."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import fsspec

from manifests.uri import storage_errors
from pipeline.config import RunSettings
from pipeline.errors import InputError, ItemError
from pipeline.storage import options_for

_CHUNK = 1 << 20


@dataclass(frozen=True)
class LocalInput:
    """An input as a local file."""

    uri: str
    path: Path
    size: int
    sha256: str


@contextmanager
def fetched(uri: str, settings: RunSettings) -> Iterator[LocalInput]:
    """Copy ``uri`` to a temporary file that lives as long as the block.

    Raises InputError when it does not exist or is too large, and an ItemError of kind ``infrastructure`` when the
    storage refuses or fails.
    """
    with TemporaryDirectory(prefix="imtalker-input-") as folder:
        # The suffix helps decoders that look at names; everything else of a stranger's name is dropped.
        suffix = "".join(c for c in Path(uri.split("?", 1)[0]).suffix[:8] if c.isalnum() or c == ".")
        path = Path(folder) / f"input{suffix}"
        size, sha256 = _copy(uri, path, settings)
        yield LocalInput(uri, path, size, sha256)


def _copy(uri: str, path: Path, settings: RunSettings) -> tuple[int, str]:
    limit = settings.limits.max_file_bytes
    digest, size = hashlib.sha256(), 0
    try:
        with fsspec.open(uri, "rb", **options_for(uri, settings.storage_options)) as source, path.open("wb") as target:
            while chunk := source.read(_CHUNK):
                size += len(chunk)
                if size > limit:
                    raise InputError(
                        f"{uri} is larger than the limit of {limit} bytes",
                        hint="raise limits.max_file_bytes if the file is right",
                    )
                digest.update(chunk)
                target.write(chunk)
    except ItemError:
        raise
    except FileNotFoundError as exc:
        raise InputError(f"{uri} does not exist", hint="check the manifest's path and the storage") from exc
    except (IsADirectoryError, ValueError) as exc:
        raise InputError(f"{uri} can't be opened: {exc}", hint="give the URI of one file") from exc
    except PermissionError as exc:
        raise ItemError(
            "infrastructure", f"access to {uri} was refused: {exc}", hint="check the credentials and run again"
        ) from exc
    except OSError as exc:
        raise ItemError(
            "infrastructure",
            f"reading {uri} failed: {type(exc).__name__}: {exc}",
            hint="run again: done items are kept",
        ) from exc
    return size, digest.hexdigest()


def identity(uri: str, storage_options: dict[str, Any]) -> str | None:
    """What a store says about a URI without reading it: size and etag or time. None when it can't be found.

    Two equal identities mean the same content for the purpose of a restart; the content hash is taken when it is read.
    """
    try:
        fs, path = fsspec.core.url_to_fs(uri, **options_for(uri, storage_options))
        info = fs.info(path)
    except storage_errors():
        return None
    stamp = next((info[k] for k in ("ETag", "etag", "mtime", "LastModified", "updated") if info.get(k)), "")
    return f"{info.get('size')}:{stamp}"

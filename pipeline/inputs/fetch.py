"""Inputs: any URI that fsspec opens, copied to a local file under a size limit and hashed."""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.callbacks import Callback
from fsspec.implementations.local import LocalFileSystem

from manifests.uri import storage_errors
from pipeline.config import InputLimits, RunSettings
from pipeline.errors import InputError, ItemError
from pipeline.filesystems import OBJECT_STORES
from pipeline.inputs.allowed import PlaceError, connect_input
from pipeline.retry import is_transient, retried

UNKNOWN = "unknown"
"""Identity of an input that its store can't describe: never taken for unchanged."""

_LISTED_FROM = 100
"""How many inputs of one folder make a listing of it cheaper than asking for each."""

# What stores call the mark that changes with an object's content, the surest first.
_STAMPS = ("ETag", "etag", "mtime", "LastModified", "Last-Modified", "updated", "modify", "Content-MD5", "Digest")

_MISSING = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.GONE})
_REFUSED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED})

_URL = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.\-]*://)(?P<user>[^/\s@]*@)?(?P<path>[^\s?'\"]*)(?P<query>\?[^\s'\"]*)?",
    re.IGNORECASE,
)


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

    Raises InputError when it does not exist, is too large or is no URI of a file, and an ItemError of kind
    ``infrastructure`` when the storage refuses, or goes on failing (``settings.retries``). An ItemError of the block
    that names the copy names the URI instead.
    """
    with TemporaryDirectory(prefix="imtalker-input-") as folder:
        # The suffix helps decoders that look at names; everything else of a stranger's name is dropped.
        suffix = "".join(c for c in Path(uri.split("?", 1)[0]).suffix[:8] if c.isalnum() or c == ".")
        path = Path(folder) / f"input{suffix}"
        retried(partial(_copied, uri, path, settings), settings.retries)
        try:
            yield LocalInput(uri, path, path.stat().st_size, file_sha256(path))
        except ItemError as exc:
            # Decoders know the copy only; whoever reads the message knows the original only.
            exc.message = exc.message.replace(str(path), redacted(uri)).replace(path.name, redacted(uri))
            raise


def file_sha256(path: Path) -> str:
    """64 hex digits of a local file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def redacted(text: str) -> str:
    """``text`` with the credentials of every URL in it replaced: user names, passwords, and queries (signatures)."""

    def hide(match: re.Match[str]) -> str:
        user, query = "***@" if match["user"] else "", "?***" if match["query"] else ""
        return f"{match['scheme']}{user}{match['path']}{query}"

    return _URL.sub(hide, text)


class _Bounded(Callback):
    """Stops a copy as soon as its announced or its real size is over the limit."""

    def __init__(self, check: Callable[[int], None]) -> None:
        super().__init__()
        self._check = check

    def set_size(self, size: int | None) -> None:
        self._check(size or 0)

    def relative_update(self, inc: int = 1) -> None:
        self.value += inc
        self._check(self.value)


def _copied(uri: str, path: Path, settings: RunSettings) -> None:
    """Copy the file, or raise an ItemError."""
    try:
        _copy(uri, path, settings)
    except storage_errors() as exc:
        raise _failure(uri, exc) from exc


def _copy(uri: str, path: Path, settings: RunSettings) -> None:
    limit, deadline = settings.limits.max_file_bytes, time.monotonic() + settings.limits.max_fetch_s

    def check(size: int) -> None:
        if time.monotonic() > deadline:
            raise ItemError(
                "infrastructure",
                f"copying {redacted(uri)} took longer than {settings.limits.max_fetch_s:g} s",
                hint="look at the storage and the network, or raise limits.max_fetch_s",
            )
        if size > limit:
            raise InputError(
                f"{redacted(uri)} is larger than the limit of {limit} bytes",
                hint="raise limits.max_file_bytes if the file is right",
            )

    fs, source = connect_input(uri, settings.storage_options, settings.limits)
    if isinstance(fs, LocalFileSystem):
        # Reading a pipe or a device might never end.
        if Path(source).exists() and not Path(source).is_file():
            raise IsADirectoryError("expected a file, found a folder or a device")
        check(Path(source).stat().st_size)
        shutil.copyfile(source, path)
    else:
        fs.get_file(source, str(path), callback=_Bounded(check))
    if not path.is_file():
        raise IsADirectoryError("expected a file, found a folder")


def _failure(uri: str, exc: Exception) -> ItemError:
    """The typed error for what a filesystem raised."""
    from botocore.exceptions import ParamValidationError  # type: ignore[import-untyped]

    name, reason = redacted(uri), redacted(f"{type(exc).__name__}: {' '.join(str(exc).split())}")
    status = getattr(exc, "status", None)
    if isinstance(exc, FileNotFoundError | NotADirectoryError) or status in _MISSING:
        return InputError(f"{name} does not exist", hint="check the manifest's path and the storage")
    if isinstance(exc, PermissionError) or status in _REFUSED:
        return ItemError(
            "infrastructure", f"access to {name} was refused: {reason}", hint="check the credentials and run again"
        )
    if isinstance(exc, PlaceError):
        return InputError(f"{name} is not opened: {exc}", hint=exc.hint)
    if isinstance(exc, ImportError):
        return ItemError("infrastructure", f"{name} can't be opened: {reason}", hint="install that package")
    if isinstance(exc, IsADirectoryError | ValueError | ParamValidationError):
        return InputError(f"{name} can't be opened: {reason}", hint="give the plain URI of one file")
    return ItemError(
        "infrastructure",
        f"reading {name} failed: {reason}",
        hint="run again: done items are kept",
        transient=is_transient(exc),
    )


def identity(uri: str, storage_options: Mapping[str, Mapping[str, Any]], limits: InputLimits) -> str | None:
    """What a store says about a URI without reading it: size and etag or time.

    None when it says that there is nothing, `UNKNOWN` when it says nothing of use. Two equal identities other than
    that mean the same content for the purpose of a restart; the content hash is taken when it is read.
    """
    return identities([uri], storage_options, limits)[uri]


def identities(
    uris: Iterable[str], storage_options: Mapping[str, Mapping[str, Any]], limits: InputLimits
) -> dict[str, str | None]:
    """`identity` of many URIs, asked for concurrently; object stores' folders that hold many of them are listed."""
    found: dict[str, str | None] = {}
    folders: defaultdict[tuple[AbstractFileSystem, str], dict[str, str]] = defaultdict(dict)
    for uri in dict.fromkeys(uris):
        try:
            fs, path = connect_input(uri, storage_options, limits)
        except storage_errors():
            found[uri] = UNKNOWN
        else:
            folders[fs, path.rpartition("/")[0]][uri] = path
    with ThreadPoolExecutor(16) as pool:
        listed = pool.map(lambda at: _listed(at[0], at[1], len(folders[at])), folders)
        for ((fs, _), paths), infos in zip(folders.items(), listed, strict=True):
            look_up = partial(_identity, fs, infos)
            found |= zip(paths, pool.map(look_up, paths.values()), strict=True)
    return found


def _listed(fs: AbstractFileSystem, folder: str, wanted: int) -> dict[str, dict[str, Any]]:
    """What a listing says of a folder's files, by path; empty where asking for each file is better."""
    if wanted < _LISTED_FROM or OBJECT_STORES.isdisjoint(fs.protocol):
        return {}
    try:
        return {info["name"]: info for info in fs.ls(folder, detail=True)}
    except storage_errors():
        return {}


def _identity(fs: AbstractFileSystem, listed: dict[str, dict[str, Any]], path: str) -> str | None:
    try:
        info = listed.get(path) or fs.info(path)
    except NotADirectoryError:
        return None
    except FileNotFoundError as exc:
        # fsspec's web client calls every failure "not found"; its cause has the status that was answered.
        missing = "http" not in fs.protocol or getattr(exc.__cause__, "status", None) in _MISSING
        return None if missing else UNKNOWN
    except storage_errors():
        return UNKNOWN
    stamp = next((info[key] for key in _STAMPS if info.get(key)), None)
    return UNKNOWN if stamp is None else f"{info.get('size')}:{stamp}"

"""URIs: what is absolute, what a relative one means, and the filesystem behind one."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import fsspec
from fsspec import AbstractFileSystem

StorageOptions = Mapping[str, Mapping[str, Any]]
"""fsspec options by protocol: ``{"s3": {"endpoint_url": ...}}``."""

_SCHEME = re.compile(r"(?:[a-z][a-z0-9+.\-]*::)*([a-z][a-z0-9+.\-]*)://", re.IGNORECASE)


def scheme(uri: str) -> str | None:
    """Protocol of ``uri`` in lower case (for fsspec chains, the one before ``://``); None for a local path."""
    match = _SCHEME.match(uri)
    return match.group(1).lower() if match else None


def absolute(uri: str) -> str:
    """``uri`` itself, or a relative local path made absolute from the working directory."""
    return uri if scheme(uri) else str(Path(uri).absolute())


def parent(uri: str) -> str:
    """The folder that an absolute ``uri`` lies in, without a trailing slash."""
    if scheme(uri) is None:
        return str(Path(uri).parent)
    if scheme(uri) in ("http", "https"):
        return urljoin(uri, ".").rstrip("/")
    return uri.rstrip("/").rpartition("/")[0]


def resolve(uri: str, base: str) -> str:
    """What ``uri`` means when it stands in a file of the folder ``base``.

    Absolute paths and URIs with a scheme are kept as they are. ``..`` may climb, but not out of a bucket.

    Raises:
        ValueError: the URI holds control characters or climbs out of its bucket.
    """
    if any(ord(character) < 32 for character in uri):
        raise ValueError(f"{uri!r} holds control characters")
    if scheme(uri) or PurePath(uri).is_absolute():
        return uri
    protocol = scheme(base)
    if protocol is None:
        return str(Path(base) / uri)
    if protocol in ("http", "https"):
        return urljoin(base.rstrip("/") + "/", uri)
    prefix, _, rest = base.partition("://")
    bucket, _, folder = rest.partition("/")
    key = posixpath.normpath(posixpath.join(folder, uri))
    if key == ".." or key.startswith("../"):
        raise ValueError(f"{uri!r} climbs out of {prefix}://{bucket}")
    return f"{prefix}://{bucket}/{key}"


def relative(uri: str, base: str) -> str:
    """``uri`` as written in a file of the folder ``base``: relative if it lies beneath it, else unchanged."""
    if scheme(uri) != scheme(base):
        return uri
    if scheme(uri) is None:
        path = Path(uri)
        return path.relative_to(base).as_posix() if path.is_relative_to(base) else uri
    return uri.removeprefix(base.rstrip("/") + "/")


def file_name(uri: str) -> str:
    """Last part of a URI's path, decoded, without the query of a web address."""
    if scheme(uri) in ("http", "https"):
        uri = unquote(urlsplit(uri).path)
    return re.split(r"[/\\]", uri.rstrip("/\\"))[-1]


def filesystem(uri: str, storage_options: StorageOptions | None = None) -> tuple[AbstractFileSystem, str]:
    """The fsspec filesystem of ``uri`` and the path within it.

    Raises:
        ImportError: the protocol's package isn't installed.
        ValueError: fsspec doesn't know the protocol.
    """
    protocols = re.findall(r"([a-z][a-z0-9+.\-]*)(?:::|://)", uri.lower())
    options = {name: dict(given) for name, given in (storage_options or {}).items() if name in protocols}
    return fsspec.core.url_to_fs(uri, **options)


def storage_errors() -> tuple[type[Exception], ...]:
    """What a filesystem raises when storage can't be used; for ``except storage_errors() as exc``.

    The client libraries are imported here, at the time of the failure, because they are slow to import.
    """
    from aiohttp import ClientError
    from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]
    from botocore.exceptions import ClientError as S3Error

    return (OSError, ImportError, ValueError, BotoCoreError, S3Error, ClientError)

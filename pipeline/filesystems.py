"""The filesystem behind a URI, with the options that a batch run needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import fsspec
from fsspec import AbstractFileSystem

from manifests.uri import scheme

PART_BYTES = 8 << 20
"""Size of the parts that large objects travel in; from two of them on an upload is a multipart one."""

OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs"})
"""Protocols whose folders are prefixes of keys, and whose uploads take a part size."""


def connect(uri: str, storage_options: Mapping[str, Mapping[str, Any]]) -> tuple[AbstractFileSystem, str]:
    """The filesystem of a URI and the path in it; ``storage_options`` are fsspec's, by protocol.

    Chains of filesystems (``zip://a.wav::https://...``) are refused: they can read what the URI does not show.
    Raises ValueError for those, for an unknown protocol and for wrong options, ImportError when the protocol's
    package isn't installed, and OSError for the few filesystems that connect at once (sftp).
    """
    if "::" in uri:
        raise ValueError("expected a plain URI, found a chain of them ('::')")
    protocol = scheme(uri) or "file"
    options = {**_defaults(protocol), **storage_options.get(protocol, {})}
    try:
        fs, path = fsspec.core.url_to_fs(uri, **options)
    except TypeError as exc:
        raise ValueError(f"the {protocol} filesystem can't be opened with these options: {exc}") from exc
    return fs, path


def _defaults(protocol: str) -> dict[str, Any]:
    """Options that a batch run needs where fsspec's own are made for a notebook."""
    if protocol in ("http", "https"):
        from aiohttp import ClientTimeout

        # The client's own limit is five minutes for the whole of a file.
        return {"client_kwargs": {"timeout": ClientTimeout(total=None, sock_connect=10, sock_read=60)}}
    options: dict[str, Any] = {}
    if protocol in OBJECT_STORES:
        # A remembered listing would hide what another worker wrote.
        options["use_listings_cache"] = False
    if protocol in ("s3", "s3a"):
        # s3fs holds ten parts of a file at once, of 50 MB each if left alone.
        # Attempts are counted and spaced by `pipeline.retry`: the client's own would multiply them.
        client = {"max_pool_connections": 64, "retries": {"total_max_attempts": 1}}
        options |= {"default_block_size": PART_BYTES, "config_kwargs": client}
    return options

"""A store that counts what it is asked, and that can break between any two calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.listing import Stored
from pipeline.storage import StorageError, Store

_PAGE = 1000
"""Keys that one call of an object store lists."""


class CountedStore(Store):
    """Counts calls as an object store would: one for each page of a listing, and for each object."""

    def __init__(self, uri: str, options: dict[str, Any] | None = None, *, breaks_after: int | None = None) -> None:
        """After ``breaks_after`` calls every further one fails, and does nothing."""
        super().__init__(uri, options or {})
        self.calls: Counter[str] = Counter()
        self._breaks_after = breaks_after

    def mend(self) -> None:
        self._breaks_after = None

    def _count(self, kind: str, times: int = 1) -> None:
        if self._breaks_after is not None and self.calls.total() + times > self._breaks_after:
            raise StorageError(f"the store broke before this call ({kind})")
        self.calls[kind] += times

    def put_bytes(self, key: str, data: bytes) -> None:
        self._count("put")
        super().put_bytes(key, data)

    def put_file(self, local: Path, key: str) -> None:
        self._count("put")
        super().put_file(local, key)

    def get_bytes(self, key: str) -> bytes:
        self._count("get")
        return super().get_bytes(key)

    def get_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        wanted = list(keys)
        self._count("get", len(wanted))
        return super().get_many(wanted)

    def list(self, prefix: str) -> set[str]:
        self._count("list")
        found = super().list(prefix)
        self.calls["list"] += len(found) // _PAGE
        return found

    def marks(self, prefix: str) -> dict[str, str]:
        self._count("list")
        found = super().marks(prefix)
        self.calls["list"] += len(found) // _PAGE
        return found

    def files(self, prefix: str) -> dict[str, Stored]:
        self._count("list")
        found = super().files(prefix)
        self.calls["list"] += len(found) // _PAGE
        return found

    def delete(self, key: str) -> None:
        self._count("delete")
        super().delete(key)

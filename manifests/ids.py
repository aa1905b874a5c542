"""Ids: names of items that are safe as file names, and the ones derived from rows."""

from __future__ import annotations

import hashlib
import json
import math
import re
import unicodedata
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from manifests.uri import file_name

PATTERN = "[A-Za-z0-9][A-Za-z0-9._-]{0,127}"

_DIGEST_CHARACTERS = 8
_STEM_CHARACTERS = (128 - _DIGEST_CHARACTERS - len("--")) // 2


def is_valid(identifier: str) -> bool:
    """Whether ``identifier`` may name an item: one file name of 1 to 128 ASCII characters, never a path."""
    return re.fullmatch(PATTERN, identifier) is not None


def fold(identifier: str) -> str:
    """The form in which ids are compared: some file systems ignore case, so it may not tell ids apart."""
    return identifier.lower()


def derive(image: str | None, driving: str | None, columns: Mapping[str, Any]) -> str:
    """``<image stem>-<driving stem>-<8 hex>``; depends on nothing but the row itself.

    Args:
        image: URI of the portrait, as given.
        driving: URI of the audio, or of the driver when the row has no audio, as given.
        columns: the row's columns, from which the hex digits are computed.
    """
    digest = hashlib.sha256(canonical_json(columns).encode()).hexdigest()[:_DIGEST_CHARACTERS]
    return f"{_stem(image)}-{_stem(driving)}-{digest}"


def canonical_json(columns: Mapping[str, Any]) -> str:
    """One text for one row: sorted keys, no nulls, whole floats as integers.

    The last point is for tables that pass through pandas, which turns an integer column into floats as soon
    as another row has no value.
    """
    given = {name: _plain(value) for name, value in columns.items() if not _is_null(value)}
    return json.dumps(given, sort_keys=True, separators=(",", ":"), default=_text)


def _is_null(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _text(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _stem(uri: str | None) -> str:
    name = PurePosixPath(file_name(uri)).stem if uri else ""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", ascii_name).lstrip("._-")
    return safe[:_STEM_CHARACTERS].rstrip("._-") or "none"

"""The checks every input file passes before any library looks at it."""

from __future__ import annotations

from pathlib import Path

from pipeline.config import InputLimits
from pipeline.errors import InputError


def check_file(path: Path, limits: InputLimits) -> int:
    """Size of ``path`` in bytes.

    Raises `InputError` if it isn't a file, is empty, or is larger than ``limits.max_file_bytes``.
    """
    if not path.is_file():
        raise InputError(f"expected a file, found none at {path}", hint="check the path in the manifest")
    size = path.stat().st_size
    if size == 0:
        raise InputError(f"expected a media file, found an empty one (0 bytes): {path.name}", hint="upload it again")
    if size > limits.max_file_bytes:
        raise InputError(
            f"expected at most {limits.max_file_bytes} bytes, found {size}: {path.name}",
            hint="shorten or re-encode the file, or raise limits.max_file_bytes",
        )
    return size

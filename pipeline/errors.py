"""Typed errors: what an item can fail with, and how any exception becomes one."""

from __future__ import annotations

import traceback
from dataclasses import asdict, dataclass
from typing import Any, Literal

ErrorKind = Literal["input", "model", "infrastructure", "quality", "bug"]
"""Whose fault it is: the item's files or row; the network's numbers; machines, storage and weights that should
work next time; a gate the video did not pass; or this program."""

Retry = Literal["failed", ErrorKind]
"""Which failed items a run is told to attempt again: all of them, or those of one kind."""

INTERRUPTED = 130
"""Exit code of what somebody stopped (128 and the number of SIGINT)."""

# Their exceptions share no base with Python's own.
_STORAGE_CLIENTS = frozenset({"aiobotocore", "aiohttp", "botocore", "fsspec", "gcsfs", "s3fs"})


class CannotRun(Exception):  # noqa: N818  (reads as a sentence where it is raised)
    """The run as a whole can't start or go on: bad settings, unreachable storage, missing weights."""


class ItemError(Exception):
    """What one item failed with. It travels on the item's row as a value and never touches a neighbour.

    ``message`` says what was expected and what was found; ``hint`` says what to do. ``trace`` is where it happened,
    if that was in another process. A ``transient`` error may be gone a moment later.
    """

    def __init__(
        self,
        kind: ErrorKind,
        message: str,
        *,
        hint: str = "",
        stage: str = "",
        trace: str = "",
        transient: bool = False,
    ) -> None:
        super().__init__(message)
        self.kind: ErrorKind = kind
        self.message = message
        self.hint = hint
        self.stage = stage
        self.trace = trace
        self.transient = transient

    def __reduce__(self) -> tuple[Any, ...]:
        # The record is what is stored; that an error may be gone soon matters only while it is on its way.
        record = ErrorRecord(self.kind, self.stage, self.message, self.hint, self.trace)
        return item_error, (record,), {"transient": self.transient}


class InputError(ItemError):
    """The item's row or one of its files can't be used."""

    def __init__(self, message: str, *, hint: str = "", stage: str = "") -> None:
        super().__init__("input", message, hint=hint, stage=stage)


@dataclass(frozen=True)
class ErrorRecord:
    """An item's error as it is stored: plain values only."""

    kind: ErrorKind
    stage: str
    message: str
    hint: str
    trace: str = ""

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


def item_error(record: ErrorRecord) -> ItemError:
    """The exception that a record tells of."""
    return ItemError(record.kind, record.message, hint=record.hint, stage=record.stage, trace=record.trace)


def error_record(exc: BaseException, stage: str) -> ErrorRecord:
    """Turn whatever an item raised in ``stage`` into its stored error.

    Anything that isn't an `ItemError` or a known failure of the machine is a ``bug`` and keeps a short traceback.
    """
    if isinstance(exc, ItemError):
        return ErrorRecord(exc.kind, exc.stage or stage, exc.message, exc.hint, exc.trace)
    if isinstance(exc, MemoryError) or type(exc).__name__ == "OutOfMemoryError":
        return ErrorRecord(
            "infrastructure", stage, f"out of memory: {exc}", "give the stage more memory or a smaller batch_size"
        )
    if isinstance(exc, OSError | CannotRun) or type(exc).__module__.partition(".")[0] in _STORAGE_CLIENTS:
        return ErrorRecord(
            "infrastructure", stage, f"{type(exc).__name__}: {exc}", "run again when it is mended: done items are kept"
        )
    lines = traceback.format_exception(type(exc), exc, exc.__traceback__)
    return ErrorRecord(
        "bug",
        stage,
        f"{type(exc).__name__}: {exc}",
        "this is a defect of the program; please report it with the trace",
        "".join(lines)[-2000:],
    )

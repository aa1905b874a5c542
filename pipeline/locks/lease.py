"""The run's lease: of two drivers on one output, one works.

``lease.json`` in the output names its holder. The holder renews it three times a term. Whoever finds it released,
past its end, or held by a process of the same machine that is gone, takes it over; whoever finds it held stops. Every
holder has a higher token than the one before. The token goes into the records, and whoever writes a record first looks
whether the lease still has its token: a holder that was replaced commits nothing more.
"""

from __future__ import annotations

import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ValidationError

from pipeline.errors import CannotRun
from pipeline.locks.cell import Cell, open_cell
from pipeline.storage import StorageError, Store

KEY = "lease.json"
TERM_S = 60.0
_RENEWALS_PER_TERM = 3
_STOPS_WITHIN_S = 10.0
"""How long the end of a run waits for a renewal that the store does not answer."""
_TRIES = 5
"""How often somebody else may be faster before the lease is taken for held."""


class LeaseHeld(CannotRun):
    """Another run works on the output."""


class LeaseLost(CannotRun):
    """Another run has taken the output over."""


@dataclass(frozen=True)
class Process:
    """A process, named so that no other one is ever taken for it."""

    host: str
    pid: int
    machine: str | None
    """This boot of the machine and the namespace of its process numbers; None where the system does not say (only
    Linux does)."""
    started: int | None
    """When the process began, in the system's ticks since the boot."""

    @classmethod
    def this(cls) -> Process:
        return cls(platform.node(), os.getpid(), _machine(), _started(os.getpid()))

    def is_gone(self, seen_from: Process) -> bool:
        """Whether it has certainly ended; False for a process of another machine, which nobody here can know."""
        if self.machine is None or self.machine != seen_from.machine:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        started = _started(self.pid)
        return started == _ENDED or (None not in (started, self.started) and started != self.started)


class Tenure(BaseModel):
    """What stands in ``lease.json``."""

    token: int
    holder: str
    """Unlike any other holder's."""
    host: str
    pid: int
    machine: str | None = None
    started: int | None = None
    since: float
    """Unix time, as is ``until``."""
    until: float
    released: bool = False

    @property
    def process(self) -> Process:
        return Process(self.host, self.pid, self.machine, self.started)

    def __str__(self) -> str:
        return f"{self.host}, process {self.pid}, since {_clock_time(self.since)}, until {_clock_time(self.until)}"


class Lease:
    """A lease that this process takes, renews and gives back."""

    def __init__(
        self,
        cell: Cell,
        *,
        term_s: float = TERM_S,
        clock: Callable[[], float] = time.time,
        process: Process | None = None,
    ) -> None:
        """``clock`` gives Unix time. Touches nothing."""
        self._cell = cell
        self._term_s = term_s
        self._clock = clock
        self._process = process or Process.this()
        self._tenure: Tenure | None = None
        self._lost: LeaseLost | None = None

    @property
    def token(self) -> int:
        assert self._tenure is not None  # noqa: S101  (asked for after `take` only)
        return self._tenure.token

    def take(self) -> None:
        """Become the holder. Raises `LeaseHeld`, or a `StorageError` where the store fails."""
        for _ in range(_TRIES):
            found = _parse(self._cell.read())
            if found is not None and not self._is_free(found):
                raise LeaseHeld(
                    f"{self._cell.store.uri} is in use by another run ({found}); let it end, or stop it, and run "
                    "again. If its machine is gone, run again when that time is over"
                )
            tenure = self._own(1 if found is None else found.token + 1)
            if self._cell.replace(tenure.model_dump_json(indent=1).encode()):
                self._tenure = tenure
                return
        raise LeaseHeld(f"{self._cell.store.uri} is in use: other runs started on it at the same moment")

    def renew(self) -> None:
        """Hold it for another term. Raises `LeaseLost`, or a `StorageError` where the store fails."""
        self.check()
        assert self._tenure is not None  # noqa: S101  (renewed after `take` only)
        if not self._write(self._tenure.model_copy(update={"until": self._clock() + self._term_s})):
            self._lost = LeaseLost(_lost(self._cell.store, _parse(self._cell.read())))
            raise self._lost

    def release(self) -> None:
        """Give it back, if it is still held; a store that fails now is left to the end of the term."""
        if self._tenure is not None and self._lost is None:
            with suppress(StorageError):
                self._write(self._tenure.model_copy(update={"until": self._clock(), "released": True}))

    def check(self) -> None:
        """Raises `LeaseLost` once a renewal has been refused. Asks no store."""
        if self._lost is not None:
            raise self._lost

    def confirm(self) -> None:
        """Raises `LeaseLost` if the store says that another one is the holder."""
        self.check()
        confirm(self._cell.store, self.token)

    def keep(self, stop: threading.Event) -> None:
        """Renew until ``stop`` is set or the lease is lost."""
        while not stop.wait(self._term_s / _RENEWALS_PER_TERM):
            try:
                self.renew()
            except LeaseLost:
                return
            except StorageError:
                # As long as nobody takes it over it can still be renewed, even past its end.
                continue

    def _is_free(self, found: Tenure) -> bool:
        return found.released or found.until <= self._clock() or found.process.is_gone(self._process)

    def _own(self, token: int) -> Tenure:
        now, me = self._clock(), self._process
        return Tenure(
            token=token,
            holder=uuid.uuid4().hex,
            host=me.host,
            pid=me.pid,
            machine=me.machine,
            started=me.started,
            since=now,
            until=now + self._term_s,
        )

    def _write(self, tenure: Tenure) -> bool:
        if not self._cell.replace(tenure.model_dump_json(indent=1).encode()):
            return False
        self._tenure = tenure
        return True


@contextmanager
def leased(store: Store, *, term_s: float = TERM_S) -> Iterator[Lease]:
    """Hold the output's lease for the length of the block.

    Raises `LeaseHeld` at once if another run holds it, and a `StorageError` where the store fails.
    """
    lease = Lease(open_cell(store, KEY), term_s=term_s)
    lease.take()
    stop = threading.Event()
    keeper = threading.Thread(target=lease.keep, args=(stop,), name="lease", daemon=True)
    keeper.start()
    try:
        yield lease
    finally:
        stop.set()
        keeper.join(_STOPS_WITHIN_S)
        if not keeper.is_alive():
            lease.release()


def confirm(store: Store, token: int) -> None:
    """Raises `LeaseLost` if ``token`` is not that of the output's lease, and a `StorageError` where the store fails."""
    try:
        found = _parse(store.get_bytes(KEY))
    except FileNotFoundError:
        found = None
    if found is None or found.token != token:
        raise LeaseLost(_lost(store, found))


def _lost(store: Store, found: Tenure | None) -> str:
    reason = "its lease.json was removed" if found is None else f"another run has taken it over ({found})"
    return f"{store.uri}: {reason}; this run stops, what it has made is kept"


def _parse(data: bytes | None) -> Tenure | None:
    """None for a lease that can't be read: nobody holds it."""
    try:
        return None if data is None else Tenure.model_validate_json(data)
    except ValidationError:
        return None


def _clock_time(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).isoformat(timespec="seconds")


_ENDED = -1
"""The start of a process that has ended and that its parent has not asked about yet."""


def _started(pid: int) -> int | None:
    """Ticks from the boot to the start of a process; `_ENDED`; None where the system does not say."""
    try:
        # The name of the program, in brackets, may hold anything.
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return _ENDED if state in "ZX" else int(fields[18])


def _machine() -> str | None:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None

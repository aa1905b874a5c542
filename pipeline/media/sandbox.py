"""Decoders that may die: strangers' files are opened in processes that can be killed.

A file that crashes a decoder, hangs it or wants all memory costs that process and fails its own item. A process is
kept for the next file; starting one takes about half a second.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

from pipeline.config import InputLimits
from pipeline.errors import ErrorRecord, InputError, ItemError, item_error
from pipeline.media.pieces import Piece, receive_piece, send_piece

COMMAND = (sys.executable, "-P", "-m", "pipeline.media.decoder")
"""How a decoder is started; the number of its socket and its memory in bytes follow."""

_IDLE_KEPT = 2
"""Processes that wait for the next file; more only while they work."""
_STARTS_WITHIN_S = 120.0
"""For the imports of a new process on a busy machine; no file's fault."""
_STOPS_WITHIN_S = 2.0
"""For a process to give up its file, or to end."""
# No credentials: who takes over a decoder by a crafted file finds none.
_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT")


class Sandbox:
    """Decoder processes, started as they are needed. For any number of threads."""

    def __init__(self, memory_bytes: int) -> None:
        """``memory_bytes`` is the address space of each process. Starts nothing."""
        self._memory = memory_bytes
        self._idle: list[_Decoder] = []
        self._lock = Lock()

    def warm(self) -> None:
        """Start a process, without waiting for it, if there is none."""
        with self._lock:
            if not self._idle:
                self._idle.append(_Decoder(self._memory))

    def decode(
        self, job: str, path: Path, limits: InputLimits, *, ahead: bool = True, **options: Any
    ) -> Generator[Piece, None, None]:
        """The pieces of `pipeline.media.decoder.JOBS` ``job`` on ``path``; close it to stop early.

        ``ahead`` lets the process work on the next piece while the caller has this one. Time counts while the caller
        waits, up to ``limits.decoding_s`` of the length by the header.

        Raises what the job raises (`InputError`, ...), and `InputError` where the process dies or takes too long.
        """
        decoder = self._take()
        try:
            yield from decoder.decode(job, path, limits, ahead, options)
        finally:
            self._give(decoder)

    def close(self) -> None:
        """End the processes that are idle."""
        with self._lock:
            idle, self._idle = self._idle, []
        for decoder in idle:
            decoder.kill()

    def _take(self) -> _Decoder:
        with self._lock:
            while self._idle:
                decoder = self._idle.pop()
                if decoder.usable:
                    return decoder
                decoder.kill()
        return _Decoder(self._memory)

    def _give(self, decoder: _Decoder) -> None:
        with self._lock:
            keep = decoder.usable and len(self._idle) < _IDLE_KEPT
            if keep:
                self._idle.append(decoder)
        if not keep:
            decoder.kill()


@cache
def shared_sandbox(memory_bytes: int) -> Sandbox:
    """The one sandbox of this process with that memory: its stages share the decoders."""
    sandbox = Sandbox(memory_bytes)
    atexit.register(sandbox.close)
    return sandbox


class _Decoder:
    """One process and the socket to it."""

    def __init__(self, memory_bytes: int) -> None:
        near, far = socket.socketpair()
        with far:
            self._process = subprocess.Popen(  # noqa: S603  (our own module)
                [*COMMAND, str(far.fileno()), str(memory_bytes)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[far.fileno()],
                env=_environment(),
                # Ctrl-C is for the run, which then lets go of the socket.
                start_new_session=True,
            )
        self._end = near
        self._ready = self._at_work = False

    @property
    def usable(self) -> bool:
        """Whether it lives and waits for a file."""
        return not self._at_work and self._process.poll() is None

    def kill(self) -> None:
        """End the process, whatever it does."""
        self._end.close()
        self._process.kill()
        self._process.wait()

    def decode(
        self, job: str, path: Path, limits: InputLimits, ahead: bool, options: dict[str, Any]
    ) -> Generator[Piece, None, None]:
        """See `Sandbox.decode`. Afterwards the process is `usable`, or has to be killed."""
        self._start()
        patience = _Patience(limits.decoding_s(0.0))
        request = {"job": job, "path": str(path.absolute()), "limits": limits.model_dump(), "options": options}
        self._at_work = True
        try:
            self._say("open", **request)
            patience.limit_s = limits.decoding_s(self._hear(patience).facts["seconds"])
            self._say("next")
            while (piece := self._hear(patience)).facts["says"] == "piece":
                if ahead:
                    self._say("next")
                try:
                    yield piece
                except GeneratorExit:
                    self._stop()
                    raise
                if not ahead:
                    self._say("next")
        except (EOFError, ConnectionError) as exc:
            raise self._death(path) from exc
        except TimeoutError as exc:
            raise InputError(
                f"decoding {path.name} took longer than {patience.limit_s:g} s",
                hint="play the file to check it; raise limits.decode_s_per_s if the machine is slow",
            ) from exc

    def _start(self) -> None:
        """Wait for a new process. Raises ItemError: whatever happens until then is no file's fault."""
        if self._ready:
            return
        self._at_work = True
        try:
            self._hear(_Patience(_STARTS_WITHIN_S))
        except (EOFError, OSError) as exc:
            raise ItemError(
                "infrastructure",
                f"no decoder could be started within {_STARTS_WITHIN_S:.0f} s: {exc!r}",
                hint="look at the worker's log, and at the machine's memory and processes",
            ) from exc
        self._ready, self._at_work = True, False

    def _say(self, says: str, **facts: Any) -> None:
        self._end.settimeout(None)
        send_piece(self._end, Piece({"says": says, **facts}))

    def _hear(self, patience: _Patience) -> Piece:
        """What it says next. Raises the ItemError that it says."""
        with patience:
            piece = receive_piece(self._end, lambda: self._end.settimeout(patience.left_s()))
        facts = piece.facts
        if facts["says"] == "error":
            self._at_work = facts["fatal"]
            raise item_error(ErrorRecord(facts["kind"], "", facts["message"], facts["hint"], facts["trace"]))
        if facts["says"] == "end":
            self._at_work = False
        return piece

    def _stop(self) -> None:
        """Let it give up the file; one that doesn't in time is left at work, and killed."""
        with suppress(ItemError, OSError, EOFError):
            self._say("stop")
            patience = _Patience(_STOPS_WITHIN_S)
            while self._hear(patience).facts["says"] != "end":
                continue

    def _death(self, path: Path) -> ItemError:
        """What became of the process."""
        try:
            code = self._process.wait(_STOPS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        if code == -signal.SIGKILL:
            return ItemError(
                "infrastructure",
                f"the decoder was killed ({how}) while it read {path.name}",
                hint="is the machine short of memory? run again with fewer actors, or lower limits.max_decoder_bytes",
            )
        return InputError(
            f"the decoder died ({how}) while it read {path.name}",
            hint="the file is damaged, or made to do harm; convert it to PNG, WAV or MP4, or leave it out",
        )


class _Patience:
    """A limit on waiting; what the caller does in between is free. A context for each wait."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._waited = self._since = 0.0

    def left_s(self) -> float:
        """Raises TimeoutError when nothing is left."""
        left = self.limit_s - self._waited - (time.monotonic() - self._since)
        if left <= 0:
            raise TimeoutError
        return left

    def __enter__(self) -> None:
        self._since = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._waited += time.monotonic() - self._since


def _environment() -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    kept = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    path = os.pathsep.join(filter(None, (root, kept.get("PYTHONPATH"))))
    # BLAS threads would only reserve memory.
    return kept | {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

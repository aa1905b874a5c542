"""Checks run in processes of their own: one that hangs is ended, one that crashes takes nothing with it.

Drivers, codecs and network mounts can block where no Python thread can be interrupted, and a package that is built for
another processor kills its process. So each check is a program that writes its findings as lines of JSON.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.doctor.finding import Finding, Request, fail

_ROOT = Path(__file__).parent.parent.parent
_AT_ONCE = 4
_GRACE_S = 3.0
"""How long a check that is ended has to take away what it has written."""


@dataclass(frozen=True)
class Check:
    """A subject of the doctor's: the function that looks at it, and for how long it may."""

    name: str
    function: str
    """``module:name`` of ``(Request) -> Iterator[Finding]``; imported in the check's own process only."""
    limit_s: float


def examine_all(checks: Sequence[Check], request: Request) -> Iterator[Finding]:
    """The findings of all checks, in their order; several run at once. None goes on when the caller stops."""
    pool = ThreadPoolExecutor(_AT_ONCE)
    running: list[subprocess.Popen[bytes]] = []
    try:
        for found in pool.map(lambda check: examine(check, request, running), checks):
            yield from found
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in running:
            if process.poll() is None:
                _signal(process, signal.SIGKILL)


def examine(check: Check, request: Request, running: list[subprocess.Popen[bytes]] | None = None) -> list[Finding]:
    """What one check finds. Its crash, its exception and its time limit are findings too.

    Its process is put into ``running``.
    """
    process = subprocess.Popen(  # noqa: S603  (this interpreter, and names from our own table)
        # Without -P a folder named like one of our packages in the working folder would be imported in its place.
        [sys.executable, "-P", "-X", "faulthandler", "-m", "pipeline.doctor", check.function, str(_alarm_s(check))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_environment(request),
        start_new_session=True,
    )
    if running is not None:
        running.append(process)
    late = False
    try:
        out, err = process.communicate(request.model_dump_json().encode(), timeout=check.limit_s)
    except subprocess.TimeoutExpired:
        late = True
        out, err = _end(process)
    finally:
        _signal(process, signal.SIGKILL)
    found = [Finding(**json.loads(line)) for line in out.splitlines() if line.startswith(b"{")]
    if late:
        found.append(
            fail(
                f"no answer within {check.limit_s:g} s",
                "see what it waits for (network, driver, a mount that is gone?), or give it longer with --timeout",
            )
        )
    elif process.returncode:
        found.append(_crash(process.returncode, err.decode(errors="replace")))
    elif not found:
        found.append(fail("the check ended without a word", "please report this"))
    return [replace(finding, check=finding.check or check.name) for finding in found]


def _alarm_s(check: Check) -> int:
    """When a check ends itself, should there be nobody left who ends it."""
    return math.ceil(check.limit_s + 3 * _GRACE_S)


def _environment(request: Request) -> dict[str, str]:
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    if request.on_node and environment.get("CUDA_VISIBLE_DEVICES") == "":
        # Ray hides the GPUs from a task that asks for none.
        del environment["CUDA_VISIBLE_DEVICES"]
    return environment


def _end(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """End a check and everything that it started; returns what it wrote."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        _signal(process, how)
        try:
            return process.communicate(timeout=_GRACE_S)
        except subprocess.TimeoutExpired as exc:
            written = exc.output or b"", exc.stderr or b""
    # Not even a kill ends a process that waits in the kernel; it is left to itself.
    return written


def _signal(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, how)


def _crash(code: int, err: str) -> Finding:
    lines = [line.strip() for line in err.splitlines() if line.strip()]
    if code > 0:
        return fail(f"the check failed: {lines[-1] if lines else f'exit code {code}'}", "mend what it names")
    # The innermost frames of faulthandler's report say which package it was.
    frames = [line.removeprefix("File ") for line in lines if line.startswith("File ")]
    where = f" in {frames[0]}" if frames else ""
    return fail(
        f"the check crashed with {signal.Signals(-code).name}{where}",
        "install that package anew; SIGILL means that it was built for another processor",
    )

"""Ray in this process: its version, who may use its clusters, and whether it reports on its users."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.doctor.finding import Finding, Request, fail, note, ok
from pipeline.machines.cluster import token_source

_TELEMETRY = "RAY_USAGE_STATS_ENABLED"


def check(request: Request) -> Iterator[Finding]:
    import ray

    yield ok(f"Ray {ray.__version__}, {_own(request)}")
    yield _authentication(request.address)
    yield _telemetry()


def _own(request: Request) -> str:
    return f"joins {request.address}" if request.address else "a cluster of the run's own"


def _authentication(address: str | None) -> Finding:
    mode, source = os.environ.get("RAY_AUTH_MODE"), token_source()
    if mode is not None and mode.lower() != "token":
        return note(
            f"authentication is off (RAY_AUTH_MODE={mode})",
            "whoever reaches the cluster's ports can run programs on it: keep them to a private network",
        )
    if address is None:
        return ok(f"authentication by a token, {f'from {source}' if source else 'which Ray will make in ~/.ray'}")
    if source is None:
        lacks = "no token here: RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH and ~/.ray/auth_token are empty"
        give = "take the cluster's token from the machine that started it"
        return fail(lacks, give) if mode else note(lacks, f"if the cluster asks for one, {give}")
    if mode is None and address != "auto":
        return note(
            f"the token from {source} is not shown to a cluster that is named by its address",
            "export RAY_AUTH_MODE=token if the cluster asks for one",
        )
    return ok(f"authentication by the token from {source}")


def _telemetry() -> Finding:
    """What this program and Ray's own settings come to. A cluster's is decided where it was started."""
    wish = os.environ.get(_TELEMETRY)
    if wish not in (None, "0", "1"):
        return fail(f"{_TELEMETRY} is {wish!r}: Ray takes 0 or 1 and stops at anything else", f"unset {_TELEMETRY}")
    if wish == "1":
        return note(f"Ray reports usage to its makers ({_TELEMETRY}=1)", f"unset {_TELEMETRY}: it is off then")
    file = Path(os.environ.get("RAY_USAGE_STATS_CONFIG_PATH", Path.home() / ".ray" / "config.json"))
    try:
        chosen = json.loads(file.read_text()).get("usage_stats") is False
    except (OSError, ValueError, AttributeError):
        chosen = False
    elsewhere = "" if chosen else "; a cluster that you start reports unless told `ray start --disable-usage-stats`"
    return ok(f"Ray's telemetry is off{elsewhere}")

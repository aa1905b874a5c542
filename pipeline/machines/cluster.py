"""Connecting to Ray: the cluster that a job runs in, one at an address, or one of our own on this machine."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from pipeline.errors import CannotRun

_REACHED_WITHIN_S = 20.0


@contextmanager
def connected(address: str | None = None, **local: Any) -> Iterator[None]:
    """A connection to Ray for the length of the block.

    An existing connection is used and left open. ``address``, or Ray's own RAY_ADDRESS, names a cluster; without
    either one is started on this machine with ``local`` as further arguments of ``ray.init``.

    Raises CannotRun when the address does not answer, or lets nobody in without the token.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray's own processes otherwise write their warnings between our lines; they stand in its log files anyway.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray

    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    if address is None:
        options |= {"address": "local", "include_dashboard": False, **local}
    else:
        options["address"] = address
        _reach(address)
    try:
        with _quiet_start():
            ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as exc:
        raise CannotRun(f"no connection to Ray at {address or 'this machine'}: {exc}{_token_hint(address)}") from exc
    try:
        yield
    finally:
        ray.shutdown()


def token_source() -> str | None:
    """Where Ray would read its token; None where there is none."""
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        if os.environ.get(name):
            return name
    file = Path.home() / ".ray" / "auth_token"
    return str(file) if file.is_file() else None


def _reach(address: str) -> None:
    """Raise CannotRun if nothing listens at host:port or ray://host:port: Ray would try for many minutes, silently."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _REACHED_WITHIN_S).close()
    except (OSError, OverflowError) as exc:
        raise CannotRun(
            f"no connection to Ray at {address}: nothing answers there ({exc}); expected the host and port that "
            "`ray start --head` has printed, and a network that lets this machine reach them"
        ) from exc


def _token_hint(address: str | None) -> str:
    # Ray shows the token to a cluster that is named by its address only when it is told to.
    if address is None or token_source() is None or os.environ.get("RAY_AUTH_MODE", "").lower() == "token":
        return ""
    return ". If the cluster asks for a token: export RAY_AUTH_MODE=token"


@contextmanager
def _quiet_start() -> Iterator[None]:
    """Keep back what Ray's C++ part writes to stderr while it starts: that it has read its log level.

    It writes to the file descriptor itself, past Python's ``sys.stderr``. If the start fails it is shown after all.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            yield
        except BaseException:
            aside.seek(0)
            os.write(kept, aside.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)

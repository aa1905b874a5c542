"""Connecting to Ray: the cluster that a job runs in, one at an address, or one of our own on this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile
from typing import Any

from pipeline.errors import CannotRun


@contextmanager
def connected(address: str | None = None, **local: Any) -> Iterator[None]:
    """A connection to Ray for the length of the block.

    An existing connection is used and left open. ``address``, or Ray's own RAY_ADDRESS, names a cluster; without
    either one is started on this machine with ``local`` as further arguments of ``ray.init``.

    Raises CannotRun when the address does not answer.
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
    try:
        with _quiet_start():
            ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as exc:
        raise CannotRun(f"no connection to Ray at {address or 'this machine'}: {exc}") from exc
    try:
        yield
    finally:
        ray.shutdown()


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

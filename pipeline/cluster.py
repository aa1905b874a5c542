"""Connecting to Ray: the cluster that a job runs in, one at an address, or one of our own on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
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
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as exc:
        raise CannotRun(f"no connection to Ray at {address or 'this machine'}: {exc}") from exc
    try:
        yield
    finally:
        ray.shutdown()

"""Trying again what may be gone a moment later: a storage that is busy, a connection that broke."""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from pydantic import BaseModel, Field

from pipeline.config import RetrySettings
from pipeline.errors import ItemError

R = TypeVar("R")

_TRANSIENT = frozenset(
    {
        errno.EAGAIN, errno.EBUSY, errno.EIO, errno.EREMOTEIO, errno.ESTALE,
        errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH,
    }
)  # fmt: skip
"""What s3fs calls a 500 or 503, and what a network gives; connections and time limits have classes of their own."""
_TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


def is_transient(exc: BaseException) -> bool:
    """Whether what a filesystem raised may be gone a moment later."""
    from aiohttp import ClientConnectionError, ClientPayloadError, ClientResponseError
    from botocore.exceptions import ConnectionError as S3ConnectionError  # type: ignore[import-untyped]
    from botocore.exceptions import HTTPClientError

    if isinstance(exc, ClientResponseError):
        return exc.status in _TRANSIENT_STATUS
    broken = (
        ConnectionError, TimeoutError,
        ClientConnectionError, ClientPayloadError,
        HTTPClientError, S3ConnectionError,
    )  # fmt: skip
    return isinstance(exc, broken) or (isinstance(exc, OSError) and exc.errno in _TRANSIENT)


class Retries(BaseModel):
    """What was tried again in a stage."""

    count: int = 0
    first: float | None = Field(None, description="Unix time of the first failure that was tried again")
    last: float | None = None
    message: str = Field("", description="of the last failure that was tried again")

    def add(self, exc: ItemError) -> None:
        moment = time.time()
        self.count += 1
        self.first = moment if self.first is None else self.first
        self.last, self.message = moment, exc.message

    def joined(self, other: Retries | None) -> Retries:
        """Both together."""
        if other is None:
            return self
        _, later = sorted((self, other), key=lambda retries: retries.last or 0.0)
        firsts = [moment for moment in (self.first, other.first) if moment is not None]
        return Retries(
            count=self.count + other.count, first=min(firsts, default=None), last=later.last, message=later.message
        )


_noted: ContextVar[Retries | None] = ContextVar("retries", default=None)


@contextmanager
def noting(retries: Retries) -> Iterator[None]:
    """Note in ``retries`` what is tried again in the block, in this thread."""
    token = _noted.set(retries)
    try:
        yield
    finally:
        _noted.reset(token)


def retried(operation: Callable[[], R], settings: RetrySettings, sleep: Callable[[float], None] = time.sleep) -> R:
    """What ``operation`` returns, on its first attempt that raises no transient `ItemError`.

    The waits grow twofold from ``settings.first_wait_s`` to ``settings.longest_wait_s``, each shortened at random to
    not less than half of it, so that workers that failed together don't come back together. After
    ``settings.attempts`` attempts the last error is raised; one that isn't transient at once.
    """
    for attempt in range(1, settings.attempts):
        try:
            return operation()
        except ItemError as exc:
            if not exc.transient:
                raise
            noted = _noted.get()
            if noted is not None:
                noted.add(exc)
        wait = min(settings.first_wait_s * 2 ** (attempt - 1), settings.longest_wait_s)
        sleep(wait * random.uniform(0.5, 1.0))
    return operation()

"""Trying again: what is tried again, how often, after what waits, and what is noted."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest
from aiohttp import ClientResponseError, ServerDisconnectedError
from botocore.exceptions import ConnectTimeoutError, NoCredentialsError  # type: ignore[import-untyped]

from pipeline.config import RetrySettings
from pipeline.errors import InputError, ItemError
from pipeline.retry import Retries, is_transient, noting, retried

SETTINGS = RetrySettings(attempts=5, first_wait_s=2.0, longest_wait_s=5.0)
BUSY = ItemError("infrastructure", "the store is busy", transient=True)


class Failing:
    """Fails with each of its errors in turn, and then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors: Iterator[Exception] = iter(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        for exc in self.errors:
            raise exc
        return "answer"


def test_waits_grow_twofold_up_to_the_longest_and_are_shortened_by_at_most_half() -> None:
    waits: list[float] = []
    noted = Retries()
    with noting(noted):
        assert retried(Failing(BUSY, BUSY, BUSY, BUSY), SETTINGS, waits.append) == "answer"
    assert all(full / 2 <= wait <= full for wait, full in zip(waits, (2, 4, 5, 5), strict=True))
    assert noted.count == 4
    assert noted.message == "the store is busy"
    assert noted.first is not None and noted.last is not None and noted.first <= noted.last


def test_workers_that_failed_together_do_not_come_back_together() -> None:
    waits: list[float] = []
    for _ in range(20):
        retried(Failing(BUSY), SETTINGS, waits.append)
    assert len(set(waits)) == 20


def test_the_last_attempts_error_is_raised() -> None:
    waits: list[float] = []
    operation = Failing(*[BUSY] * 10)
    with pytest.raises(ItemError, match="the store is busy"):
        retried(operation, SETTINGS, waits.append)
    assert (operation.calls, len(waits)) == (5, 4)


@pytest.mark.parametrize("error", [InputError("broken"), ItemError("infrastructure", "refused"), KeyError("defect")])
def test_what_will_not_go_away_is_not_tried_again(error: Exception) -> None:
    operation = Failing(error)
    with pytest.raises(type(error)):
        retried(operation, SETTINGS, lambda wait: pytest.fail("no wait"))
    assert operation.calls == 1


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (OSError(errno.EBUSY, "503"), True),
        (OSError(errno.EREMOTEIO, "500"), True),
        (ServerDisconnectedError(), True),
        (ConnectTimeoutError(endpoint_url="s3"), True),
        (ClientResponseError(None, (), status=503), True),  # type: ignore[arg-type]
        (ClientResponseError(None, (), status=403), False),  # type: ignore[arg-type]
        (OSError(errno.ENOSPC, "no space left"), False),
        (PermissionError(errno.EACCES, "403"), False),
        (FileNotFoundError(errno.ENOENT, "404"), False),
        (NoCredentialsError(), False),
        (ValueError("a bad address"), False),
    ],
    ids=repr,
)
def test_which_failures_of_a_storage_may_be_gone_a_moment_later(error: Exception, transient: bool) -> None:
    assert is_transient(error) is transient


def test_retries_of_two_files_are_told_together() -> None:
    one = Retries(count=2, first=10.0, last=20.0, message="early")
    two = Retries(count=1, first=15.0, last=30.0, message="late")
    assert one.joined(two) == two.joined(one) == Retries(count=3, first=10.0, last=30.0, message="late")
    assert one.joined(None) == one

"""Ctrl-C and SIGTERM as a wish: a training ends between two steps, with everything it knows on disk."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def until_signal() -> Iterator[Callable[[], bool]]:
    """A function that says whether SIGINT or SIGTERM has come since.

    A second Ctrl-C does what it did before; a second SIGTERM, as `timeout` sends it to a process and to its group,
    changes nothing. Only the main thread can listen; elsewhere no signal ever comes.
    """
    came = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield came.is_set
        return

    def note(number: int, frame: FrameType | None) -> None:
        came.set()
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, before[signal.SIGINT])

    before = {number: signal.signal(number, note) for number in _SIGNALS}
    try:
        yield came.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

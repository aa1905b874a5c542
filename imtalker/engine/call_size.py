"""How much a network call takes on at once: less, from the first time that the device's memory does not suffice."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

_LOG = logging.getLogger(__name__)

T = TypeVar("T")


class CallSize:
    """Rows of a network call, ``wished`` at first; halved for good each time that a call runs out of memory."""

    def __init__(self, wished: int) -> None:
        """Raises ValueError for fewer than one row."""
        if wished < 1:
            raise ValueError(f"rows of a network call must be at least 1, not {wished}")
        self.wished = wished
        self.rows = wished

    @property
    def shrunk(self) -> bool:
        return self.rows < self.wished

    def run(self, call: Callable[[int], T]) -> T:
        """``call`` with as many rows as there is room for. What it has done when it runs out is done again.

        Raises torch.OutOfMemoryError when one row is too many.
        """
        while True:
            try:
                return call(self.rows)
            except torch.OutOfMemoryError:
                if self.rows == 1:
                    raise
            # Outside of the handler: its traceback would keep the tensors of the call that failed.
            self.rows //= 2
            _LOG.warning("out of memory on the device: from now on %d rows in a network call", self.rows)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

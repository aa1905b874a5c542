"""``torch.compile`` that a missing compiler can't stop."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch

_LOG = logging.getLogger(__name__)


def compiled(step: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    """``step`` compiled for its one input shape, with CUDA graphs on GPUs.

    If the first call can't be compiled (no C++ compiler, no Triton, an unsupported GPU) that is logged, and ``step``
    itself runs from then on. Errors of ``step`` itself are raised by that second run.
    """
    fast = torch.compile(step, dynamic=False, mode="reduce-overhead" if device.type == "cuda" else None)
    chosen: list[Callable[..., Any]] = []

    def call(*args: Any) -> Any:
        if device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()
        if chosen:
            return chosen[0](*args)
        try:
            result = fast(*args)
        except RuntimeError as exc:
            _LOG.warning("rendering without compilation, which failed: %s", str(exc).splitlines()[0])
            chosen.append(step)
            return step(*args)
        chosen.append(fast)
        return result

    return call

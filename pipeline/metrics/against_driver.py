"""Self-reenactment: frames against those of the driver, where it shows the portrait's own person.

PSNR and SSIM (Wang et al., "Image quality assessment", 2004) of each frame against the driver's at the same moment, and
LPIPS where its weights are named. Formulas of the first two are those of training, `imtalker.training.similarity`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from imtalker.engine.precision import exact_float32
from imtalker.training.similarity import psnr, ssim
from pipeline.errors import ItemError
from pipeline.metrics.catalogue import Values
from pipeline.metrics.lpips import PerceptionExpert

MOST_DB = 100.0
"""The most that a frame's PSNR counts: that of equal frames is infinite."""

_BATCH = 4

_LOG = logging.getLogger(__name__)


class DriverMeter:
    """Takes an item's frames in order and the driver's in step with them; of each it keeps three numbers."""

    def __init__(
        self,
        driver: Iterable[np.ndarray],
        every: int,
        device: torch.device,
        judge: PerceptionExpert | None = None,
    ) -> None:
        """``driver``: windows uint8 [n, R, R, 3] RGB of its frames 0, ``every``, 2 ``every``, ...; read as needed."""
        self._driver: Iterator[np.ndarray] = (frame for window in driver for frame in window)
        self._every, self._device, self._judge = every, device, judge
        self._seen = 0
        self._found: list[Tensor] = []

    def add(self, frames: np.ndarray) -> None:
        """uint8 [n, R, R, 3] RGB, which are only read."""
        chosen = frames[-self._seen % self._every :: self._every]
        self._seen += len(frames)
        for begin in range(0, len(chosen), _BATCH):
            ours = chosen[begin : begin + _BATCH]
            theirs = self._next(len(ours))
            if theirs:
                self._found.append(self._compared(ours[: len(theirs)], np.stack(theirs)))

    def values(self, recording: np.ndarray | None) -> Values:
        """Of no frames where the driver could not be read; then without scores."""
        found: Values = dict(self._judge.sha256) if self._judge else {}
        found["driver_frames_compared"] = sum(len(rows) for rows in self._found)
        if self._found:
            means = torch.cat(self._found).mean(0).tolist()
            names = ("driver_psnr_db", "driver_ssim", "driver_lpips")
            found |= dict(zip(names, means, strict=False))
        return found

    def _next(self, count: int) -> list[np.ndarray]:
        """The driver's next frames; fewer where it ends, none of one that can't be read to where the item goes."""
        try:
            return list(islice(self._driver, count))
        except ItemError:
            _LOG.exception("reading the driver again failed; the item is not compared with it")
            self._driver, self._found = iter(()), []
            return []

    @torch.inference_mode()
    def _compared(self, ours: np.ndarray, theirs: np.ndarray) -> Tensor:
        """PSNR, SSIM and LPIPS, if there is a judge: [n, 2 or 3]."""
        pictures, truth = (
            torch.tensor(frames, device=self._device).permute(0, 3, 1, 2).float() / 255 for frames in (ours, theirs)
        )
        with exact_float32(self._device):
            columns = [psnr(pictures, truth).clamp(max=MOST_DB), ssim(pictures, truth)]
            if self._judge is not None:
                columns.append(self._judge.distance(pictures, truth))
        return torch.stack(columns, dim=1).cpu()

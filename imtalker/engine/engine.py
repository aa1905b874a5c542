"""Render engine: one prepared source, any number of motion codes, frames in fixed batches."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from imtalker.renderer.renderer import PreparedSource, Renderer

__all__ = ["PreparedSource", "RenderEngine"]


class RenderEngine:
    """Renders motion codes for a prepared source.

    Every network call has exactly ``batch_size`` frames (the last one is padded), so a frame's bits depend only on
    its own code, its source and its place in the clip modulo ``batch_size``, never on who else is rendered.
    """

    def __init__(
        self,
        renderer: Renderer,
        *,
        device: str | torch.device,
        dtype: torch.dtype = torch.float32,
        batch_size: int,
        compile: bool = False,
    ) -> None:
        """``dtype`` float32, or bfloat16/float16 by autocast. Raises ValueError for any other."""
        if dtype not in (torch.float32, torch.bfloat16, torch.float16):
            raise ValueError(f"dtype must be float32, bfloat16 or float16, not {dtype}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self.device = torch.device(device)
        self.dtype = dtype
        self.batch_size = batch_size
        self.renderer = renderer.eval().to(self.device)
        self._render = torch.compile(self.renderer.render) if compile else self.renderer.render

    def prepare(self, source: Tensor) -> PreparedSource:
        """source float [3, R, R] in 0..1 -> all that depends on it alone, for one source."""
        if source.ndim != 3:
            raise ValueError(f"expected one picture [3, R, R], got {list(source.shape)}")
        with torch.inference_mode(), self._precision():
            return self.renderer.prepare(source[None].to(self.device, torch.float32))

    def frames(self, prepared: PreparedSource, motion: Tensor) -> Iterator[Tensor]:
        """motion float [T, dim_motion] -> float32 [n, 3, R, R] in 0..1 on the device, n <= batch_size, T in all."""
        dim = self.renderer.config.dim_motion
        if motion.ndim != 2 or motion.shape[1] != dim:
            raise ValueError(f"expected motion codes [T, {dim}], got {list(motion.shape)}")
        for codes in motion.split(self.batch_size):
            count = len(codes)
            padded = torch.cat([codes, codes[-1:].expand(self.batch_size - count, -1)])
            with torch.inference_mode(), self._precision():
                frames = self._render(prepared, padded.to(self.device, torch.float32))
            yield frames[:count].float()

    def render(self, prepared: PreparedSource, motion: Tensor) -> Iterator[Tensor]:
        """As `frames`, but uint8 [n, R, R, 3] on the CPU; values are truncated, as published."""
        for frames in self.frames(prepared, motion):
            yield frames.mul(255).clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().cpu()

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

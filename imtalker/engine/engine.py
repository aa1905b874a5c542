"""Render engine: one prepared source, any number of motion codes, frames in fixed batches."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from imtalker.engine.call_size import CallSize
from imtalker.engine.compiled import compiled
from imtalker.engine.network import RenderNetwork
from imtalker.engine.precision import exact_float32, usable
from imtalker.engine.source import PreparedSource
from imtalker.renderer.renderer import Renderer

__all__ = ["PreparedSource", "RenderEngine"]

_LOG = logging.getLogger(__name__)

# Pixels of a network call on CPUs. Larger maps fall out of the caches, and their memory goes back to the system and
# comes again, page by page, at every layer.
_CPU_PIXELS = 2 * 512 * 512

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class _Batch:
    """A batch on its way out."""

    codes: Tensor
    pictures: Tensor
    """[n, R, R, 3], as computed or already bytes on the host."""
    finite: Tensor
    """bool [n]"""
    ready: Callable[[], None] | None = None
    """Waits until both tensors have arrived."""


class RenderEngine:
    """Renders motion codes for a prepared source, fast.

    The networks are folded copies of the renderer's (see `RenderNetwork`); the renderer itself is the reference.
    Every network call has the same number of frames (the last one is padded), so a frame's bits depend only on its
    own code, its source and its place in the clip modulo ``batch_size``, never on who else is rendered. Where the
    device's memory does not suffice calls become smaller for good (`shrunk`), and frames equal up to rounding.
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
        """``dtype``, float32, bfloat16 or float16, is that of the synthesis network (see `precision.usable` for old
        GPUs); what decides where features move stays float32. ``compile`` generates code for the device at the first
        batch (with CUDA graphs on GPUs), and goes on without where that fails. Raises ValueError for another type or
        an empty batch.
        """
        if dtype not in _DTYPES:
            raise ValueError(f"dtype must be float32, bfloat16 or float16, not {dtype}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self.device = torch.device(device)
        self.dtype = usable(dtype, self.device)
        self.batch_size = batch_size
        self.renderer = renderer.eval()
        self.config = renderer.config
        on_cpu = self.device.type == "cpu"
        per_call = min(batch_size, max(1, _CPU_PIXELS // self.config.resolution**2)) if on_cpu else batch_size
        self._call_size = CallSize(per_call)
        self._network = RenderNetwork(renderer, self.device, self.dtype, pack=on_cpu and not compile)
        self._step = compiled(self._network.pictures, self.device) if compile else self._network.pictures
        self._redone: tuple[PreparedSource, PreparedSource] | None = None

    @property
    def shrunk(self) -> bool:
        """Whether the device had too little memory for calls as large as wished."""
        return self._call_size.shrunk

    def prepare(self, source: Tensor) -> PreparedSource:
        """source float [3, R, R] in 0..1 -> all that depends on it alone. Always computed in float32."""
        self._check_pictures(source, "[3, R, R]", 3)
        with torch.inference_mode(), exact_float32(self.device):
            return self._network.prepare(source.to(self.device, torch.float32))

    def encode_motion(self, images: Tensor) -> Tensor:
        """images float [n, 3, R, R] in 0..1 -> motion codes float32 [n, dim_motion] on the device.

        Always computed in float32. Each picture's code depends on nothing but the picture.
        """
        self._check_pictures(images, "[n, 3, R, R]", 4)

        def encoded(rows: int) -> Tensor:
            codes = [torch.empty(0, self.config.dim_motion, device=self.device)]
            for count, batch in self._calls(images, rows):
                batch = batch.contiguous(memory_format=torch.channels_last)
                codes.append(self._network.motion(batch)[:count])
            return torch.cat(codes)

        with torch.inference_mode(), exact_float32(self.device):
            return self._call_size.run(encoded)

    def inspect(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """images float [n, 3, R, R] in 0..1 -> motion codes [n, dim_motion], identities [n, dim_identity], float32.

        For looking at pictures, not for making any: one by one, without the padding that makes `encode_motion`
        independent of n. Memory that is short here leaves the size of other calls as it is.
        """
        self._check_pictures(images, "[n, 3, R, R]", 4)
        codes = [torch.empty(0, self.config.dim_motion, device=self.device)]
        identities = [torch.empty(0, self.config.dim_identity, device=self.device)]
        with torch.inference_mode(), exact_float32(self.device):
            for image in images.to(self.device, torch.float32).split(1):
                image = image.contiguous(memory_format=torch.channels_last)
                codes.append(self._network.motion(image))
                identities.append(self._network.identity(image)[1])
        return torch.cat(codes), torch.cat(identities)

    def frames(self, prepared: PreparedSource, motion: Tensor) -> Iterator[Tensor]:
        """motion float [T, dim_motion] -> float32 [n, 3, R, R] in 0..1 on the device, n <= batch_size, T in all.

        Raises FloatingPointError when a frame is not finite even in float32.
        """
        for batch in self._batches(prepared, motion):
            yield self._repaired(prepared, batch, batch.pictures).permute(0, 3, 1, 2).contiguous()

    def render(self, prepared: PreparedSource, motion: Tensor) -> Iterator[Tensor]:
        """As `frames`, but uint8 [n, R, R, 3] on the CPU; values are truncated, as published.

        On GPUs a batch is copied to the host while the next one is computed.
        """
        waiting: deque[_Batch] = deque()
        for batch in self._batches(prepared, motion):
            waiting.append(self._on_host(batch))
            if len(waiting) > 1 or waiting[0].ready is None:
                yield self._arrived(prepared, waiting.popleft())
        while waiting:
            yield self._arrived(prepared, waiting.popleft())

    def best_matches(self, prepared: PreparedSource, motion: Tensor) -> Tensor:
        """int64 [T, N]: the source cell that each cell of the last attention level chose, for every frame.

        Raises ValueError if every level of the renderer attends: there is nothing to choose.
        """
        self._check_motion(motion)
        with torch.inference_mode(), exact_float32(self.device):
            calls = self._calls(motion, self._call_size.rows)
            choices = [self._network.best_matches(codes, prepared)[:count] for count, codes in calls]
            return torch.cat(choices)

    def _batches(self, prepared: PreparedSource, motion: Tensor) -> Iterator[_Batch]:
        self._check_motion(motion)
        for codes in motion.split(self.batch_size) if len(motion) else ():
            with torch.inference_mode(), exact_float32(self.device):
                batch = self._call_size.run(partial(self._batch, prepared, codes))
            yield batch

    def _batch(self, prepared: PreparedSource, codes: Tensor, rows: int) -> _Batch:
        pictures, finite = [], []
        for count, call in self._calls(codes, rows):
            computed, good = self._step(call, prepared.identity, prepared.tables)
            pictures.append(computed[:count])
            finite.append(good[:count])
        return _Batch(codes, torch.cat(pictures), torch.cat(finite))

    def _calls(self, x: Tensor, rows: int) -> Iterator[tuple[int, Tensor]]:
        """(how many count, input of ``rows``) for every network call; padding repeats the last entry."""
        for part in x.split(rows) if len(x) else ():
            padded = torch.cat([part, part[-1:].expand(rows - len(part), *x.shape[1:])])
            yield len(part), padded.to(self.device, torch.float32)

    def _on_host(self, batch: _Batch) -> _Batch:
        with torch.inference_mode():
            pixels = quantised(batch.pictures)
            if self.device.type != "cuda":
                return _Batch(batch.codes, pixels.cpu(), batch.finite.cpu())
            # Pinned memory comes from torch's own cache, which hands a block out again once its copies are done.
            bytes_, finite = (
                torch.empty_like(t, device="cpu", pin_memory=True).copy_(t, non_blocking=True)
                for t in (pixels, batch.finite)
            )
            event = torch.cuda.Event()
            event.record()
            return _Batch(batch.codes, bytes_, finite, ready=event.synchronize)

    def _arrived(self, prepared: PreparedSource, batch: _Batch) -> Tensor:
        if batch.ready is not None:
            batch.ready()
        return self._repaired(prepared, batch, batch.pictures)

    def _repaired(self, prepared: PreparedSource, batch: _Batch, pictures: Tensor) -> Tensor:
        """The batch's pictures, those that are not finite redone in float32."""
        if bool(batch.finite.all()):
            return pictures
        bad = (~batch.finite).nonzero().flatten().tolist()
        if self.dtype == torch.float32:
            raise FloatingPointError(
                f"{len(bad)} of {len(pictures)} frames are not finite in float32: look for inf or NaN in the motion "
                "codes and for a broken checkpoint"
            )
        _LOG.warning("%d of %d frames overflow %s; redone in float32", len(bad), len(pictures), self.dtype)
        if self._redone is None or self._redone[0] is not prepared:
            self._redone = prepared, self._exact.prepare(prepared.picture)
        exact = next(self._exact._batches(self._redone[1], batch.codes))
        redone = self._exact._repaired(self._redone[1], exact, exact.pictures)
        if pictures.dtype == torch.uint8:
            redone = quantised(redone)
        pictures = pictures.clone()
        pictures[bad] = redone[bad].to(pictures.device)
        return pictures

    @cached_property
    def _exact(self) -> RenderEngine:
        return RenderEngine(self.renderer, device=self.device, batch_size=self.batch_size)

    def _check_pictures(self, images: Tensor, form: str, axes: int) -> None:
        side = self.config.resolution
        if images.ndim != axes or images.shape[-3:] != (3, side, side):
            raise ValueError(f"expected {form} with R = {side}, got {list(images.shape)}")

    def _check_motion(self, motion: Tensor) -> None:
        dim = self.config.dim_motion
        if motion.ndim != 2 or motion.shape[1] != dim:
            raise ValueError(f"expected motion codes [T, {dim}], got {list(motion.shape)}")


def quantised(pictures: Tensor) -> Tensor:
    """float [n, R, R, 3] in 0..1 -> uint8, truncated as published."""
    return pictures.mul(255).byte()

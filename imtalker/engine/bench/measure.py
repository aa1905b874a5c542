"""What is measured, and with which instruments: time, memory, operations, pictures."""

from __future__ import annotations

import ctypes
import gc
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

Work = Callable[[], Any]

EQUAL_DB = 200.0
"""PSNR of equal pictures, which would be infinite."""


@dataclass(frozen=True)
class Measurement:
    """One line of the table. What does not apply to a line is None."""

    name: str
    rate: float
    """``unit`` a second, best round."""
    unit: str
    ratio: float | None = None
    """``rate`` by that of the line which this one is compared with; which one that is, each function says."""
    threads: int | None = None
    """Torch threads, on CPUs."""
    psnr_mean_db: float | None = None
    psnr_worst_db: float | None = None
    """Of the worst frame; both against the plain path in exact float32, `EQUAL_DB` at most."""
    flips: int | None = None
    """Best matches of the guided resampler that differ from the plain path's."""
    choices: int | None = None
    """Best matches in all."""
    gflop: float | None = None
    """10^9 floating-point operations that one ``unit`` takes on this path; a multiply-add is two."""
    peak_share: float | None = None
    """``rate * gflop`` by the device's measured matrix-product rate in the path's type."""
    peak_memory_bytes: int | None = None
    """See `PeakMemory`."""
    waited_share: float | None = None
    """Part of the time that the actors of a stage stood still, 0..1."""


def seconds_of(work: Work, device: torch.device) -> float:
    """Wall time of one call, work in the device's queue included."""
    _synchronize(device)
    started = time.perf_counter()
    work()
    _synchronize(device)
    return time.perf_counter() - started


def best_seconds(paths: Mapping[str, Work], *, rounds: int, device: torch.device) -> dict[str, float]:
    """Every path's best round. Rounds alternate between the paths: machines are shared, and whatever disturbs a
    measurement only ever makes it slower."""
    times: dict[str, list[float]] = {name: [] for name in paths}
    for _ in range(rounds):
        for name, work in paths.items():
            times[name].append(seconds_of(work, device))
    return {name: min(found) for name, found in times.items()}


def matrix_rate(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """Floating-point operations a second of a large matrix product, best of five; float32 is exact, without TF32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        best = min(seconds_of(lambda: a @ b, device) for _ in range(5))
    finally:
        torch.set_float32_matmul_precision(before)
    return 2 * size**3 / best


def operations_of(work: Work) -> int:
    """Floating-point operations of one call: products of matrices and convolutions, a multiply-add as two.

    Nothing that ``work`` touches may require gradients, which the counter would follow.
    """
    from torch.utils.flop_counter import FlopCounterMode

    # Fused attention is counted on GPUs only; as two products it is counted everywhere.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


@contextmanager
def threads(count: int) -> Iterator[None]:
    """That many torch threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def fastest_threads(work: Work, device: torch.device) -> int:
    """The number of torch threads with which ``work`` is fastest: powers of two up to the present one, and that.

    On GPUs the present one; nothing is tried there.
    """
    most = torch.get_num_threads()
    if device.type != "cpu":
        return most
    times = {}
    for count in sorted({*(1 << power for power in range(most.bit_length())), most}):
        with threads(count):
            times[count] = min(seconds_of(work, device) for _ in range(2))
    return min(times, key=lambda count: times[count])


def psnr(frames: Tensor, reference: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of every frame in dB, float64 [n]; both [n, 3, R, R] in 0..1."""
    error = (frames.double() - reference.double()).square().mean((1, 2, 3))
    return (-10 * error.log10()).clamp_max(EQUAL_DB)


class PeakMemory:
    """Peak memory inside the block above what was held at its start, so without the weights of any path.

    On GPUs the allocator's own peak. On CPUs the growth of what the C library has handed out and not got back, read
    every two milliseconds: resident memory would count freed blocks that its heap keeps, in numbers that depend on all
    that ran before. None where the C library does not tell (glibc does from 2.33).
    """

    MEANING = "peak above what was held before, weights not counted; CPUs: growth of allocated memory, sampled"

    _INTERVAL_S = 0.002

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._on_gpu = device.type == "cuda"
        self._ended = threading.Event()
        self._sampler: threading.Thread | None = None
        self._start = self._peak = 0
        self.bytes: int | None = None

    def __enter__(self) -> Self:
        gc.collect()
        if self._on_gpu:
            _synchronize(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
            self._start = torch.cuda.memory_allocated(self._device)
        elif (held := _allocated()) is not None:
            self._start = self._peak = held
            self._sampler = threading.Thread(target=self._sample, daemon=True)
            self._sampler.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._on_gpu:
            self.bytes = torch.cuda.max_memory_allocated(self._device) - self._start
        elif self._sampler is not None:
            self._ended.set()
            self._sampler.join()
            self.bytes = self._peak - self._start

    def _sample(self) -> None:
        while not self._ended.wait(self._INTERVAL_S):
            self._peak = max(self._peak, _allocated() or 0)


class _Mallinfo(ctypes.Structure):
    """``struct mallinfo2`` of glibc's malloc.h."""

    _NAMES = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    _fields_ = [(name, ctypes.c_size_t) for name in _NAMES]


def _allocated() -> int | None:
    """Bytes in use on the heap and in mappings of their own."""
    mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo is None:
        return None
    mallinfo.restype = _Mallinfo
    found = mallinfo()
    return int(found.uordblks + found.hblkhd)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

"""Rendering: the published order of work, the plain batched path, and the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from imtalker.engine.baseline import PublishedRenderer
from imtalker.engine.bench.measure import (
    Measurement,
    PeakMemory,
    best_seconds,
    fastest_threads,
    matrix_rate,
    operations_of,
    psnr,
    threads,
)
from imtalker.engine.bench.options import DTYPES, NetworkOptions
from imtalker.engine.engine import RenderEngine
from imtalker.engine.flips import best_matches
from imtalker.engine.network import RenderNetwork
from imtalker.engine.precision import exact_float32
from imtalker.renderer.renderer import Renderer

SAME_DB = 90.0
"""PSNR that frames of the baseline must reach before it is timed."""
SAME_DB_WITH_FLIPS = 60.0
"""The same for a frame where rounding flipped a best match, which shows in the frame around it."""

_PUBLISHED_FRAMES = {"cpu": 2, "cuda": 16}
"""Frames of a round of the published path: it takes seconds for each on CPUs, and no frame differs from another."""


class BaselineError(Exception):
    """The baseline does not compute what it is compared with."""


@dataclass(frozen=True)
class _Path:
    """One way of rendering the same source and codes."""

    count: int
    """Frames of a round."""
    dtype: torch.dtype
    operations: int
    """Of one frame."""
    pictures: Callable[[], Iterator[Tensor]]
    """float32 [n, 3, R, R] in 0..1, any device."""
    bytes: Callable[[], Iterator[Tensor]]
    """uint8 [n, R, R, 3] on the host: what everyone wants in the end, so this is timed."""
    choices: Callable[[], Tensor | None]
    """Best matches, int64 [count, N], if the renderer has any."""
    threads: int


def bench_render(renderer: Renderer, options: NetworkOptions) -> list[Measurement]:
    """Measured peaks of the types involved, then one row for each path; ratios are to the published one.

    Frames are timed until they are bytes in the host's memory. The published and the plain path run as torch runs
    them by default (with TF32 convolutions on GPUs that have them); reference pictures are made in exact float32.

    Raises BaselineError, before anything is timed, if the published path gives other pictures than the plain one.
    """
    device = torch.device(options.device)
    renderer = renderer.to(device).eval().requires_grad_(False)
    source, codes = _inputs(renderer, options, device)
    published = PublishedRenderer(renderer).requires_grad_(False)
    with exact_float32(device):
        reference = torch.cat(list(_plain(renderer, source, codes, options.batch_size))).cpu()
        expected = best_matches(renderer, source, codes).cpu() if _chooses(renderer) else None
        check_baseline(published, source, codes[:2], reference, expected)
    paths = {
        "published": _published_path(published, source, codes, device),
        "plain": _plain_path(renderer, source, codes, options),
        **_engine_paths(renderer, source, codes, options),
    }
    peaks = {
        dtype: matrix_rate(device, dtype, options.product_size)
        for dtype in dict.fromkeys(path.dtype for path in paths.values())
    }
    names = {dtype: name for name, dtype in DTYPES.items()}
    rows = [Measurement(f"matrix product {names[dtype]}", rate / 1e9, "GFLOP") for dtype, rate in peaks.items()]
    # Looked at first: that also warms every path up.
    looks = {name: _look(path, reference, expected, device) for name, path in paths.items()}
    times = best_seconds(
        {name: partial(_timed, path) for name, path in paths.items()}, rounds=options.rounds, device=device
    )
    base = paths["published"].count / times["published"]
    for name, path in paths.items():
        rate = path.count / times[name]
        found = looks[name]
        rows.append(
            Measurement(
                f"render {name}",
                rate,
                "frames",
                ratio=rate / base,
                threads=path.threads if device.type == "cpu" else None,
                psnr_mean_db=found.values.mean().item(),
                psnr_worst_db=found.values.min().item(),
                flips=found.flips,
                choices=found.choices,
                gflop=path.operations / 1e9,
                peak_share=rate * path.operations / peaks[path.dtype],
                peak_memory_bytes=found.memory,
            )
        )
    return rows


def check_baseline(
    published: PublishedRenderer, source: Tensor, codes: Tensor, reference: Tensor, expected: Tensor | None
) -> None:
    """Compare the baseline's frames with the plain path's, as the golden tests compare both with the published ones.

    source [3, R, R] and codes [n, dim_motion] on the renderer's device; reference [>= n, 3, R, R] and best matches
    [>= n, N] on the CPU. Raises BaselineError.
    """
    kept = published.source(source[None])
    for index, code in enumerate(codes):
        frame, best = published.frame(kept, code[None])
        value = psnr(frame.cpu(), reference[index : index + 1]).item()
        flipped = best is not None and expected is not None and bool((best[0].cpu() != expected[index]).any())
        limit = SAME_DB_WITH_FLIPS if flipped else SAME_DB
        if not value >= limit:
            raise BaselineError(
                f"frame {index} of the published path differs from the plain one: {value:.1f} dB, at least "
                f"{limit:g} dB were expected; speeds would say nothing, so none is measured"
            )


def _inputs(renderer: Renderer, options: NetworkOptions, device: torch.device) -> tuple[Tensor, Tensor]:
    size, draw = renderer.config.resolution, torch.Generator().manual_seed(0)
    source = torch.rand(3, size, size, generator=draw)
    codes = torch.randn(options.frames, renderer.config.dim_motion, generator=draw)
    return source.to(device), codes.to(device)


def _chooses(renderer: Renderer) -> bool:
    """Whether the renderer has levels that follow a best match."""
    return renderer.config.attention_levels < len(renderer.config.channels)


@torch.inference_mode()
def _plain(renderer: Renderer, source: Tensor, codes: Tensor, batch_size: int) -> Iterator[Tensor]:
    prepared = renderer.prepare(source[None])
    for batch in codes.split(batch_size):
        yield renderer.render(prepared, batch)


def _published_path(published: PublishedRenderer, source: Tensor, codes: Tensor, device: torch.device) -> _Path:
    kept = published.source(source[None])
    few = codes[: _PUBLISHED_FRAMES.get(device.type, 2)]

    def pictures() -> Iterator[Tensor]:
        return (published.frame(kept, code[None])[0] for code in few)

    def choices() -> Tensor | None:
        found = [published.frame(kept, code[None])[1] for code in few]
        return torch.cat([best for best in found if best is not None]) if found[0] is not None else None

    return _Path(
        len(few),
        torch.float32,
        operations_of(lambda: published.frame(kept, codes[:1])),
        pictures,
        partial(_as_bytes, pictures),
        choices,
        fastest_threads(lambda: published.frame(kept, codes[:1]), device),
    )


def _plain_path(renderer: Renderer, source: Tensor, codes: Tensor, options: NetworkOptions) -> _Path:
    with torch.inference_mode():
        prepared = renderer.prepare(source[None])

    @torch.inference_mode()
    def one() -> Tensor:
        return renderer.render(prepared, codes[:1])

    @torch.inference_mode()
    def pictures() -> Iterator[Tensor]:
        for batch in codes.split(options.batch_size):
            yield renderer.render(prepared, batch)

    return _Path(
        len(codes),
        torch.float32,
        operations_of(one),
        pictures,
        partial(_as_bytes, pictures),
        lambda: best_matches(renderer, source, codes) if _chooses(renderer) else None,
        torch.get_num_threads(),
    )


def _engine_paths(renderer: Renderer, source: Tensor, codes: Tensor, options: NetworkOptions) -> dict[str, _Path]:
    operations = _engine_operations(renderer, source, codes)
    paths = {}
    for name in options.precisions:
        for compile_ in (False, True) if options.compile else (False,):
            engine = RenderEngine(
                renderer,
                device=source.device,
                dtype=DTYPES[name],
                batch_size=options.batch_size,
                compile=compile_,
            )
            prepared = engine.prepare(source)
            paths[f"engine {name}{' compiled' if compile_ else ''}"] = _Path(
                len(codes),
                DTYPES[name],
                operations,
                partial(engine.frames, prepared, codes),
                partial(engine.render, prepared, codes),
                partial(engine.best_matches, prepared, codes) if _chooses(renderer) else lambda: None,
                torch.get_num_threads(),
            )
    return paths


@torch.inference_mode()
def _engine_operations(renderer: Renderer, source: Tensor, codes: Tensor) -> int:
    """Of one frame. Counted on the CPU and unpacked: packed and fused kernels are not seen by the counter."""
    network = RenderNetwork(renderer, torch.device("cpu"), torch.float32, pack=False)
    prepared = network.prepare(source.cpu())
    return operations_of(lambda: network.pictures(codes[:1].cpu(), prepared.identity, prepared.tables))


def _as_bytes(pictures: Callable[[], Iterator[Tensor]]) -> Iterator[Tensor]:
    """Quantised as published."""
    for batch in pictures():
        yield batch.mul(255).byte().permute(0, 2, 3, 1).cpu()


def _timed(path: _Path) -> None:
    with threads(path.threads):
        for _ in path.bytes():
            pass


@dataclass(frozen=True)
class _Look:
    values: Tensor
    """PSNR of every frame."""
    flips: int | None
    choices: int | None
    memory: int | None


def _look(path: _Path, reference: Tensor, expected: Tensor | None, device: torch.device) -> _Look:
    """Everything about a path but its time."""
    with PeakMemory(device) as memory:
        _timed(path)
    values = psnr(torch.cat([batch.cpu() for batch in path.pictures()]), reference[: path.count])
    found = path.choices()
    if found is None or expected is None:
        return _Look(values, None, None, memory.bytes)
    flips = int((found.cpu() != expected[: path.count]).sum())
    return _Look(values, flips, found.numel(), memory.bytes)

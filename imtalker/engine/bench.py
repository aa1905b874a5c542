"""How fast the networks are, as ratios in one process: the published order of work, the plain batched path, the engine.

``python -m imtalker.engine.bench`` needs only torch, transformers and safetensors. Weights are seeded stand-ins of the
chosen preset's sizes, inputs are made here, so that nothing has to be fetched. Rounds alternate between the paths,
and each path's best round counts: machines are shared, and what disturbs a measurement only ever makes it slower.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from imtalker.audio.waveform import normalise
from imtalker.engine.baseline import PublishedRenderer
from imtalker.engine.engine import RenderEngine
from imtalker.generator.generator import MotionGenerator
from imtalker.presets import find_preset
from imtalker.renderer.renderer import Renderer
from imtalker.seeded import seeded_state_dict

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Measurement:
    """One line of the table."""

    name: str
    rate: float
    """``unit`` a second, best round."""
    unit: str
    ratio: float | None = None
    """``rate`` by the first line's of its group."""
    psnr_mean_db: float | None = None
    psnr_worst_db: float | None = None
    """Against the plain path in float32; None for that path itself, infinite where every value is equal."""
    peak_memory_bytes: int | None = None
    """Of the device's allocator; None on CPUs."""
    peak_share: float | None = None
    """Floating-point operations a second by the device's measured matrix-product rate."""


def matrix_rate(device: torch.device, dtype: torch.dtype, size: int = 2048) -> float:
    """Floating-point operations a second of a large matrix product, best of five."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = min(_seconds(lambda: a @ b, device) for _ in range(5))
    return 2 * size**3 / best


def bench_render(
    renderer: Renderer, *, device: torch.device, precisions: list[str], frames: int, batch_size: int, rounds: int
) -> list[Measurement]:
    """The three paths on the same source and motion codes; the published one only on as many frames as it needs."""
    size, width = renderer.config.resolution, renderer.config.dim_motion
    draw = torch.Generator().manual_seed(0)
    source = torch.rand(3, size, size, generator=draw)
    codes = torch.randn(frames, width, generator=draw)
    renderer = renderer.to(device).eval().requires_grad_(False)
    published = PublishedRenderer(renderer)
    kept = published.source(source[None].to(device))
    # The counter can't look at inference tensors.
    with torch.no_grad():
        plain_source = renderer.prepare(source[None].to(device))
        with FlopCounterMode(display=False) as counter:
            renderer.render(plain_source, codes[:1].to(device))
    operations = counter.get_total_flops()

    @torch.inference_mode()
    def plain() -> Iterator[Tensor]:
        for batch in codes.to(device).split(batch_size):
            yield renderer.render(plain_source, batch)

    few = codes[: max(1, min(frames, 2))].to(device)
    paths: dict[str, tuple[int, torch.dtype, Callable[[], Iterator[Tensor]]]] = {
        "published": (len(few), torch.float32, lambda: (published.frame(kept, code[None])[0] for code in few)),
        "plain": (frames, torch.float32, plain),
    }
    for name in precisions:
        engine = RenderEngine(renderer, device=device, dtype=DTYPES[name], batch_size=batch_size)
        prepared = engine.prepare(source)
        paths[f"engine {name}"] = (frames, DTYPES[name], lambda e=engine, p=prepared: e.frames(p, codes))  # type: ignore[misc]

    reference = torch.cat([batch.cpu() for batch in plain()])
    times: dict[str, list[float]] = {name: [] for name in paths}
    memory = dict.fromkeys(paths, 0)
    for _ in range(rounds):
        for name, (_, _, path) in paths.items():
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            times[name].append(_seconds(lambda path=path: [None for _ in path()], device))  # type: ignore[misc]
            if device.type == "cuda":
                memory[name] = max(memory[name], torch.cuda.max_memory_allocated(device))
    peaks = {dtype: matrix_rate(device, dtype) for _, dtype, _ in paths.values()}
    base = len(few) / min(times["published"])
    found = []
    for name, (count, dtype, path) in paths.items():
        rate = count / min(times[name])
        mean, worst = (None, None) if name == "plain" else psnr(torch.cat([b.cpu() for b in path()]), reference[:count])
        share = rate * operations / peaks[dtype]
        found.append(
            Measurement(f"render {name}", rate, "frames", rate / base, mean, worst, memory[name] or None, share)
        )
    return found


def bench_generator(
    generator: MotionGenerator, *, device: torch.device, seconds: float, rounds: int
) -> list[Measurement]:
    """Audio features and guided motion, one item, in seconds of audio a second."""
    generator = generator.to(device).eval()
    waveform = normalise(torch.randn(1, int(seconds * 16_000), generator=torch.Generator().manual_seed(0))).to(device)
    reference = torch.randn(1, generator.config.dim_motion, generator=torch.Generator().manual_seed(1)).to(device)
    with torch.inference_mode():
        features = generator.encode_audio(waveform)
        audio = min(_seconds(lambda: generator.encode_audio(waveform), device) for _ in range(rounds))
        motion = min(
            _seconds(lambda: generator.sample_from_features(features, reference), device) for _ in range(rounds)
        )
    return [
        Measurement("audio encoder", seconds / audio, "seconds of audio"),
        Measurement("motion generator", seconds / motion, "seconds of audio"),
    ]


def psnr(frames: Tensor, reference: Tensor) -> tuple[float, float]:
    """Mean and worst frame's peak signal-to-noise ratio in dB; both [n, 3, R, R] in 0..1."""
    error = (frames.double() - reference.double()).square().mean((1, 2, 3))
    values = -10 * error.log10()
    return values.mean().item(), values.min().item()


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def measure(
    model: str, *, device: str, precisions: list[str], frames: int, batch_size: int, seconds: float, rounds: int
) -> list[Measurement]:
    """Everything that needs the networks alone. Raises ValueError for an unknown preset."""
    preset, place = find_preset(model), torch.device(device)
    renderer = Renderer(preset.renderer)
    renderer.load_state_dict(seeded_state_dict(renderer.state_dict(), preset.seed))
    found = bench_render(
        renderer, device=place, precisions=precisions, frames=frames, batch_size=batch_size, rounds=rounds
    )
    del renderer
    generator = MotionGenerator(preset.generator)
    generator.load_state_dict(seeded_state_dict(generator.state_dict(), preset.seed))
    return found + bench_generator(generator, device=place, seconds=seconds, rounds=rounds)


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def table(found: list[Measurement]) -> str:
    """The measurements for people, one line each."""
    lines = [f"{'':<26}{'rate':>10}  {'':<18}{'ratio':>7}{'mean dB':>9}{'worst dB':>9}{'of peak':>9}{'memory':>10}"]
    for m in found:
        numbers = "".join(
            f"{'' if value is None else format(value, '.1f'):>{width}}"
            for value, width in ((m.ratio, 7), (m.psnr_mean_db, 9), (m.psnr_worst_db, 9))
        )
        share = "" if m.peak_share is None else f"{100 * m.peak_share:.0f} %"
        memory = "" if m.peak_memory_bytes is None else f"{m.peak_memory_bytes / 2**20:.0f} MiB"
        lines.append(f"{m.name:<26}{m.rate:>10.2f}  {m.unit + '/s':<18}{numbers}{share:>9}{memory:>10}")
    return "\n".join(lines)


def main() -> None:
    """The networks' benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="imtalker")
    parser.add_argument("--device", default=default_device())
    parser.add_argument("--precision", nargs="+", choices=DTYPES, default=["float32", "bfloat16"])
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=4.0, help="of audio")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = measure(
        given.model,
        device=given.device,
        precisions=given.precision,
        frames=given.frames,
        batch_size=given.batch_size,
        seconds=given.seconds,
        rounds=given.rounds,
    )
    sys.stdout.write(json.dumps([asdict(m) for m in found], indent=1) if given.json else table(found))
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()

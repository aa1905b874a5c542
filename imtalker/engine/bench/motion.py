"""Audio encoder and motion generator, in seconds of audio a second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from imtalker.audio.waveform import normalise
from imtalker.engine.audio import AudioBatches
from imtalker.engine.bench.measure import Measurement, PeakMemory, best_seconds, operations_of
from imtalker.engine.bench.options import NetworkOptions
from imtalker.engine.sampler import MotionItem, MotionSampler
from imtalker.generator.generator import MotionGenerator


@dataclass(frozen=True)
class MotionPath:
    """One way of making features or motion."""

    name: str
    seconds: float
    """Of audio, that one call works through."""
    work: Callable[[], object]
    compared_with: str
    """The path whose rate is this one's ratio 1; its own name for a baseline."""


def bench_motion(generator: MotionGenerator, options: NetworkOptions) -> list[Measurement]:
    """One row for each of `motion_paths`; ratios are to the path that each names."""
    device = torch.device(options.device)
    generator = generator.to(device).eval().requires_grad_(False)
    paths = motion_paths(generator, *_inputs(generator, options, device))
    looks = {}
    with torch.inference_mode():
        for path in paths:
            with PeakMemory(device) as memory:
                path.work()
            looks[path.name] = operations_of(path.work) / path.seconds / 1e9, memory.bytes
        times = best_seconds({path.name: path.work for path in paths}, rounds=options.rounds, device=device)
    rates = {path.name: path.seconds / times[path.name] for path in paths}
    return [
        Measurement(
            path.name,
            rates[path.name],
            "seconds of audio",
            ratio=rates[path.name] / rates[path.compared_with],
            threads=torch.get_num_threads() if device.type == "cpu" else None,
            gflop=looks[path.name][0],
            peak_memory_bytes=looks[path.name][1],
        )
        for path in paths
    ]


def motion_paths(generator: MotionGenerator, waveforms: Tensor, references: Tensor) -> list[MotionPath]:
    """What is measured: each network alone, then both, one item after the other as published and all together.

    waveforms [B, N], normalised, and references [B, dim_motion], on the generator's device. Guidance is the default,
    so that the pair with and without audio is in the batch, as published.
    """
    items, seconds = len(waveforms), waveforms.shape[1] / generator.config.sampling_rate
    features = generator.encode_audio(waveforms[:1])

    def one_by_one() -> None:
        for waveform, reference in zip(waveforms.split(1), references.split(1), strict=True):
            generator.sample(waveform, reference)

    device = waveforms.device
    audio = AudioBatches(generator, device=device, rows=items)
    sampler = MotionSampler(generator, device=device, rows=items)

    def in_flight() -> None:
        heard = audio.encode(list(waveforms))
        given = zip(heard, references, strict=True)
        sampler.sample([MotionItem(features, reference, seed) for seed, (features, reference) in enumerate(given)])

    sequential = "audio and motion, one by one"
    return [
        MotionPath("audio encoder", seconds, lambda: generator.encode_audio(waveforms[:1]), "audio encoder"),
        MotionPath(
            "motion generator",
            seconds,
            lambda: generator.sample_from_features(features, references[:1]),
            "motion generator",
        ),
        MotionPath(sequential, items * seconds, one_by_one, sequential),
        MotionPath(f"audio and motion, {items} in flight", items * seconds, in_flight, sequential),
    ]


def _inputs(generator: MotionGenerator, options: NetworkOptions, device: torch.device) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    samples = round(options.audio_seconds * generator.config.sampling_rate)
    waveforms = normalise(torch.randn(options.in_flight, samples, generator=draw))
    references = torch.randn(options.in_flight, generator.config.dim_motion, generator=draw)
    return waveforms.to(device), references.to(device)

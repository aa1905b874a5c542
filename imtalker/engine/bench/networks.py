"""The networks' benchmark: everything that needs torch, transformers and safetensors alone."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import torch

from imtalker.engine.bench.measure import Measurement, threads
from imtalker.engine.bench.motion import bench_motion
from imtalker.engine.bench.options import NetworkOptions
from imtalker.engine.bench.render import bench_render
from imtalker.generator.generator import MotionGenerator
from imtalker.presets import Preset, build_seeded, find_preset
from imtalker.renderer.renderer import Renderer

NETWORK_PARTS = ("render", "motion")


def stand_ins(preset: Preset) -> tuple[Renderer, MotionGenerator]:
    """Both networks in the preset's sizes with seeded weights, so that nothing has to be fetched."""
    return build_seeded(replace(preset, weights="seeded"))


def measure_networks(options: NetworkOptions, only: Collection[str] = NETWORK_PARTS) -> list[Measurement]:
    """The rows of those of `NETWORK_PARTS` that are in ``only``.

    Raises ValueError for an unknown preset, `BaselineError` if the baseline gives other pictures than the plain path.
    """
    preset = find_preset(options.model)
    with threads(options.threads or torch.get_num_threads()):
        renderer, generator = stand_ins(preset)
        rows = bench_render(renderer, options) if "render" in only else []
        del renderer
        if "motion" in only:
            rows += bench_motion(generator, options)
        del generator
    if options.device == "cuda":
        # What comes next has processes of its own on the same GPU.
        torch.cuda.empty_cache()
    return rows

"""Rows for people and for programs, and what they were measured on."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from imtalker.engine.bench.measure import Measurement, PeakMemory
from imtalker.engine.bench.options import NetworkOptions


def environment(options: NetworkOptions) -> dict[str, Any]:
    """The machine, what else runs on it (``load``, processes of the last minute), the libraries and the sizes."""
    return {
        **asdict(options),
        "matrix_size": options.product_size,
        "weights": "random",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "threads": options.threads or torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if options.device == "cuda" else None,
        "tf32_convolutions": options.device == "cuda" and torch.backends.cudnn.allow_tf32,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "peak_memory": PeakMemory.MEANING,
    }


def document(facts: Mapping[str, Any], rows: Sequence[Measurement]) -> dict[str, Any]:
    """For programs."""
    return {"environment": dict(facts), "rows": [asdict(row) for row in rows]}


def table(facts: Mapping[str, Any], rows: Sequence[Measurement]) -> str:
    """For people: the environment, then one line for each row."""
    lines = [f"{name.replace('_', ' '):<22}{_plain(value)}" for name, value in facts.items() if value is not None]
    width = max(len(row.name) for row in rows) + 2
    heads = ("ratio", "mean dB", "worst dB", "flips", "GFLOP", "of peak", "memory", "waited", "threads")
    lines += ["", " " * width + f"{'rate':>10}  {'':<20}" + "".join(f"{head:>10}" for head in heads)]
    for row in rows:
        cells = (
            _number(row.ratio, ".2f"),
            _number(row.psnr_mean_db, ".1f"),
            _number(row.psnr_worst_db, ".1f"),
            _number(row.flips, "d"),
            _number(row.gflop, ".4g"),
            _share(row.peak_share),
            "" if row.peak_memory_bytes is None else f"{row.peak_memory_bytes / 2**20:.0f} MiB",
            _share(row.waited_share),
            _number(row.threads, "d"),
        )
        lines.append(
            f"{row.name:<{width}}{row.rate:>10.4g}  {row.unit + '/s':<20}" + "".join(f"{cell:>10}" for cell in cells)
        )
    return "\n".join(line.rstrip() for line in lines)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f} %"


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _processor() -> str:
    """Its name where Linux tells, else the architecture."""
    facts = Path("/proc/cpuinfo")
    names = [line for line in facts.read_text().splitlines() if line.startswith("model name")] if facts.exists() else []
    return names[0].partition(":")[2].strip() if names else platform.machine()

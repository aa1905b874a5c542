"""Which columns of the results are numbers to look at, in which unit, and which way is better."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from pipeline.ledger import STAGES
from pipeline.metrics.catalogue import BY_NAME
from pipeline.records.row import RESULTS_SCHEMA
from pipeline.report.source import Source

Group = Literal["quality", "files", "speed", "yours"]
Better = Literal["higher", "lower"]

GROUPS: dict[Group, str] = {
    "quality": "Quality",
    "files": "Videos",
    "speed": "Speed and resources",
    "yours": "Columns of the manifest",
}

VIDEO_RATE = "video_kbit_per_s"
"""Column that the report adds: size of the MP4 by its length. A picture that is black or frozen takes few bits."""

_FILES = ("duration_s", "size_bytes", VIDEO_RATE, "faces_seen", "attempts")
_SPEED = (
    "real_time_factor",
    "render_fps",
    *(f"{stage}_s" for stage in STAGES),
    "encode_s",
    *(f"{stage}_cpu_s" for stage in STAGES),
    *(f"{stage}_gpu_s" for stage in STAGES),
    "cpu_s",
    "gpu_s",
    "cost",
    "peak_memory_bytes",
    "metrics_s",
)
_NOT_MEASURED = frozenset({"seed", "cfg_scale", "nfe", "frames", "metrics_version", "codes_checked"})
"""What was asked for or says how it was measured, and what another column says in seconds."""

_UNITS = {"s": "s", "ms": "ms", "bytes": "bytes", "fps": "frames/s", "db": "dB", "deg": "degrees", "px": "pixels"}
_UNITS |= {"frames": "frames", "kbit_per_s": "kbit/s", "percent": "%"}

_HIGHER = ("psnr", "ssim", "csim", "correlation", "confidence", "render_fps")
_LOWER = ("lpips", "distance", "flicker", "jitter", "real_time_factor", "cost", "attempts")


@dataclass(frozen=True)
class Column:
    """A column of numbers."""

    name: str
    group: Group

    @property
    def unit(self) -> str:
        """As the metrics' catalogue says, for other columns by the end of the name; empty for a plain number."""
        if (metric := BY_NAME.get(self.name)) is not None:
            return metric.unit
        ends = (end for end in _UNITS if self.name.endswith(f"_{end}"))
        return _UNITS.get(max(ends, key=len, default=""), "")

    @property
    def better(self) -> Better | None:
        """As the metrics' catalogue says, for other columns by words in the name.

        None: far from the others is odd either way.
        """
        if (metric := BY_NAME.get(self.name)) is not None:
            return metric.better if metric.better in ("higher", "lower") else None
        if any(word in self.name for word in _HIGHER):
            return "higher"
        return "lower" if any(word in self.name for word in _LOWER) else None

    @property
    def judges(self) -> bool:
        """Whether an unusual value is a reason to look at the item."""
        return self.group == "quality" or self.name == VIDEO_RATE


def numeric_columns(source: Source) -> Iterator[tuple[Column, np.ndarray]]:
    """Every column of numbers that has any, by groups, and its values: float64, NaN where there is none.

    Columns that a run fills and that no list here names are metrics of quality.
    """
    found: dict[str, Column] = {}
    for field in source.table.schema:
        kind = field.type
        number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
        if number and field.name not in _NOT_MEASURED:
            found[field.name] = Column(field.name, _group(field.name))
    values = {name: _floats(source.table.column(name)) for name in found}
    if {"duration_s", "size_bytes"} <= found.keys():
        found[VIDEO_RATE] = Column(VIDEO_RATE, "files")
        with np.errstate(divide="ignore", invalid="ignore"):
            values[VIDEO_RATE] = values["size_bytes"] * 8e-3 / values["duration_s"]
    order = {name: at for at, name in enumerate((*_FILES, *_SPEED))}
    for group in GROUPS:
        members = [column for column in found.values() if column.group == group]
        for column in sorted(members, key=lambda column: order.get(column.name, -1)):
            if np.isfinite(values[column.name]).any():
                yield column, values[column.name]


def _group(name: str) -> Group:
    if name in _FILES:
        return "files"
    if name in _SPEED:
        return "speed"
    return "quality" if name in RESULTS_SCHEMA.names else "yours"


def _floats(column: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)

"""All parts in one process, one after the other, and the whole against their sum."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from imtalker.engine.bench.measure import Measurement
from imtalker.engine.bench.networks import measure_networks
from imtalker.engine.bench.render import BaselineError
from imtalker.engine.bench.report import document, environment, table
from pipeline.bench.media import bench_media
from pipeline.bench.options import BenchOptions
from pipeline.bench.scaling import bench_scaling
from pipeline.bench.whole import ENCODE, WholeRun, run_whole
from pipeline.errors import CannotRun


def measure(options: BenchOptions) -> tuple[dict[str, Any], list[Measurement]]:
    """What it was measured on, and a row for everything in ``options.only``.

    Raises CannotRun when the paths that are compared do not give the same pictures, and when the whole fails.
    """
    facts = environment(options.networks)
    try:
        rows = measure_networks(options.networks, options.only)
    except BaselineError as exc:
        raise CannotRun(str(exc)) from exc
    rows += bench_media(options)
    if "whole" in options.only:
        whole = run_whole(options)
        facts |= whole_facts(whole, options)
        rows += whole_rows(whole, rows, options.run_precision)
    if "scaling" in options.only:
        rows += bench_scaling()
    return facts, rows


def report(facts: Mapping[str, Any], rows: Sequence[Measurement], *, as_json: bool) -> str:
    """The measurement as JSON, or as a table for people."""
    return json.dumps(document(facts, rows), indent=1) if as_json else table(facts, rows)


def whole_facts(whole: WholeRun, options: BenchOptions) -> dict[str, Any]:
    """What `environment` holds besides when the whole pipeline was measured."""
    return {
        "whole_executor": whole.executor,
        "whole_precision": options.run_precision,
        "whole_items": options.items,
        "whole_item_seconds": options.item_seconds,
        "whole_frames": whole.frames,
        "whole_steady_s": round(whole.steady_s, 3),
        "whole_startup_s": round(whole.startup_s, 3),
    }


def whole_rows(whole: WholeRun, alone: Sequence[Measurement], precision: str) -> list[Measurement]:
    """The whole pipeline, what its parts ``alone`` make expect of it, and its stages.

    Every ratio is to the render ceiling: the engine alone in the run's precision, ``render engine <precision>``.
    Ratio and expectation need those rows in ``alone``; without them they are left out. A stage's rate is that of
    one actor while it is busy.
    """
    rates = {row.name: row.rate for row in alone}
    ceiling = rates.get(f"render engine {precision}")

    def row(name: str, rate: float) -> Measurement:
        return Measurement(name, rate, "frames", ratio=rate / ceiling if ceiling else None)

    rows = [
        row("whole pipeline", whole.frames / whole.steady_s),
        row("whole pipeline, videos phase", whole.frames / whole.windows_s["render"]),
    ]
    if parts := _parts_seconds(whole, rates, precision):
        rows.append(row("sum of the parts, in turn", whole.frames / sum(parts)))
        rows.append(row("sum of the parts, overlapped", whole.frames / max(parts)))
    for use in whole.uses:
        in_frames = use.stage in ("render", ENCODE)
        amount, unit = (whole.frames, "frames") if in_frames else (use.tasks, _UNITS[use.stage])
        rows.append(Measurement(f"stage {use.stage}", amount / use.busy_s, unit, waited_share=use.waited_share))
    return rows


_UNITS = {"crop": "files", "features": "files", "motion": "items"}


def _parts_seconds(whole: WholeRun, rates: dict[str, float], precision: str) -> list[float]:
    """Seconds that each part alone would take for the run's work; empty unless all parts were measured."""
    amounts = {
        "crop": whole.portraits,
        "decode audio": whole.audio_s,
        "audio encoder": whole.audio_s,
        "motion generator": whole.audio_s,
        f"render engine {precision}": whole.frames,
        "encode": whole.frames,
    }
    if not amounts.keys() <= rates.keys():
        return []
    return [amount / rates[name] for name, amount in amounts.items()]

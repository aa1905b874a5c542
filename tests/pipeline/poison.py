"""What broken items cost the good ones: runs with 1 % of poison against equal runs without, in turns.

``python -m tests.pipeline.poison`` prints what ``docs/operations.md`` tells of. Everything is real (Ray, the stages,
decoders that crash and hang, files, records) but the GPU: a renderer holds its device for so long as a real one would.
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from pipeline.config import InputLimits, RunSettings
from pipeline.execute import Context, Executor
from pipeline.on_ray import on_ray
from pipeline.stages.render import RenderStage
from pipeline.tasks import ItemTask
from tests import faulty_decoder
from tests.faults import FAULTY, FaultyDecoders, with_faults
from tests.runs import DEMO, TINY, demo, results, run_manifest, write_manifest

GPU_S = 0.75
"""For how long each item has the device."""
HANG_S = 3.0
"""After which a decoder that hangs is killed: four times an item's work, as 60 s are of an item of 15 s."""
KINDS = ("cut short", "decoder crashes", "decoder hangs", "decoder crashes late", "kills its worker")
"""What may be wrong with an item."""


class SimulatedRender(FaultyDecoders, RenderStage):
    """Has the device for a while with each item, and dies of some; its decoders are faulty too."""

    def process(self, task: ItemTask) -> None:
        if task.key.startswith("kills"):
            os.kill(os.getpid(), signal.SIGKILL)
        super().process(task)

    @contextmanager
    def _turn(self, task: ItemTask) -> Iterator[None]:
        with super()._turn(task):
            time.sleep(GPU_S)
            yield


@dataclass(frozen=True)
class Outcome:
    """Of one run."""

    good: int
    failed: dict[str, str]
    seconds: float
    """From the first good video to the last, so that loading and planning are no part of it."""

    @property
    def rate(self) -> float:
        """Good videos a second."""
        return (self.good - 1) / self.seconds


def rows_of(folder: Path, count: int, poison: Sequence[str]) -> list[dict[str, Any]]:
    """``count`` good rows, and one for each of ``poison`` evenly between them; every row has a recording of its own."""
    sound = (DEMO / "english.wav").read_bytes()
    words = {
        "decoder crashes": faulty_decoder.CRASHES,
        "decoder hangs": faulty_decoder.HANGS,
        "decoder crashes late": faulty_decoder.CRASHES_LATE,
    }
    rows = []
    for number in range(count):
        path = folder / f"good-{number}.wav"
        path.write_bytes(sound + number.to_bytes(4, "big"))
        rows.append({"id": f"good-{number}", "image": demo("ana.png"), "audio": str(path)})
    for number, kind in enumerate(poison):
        path = folder / f"poison-{number}.wav"
        content = sound[:20] if kind == "cut short" else sound + words.get(kind, b"") + number.to_bytes(4, "big")
        path.write_bytes(content)
        name = f"{kind.split()[0]}-{number}"
        at = (2 * number + 1) * count // (2 * len(poison)) + number
        rows.insert(at, {"id": name, "image": demo("ana.png"), "audio": str(path)})
    return rows


def measured(count: int, poison: Sequence[str]) -> Outcome:
    """One run on a Ray of its own."""
    limits = InputLimits(decode_floor_s=HANG_S)
    settings: RunSettings = TINY.model_copy(update={"limits": limits, "max_seconds": 0.12, "metrics": "off"})

    @contextmanager
    def simulated(context: Context) -> Iterator[Executor]:
        with on_ray(context) as executor:
            yield with_faults(executor, FAULTY | {RenderStage: SimulatedRender})

    with TemporaryDirectory(prefix="imtalker-poison-") as name:
        folder = Path(name)
        manifest = write_manifest(folder, rows_of(folder, count, poison))
        run_manifest(manifest, folder / "out", settings, executor=simulated)
        made = sorted(path.stat().st_mtime for path in (folder / "out" / "videos").iterdir())
        failed = {id: row["error_message"] for id, row in results(folder / "out").items() if row["status"] != "ok"}
    return Outcome(len(made), failed, made[-1] - made[0])


def table(count: int, poison: Sequence[str], rounds: int) -> str:
    """As Markdown: rates of both in each round, and what is lost by the medians."""
    lines = ["| round | good videos a second | with poison | lost |", "|---|---|---|---|"]
    pairs = [(measured(count, ()), measured(count, poison)) for _ in range(rounds)]
    for clean, spoilt in pairs:
        if (clean.good, spoilt.good, len(spoilt.failed)) != (count, count, len(poison)):
            raise SystemExit(f"expected {count} good items and {len(poison)} failed ones: {clean}, {spoilt}")
    for number, (clean, spoilt) in enumerate(pairs, 1):
        lines.append(_row(str(number), clean.rate, spoilt.rate))
    rates = [median(outcome.rate for outcome in side) for side in zip(*pairs, strict=True)]
    failures = "\n".join(f"- {id}: {message}" for id, message in pairs[-1][1].failed.items())
    return "\n".join([*lines, _row("median", *rates), "", failures])


def _row(name: str, clean: float, spoilt: float) -> str:
    return f"| {name} | {clean:.4f} | {spoilt:.4f} | {100 * (1 - spoilt / clean):.2f} % |"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kinds", default=",".join(KINDS[:4]), help=f"with commas, of: {', '.join(KINDS)}")
    chosen = parser.parse_args()
    kinds = chosen.kinds.split(",")
    poison = [kinds[number % len(kinds)] for number in range(chosen.items // 100)]
    print(table(chosen.items, poison, chosen.rounds))  # noqa: T201  (a script's output)


if __name__ == "__main__":
    main()

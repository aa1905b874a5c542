"""Progress for people, on stderr: bars on a terminal, one line an interval elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pipeline.accounting.price import cost_line
from pipeline.accounting.stage_times import stage_lines
from pipeline.summary import RunSummary


class ConsoleProgress:
    """While it is entered, bars where the console is a terminal; lines that stay go between them."""

    def __init__(self, console: Console, *columns: ProgressColumn) -> None:
        """``columns`` come before the time that has passed and the time that is left."""
        self._console, self._columns = console, columns
        self._bars: Progress | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            times = TimeElapsedColumn(), TimeRemainingColumn()
            self._bars = Progress(*self._columns, *times, console=self._console)
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def say(self, text: str) -> None:
        """One line that stays."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


class RunProgress(ConsoleProgress):
    """Counts of one phase at a time: items and, where they are known, frames."""

    def __init__(self, console: Console, interval_s: float) -> None:
        task, rate = TextColumn("{task.description:<22}"), TextColumn("{task.fields[rate]:>14}")
        super().__init__(console, SpinnerColumn(), task, BarColumn(), MofNCompleteColumn(), rate)
        self._interval_s = interval_s
        self._items: TaskID | None = None
        self._frames: TaskID | None = None
        self._phase = ""
        self._reset()

    def _reset(self) -> None:
        self._total = self._done = self._failed = 0
        self._frames_total = self._frames_done = 0
        self._started = self._said = time.monotonic()

    def begin(self, phase: str, total: int, frames: int = 0) -> None:
        """Start a phase of ``total`` items that have ``frames`` frames together (0: unknown)."""
        self._reset()
        self._phase, self._total, self._frames_total = phase, total, frames
        if self._bars is not None:
            self._items = self._bars.add_task(phase, total=total, rate="")
            self._frames = self._bars.add_task(f"{phase} (frames)", total=frames, rate="") if frames else None
        elif total:
            self.say(f"{phase}: 0/{total}")

    def advance(self, *, failed: bool = False, frames: int = 0) -> None:
        """One item is through, with so many frames made."""
        self._done += 1
        self._failed += failed
        self._frames_done += frames
        now = time.monotonic()
        elapsed = max(now - self._started, 1e-6)
        if self._bars is not None:
            assert self._items is not None  # noqa: S101  (begin was called)
            self._bars.update(self._items, completed=self._done, rate=f"{self._done / elapsed:.2f} items/s")
            if self._frames is not None:
                rate = f"{self._frames_done / elapsed:.1f} frames/s"
                self._bars.update(self._frames, completed=self._frames_done, rate=rate)
        elif now - self._said >= self._interval_s or self._done == self._total:
            self._said = now
            self.say(self._line(elapsed))

    def _line(self, elapsed: float) -> str:
        parts = [f"{self._phase}: {self._done}/{self._total}"]
        if self._failed:
            parts.append(f"{self._failed} failed")
        if self._frames_done:
            parts.append(f"{self._frames_done} frames, {self._frames_done / elapsed:.1f} frames/s")
        # Frames tell the time left better than items do: items differ in length.
        if self._frames_total and self._frames_done:
            share = self._frames_done / self._frames_total
        else:
            share = self._done / self._total
        if 0 < share < 1:
            parts.append(f"about {elapsed / share - elapsed:.0f} s left")
        return ", ".join(parts)


def summary_lines(summary: RunSummary) -> list[str]:
    """The end of a run, for people."""
    counts = (
        f"{summary.ok} ok ({summary.reused} from an earlier run), {summary.failed} failed, {summary.skipped} skipped"
    )
    lines = [f"items    {summary.rows}: {counts}"]
    for failure in summary.first_failures:
        kind = f"{failure['kind']} error in {failure['stage']}"
        lines.append(f"         {failure['id']}: {kind}: {failure['message']} ({failure['hint']})")
    if summary.failed > len(summary.first_failures):
        lines.append(f"         ... and {summary.failed - len(summary.first_failures)} more")
    rate = summary.frames / summary.seconds if summary.seconds else 0.0
    lines.append(f"made     {summary.frames} frames in {summary.seconds:.1f} s ({rate:.1f} frames/s)")
    cache = summary.cache
    if cache.files or cache.dropped:
        dropped = f"{sum(cache.dropped.values())} dropped ({cache.dropped_bytes / 1e6:.1f} MB)"
        lines.append(f"cache    {cache.files} results kept ({cache.size_bytes / 1e6:.1f} MB), {dropped}")
    if summary.copied:
        lines.append(f"copied   {summary.copied} videos that were there under another id or another request")
    lines += [f"stage    {line}" for line in stage_lines(summary.stages)]
    if summary.cost:
        lines.append(f"cost     {cost_line(summary.cost)}")
    if summary.results:
        lines += [f"videos   {summary.output}/videos", f"results  {summary.results}"]
    if summary.weights == "random" and summary.frames:
        lines.append("note     this model's weights are random stand-ins: the videos show no face")
    if summary.signature and summary.signature["untrusted"] and (summary.frames or summary.copied):
        lines.append("note     the videos are signed by a throw-away certificate, which nobody has reason to trust")
    return lines


def stderr_console() -> Console:
    return Console(file=sys.stderr)

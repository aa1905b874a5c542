"""Parts of long items: rendered apart, by any of the actors, and joined without encoding anything again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing

from pipeline.accounting.usage import RENDER
from pipeline.config import RunSettings
from pipeline.execute import Beside, Executor
from pipeline.media.encode import segment_frames
from pipeline.retry import Retries
from pipeline.stages.base import Stage
from pipeline.tasks import ItemTask, Part, Worker


def part_ranges(frames: int, most: int, segment: int) -> list[tuple[int, int]]:
    """(first frame, count) of the parts of a video: whole closed segments of ``segment`` frames, but for the last.

    None has more than ``most`` frames, unless a single segment has; and they are as many as that takes, and as
    equal in length as segments allow.
    """
    segments, at_most = -(-frames // segment), max(most // segment, 1)
    count = -(-segments // at_most)
    edges = [segments * index // count * segment for index in range(count)]
    return [(first, min(end, frames) - first) for first, end in zip(edges, [*edges[1:], frames], strict=True)]


def split(item: ItemTask, settings: RunSettings, fps: int) -> list[ItemTask]:
    """The item itself, or a task for each of its parts if it is longer than ``resources.render.split_seconds``."""
    seconds = settings.resources.render.split_seconds
    if item.error is not None or item.frames is None or seconds is None or item.frames <= seconds * fps:
        return [item]
    ranges = part_ranges(item.frames, int(seconds * fps), segment_frames(settings.video, fps))
    if len(ranges) == 1:
        return [item]
    parts = [Part(index=i, count=len(ranges), first=first, frames=n) for i, (first, n) in enumerate(ranges)]
    return [item.model_copy(update={"part": part}, deep=True) for part in parts]


def gathered(parts: Sequence[ItemTask]) -> ItemTask:
    """The item whose parts have all come back, with what became of them; its error is that of the first that failed."""
    rows = sorted(parts, key=_index)
    told = next((row for row in rows if row.error is not None), rows[0])
    item = told.model_copy(update={"part": None, "parts": [_done(row) for row in rows]}, deep=True)
    item.seconds[RENDER] = round(sum(part.seconds for part in item.parts), 4)
    begun = [part.worker.started_at for part in item.parts if part.worker and part.worker.started_at is not None]
    if RENDER in item.workers and begun:
        item.workers[RENDER].started_at = min(begun)
    tried_again: Retries | None = None
    for row in rows:
        found = row.retries.get(RENDER)
        tried_again = found.joined(tried_again) if found else tried_again
        for name in row.flags:
            item.flag(name)
    if tried_again is not None:
        item.retries[RENDER] = tried_again
    return item


class Joining:
    """An executor whose items come out whole: what comes out of ``inner`` in parts is gathered, joined and committed.

    An item that misses a part, or whose joining was lost with its worker, does not come out.
    """

    def __init__(self, inner: Executor, join: type[Stage[ItemTask]], each: Callable[[ItemTask], None]) -> None:
        """``join`` is the stage that makes a video of `gathered` parts; ``each`` hears of every part that comes out."""
        self._inner, self._join, self._each = inner, join, each

    def run(
        self, tasks: Sequence[ItemTask], stages: Sequence[type[Stage[ItemTask]]], *, alone: bool = False
    ) -> Generator[ItemTask, None, None]:
        waiting: dict[str, list[ItemTask]] = {}
        ready: deque[ItemTask] = deque()
        begun: list[Beside[ItemTask]] = []
        most = self._inner.placement[RENDER].actors

        def joined() -> Iterator[ItemTask]:
            """Items that have been joined by now; as many as may are being joined meanwhile."""
            for joining in [one for one in begun if one.done()]:
                begun.remove(joining)
                if (item := joining.result()) is not None:
                    yield item
            while ready and len(begun) < most:
                begun.append(self._inner.beside(self._join, ready.popleft(), alone=alone))

        with closing(self._inner.run(tasks, stages, alone=alone)) as through:
            for task in through:
                if task.part is None:
                    yield task
                    continue
                self._each(task)
                parts = waiting.setdefault(task.key, [])
                parts.append(task)
                if len(parts) == task.part.count:
                    ready.append(gathered(waiting.pop(task.key)))
                yield from joined()
        yield from joined()
        while begun:
            begun[0].wait()
            yield from joined()


def _index(row: ItemTask) -> int:
    assert row.part is not None  # noqa: S101  (only parts are gathered)
    return row.part.index


def _done(row: ItemTask) -> Part:
    assert row.part is not None  # noqa: S101  (as above)
    worker: Worker | None = row.workers.get(RENDER)
    return row.part.model_copy(update={"seconds": row.seconds.get(RENDER, 0.0), "worker": worker})

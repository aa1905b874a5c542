"""Render: motion becomes frames, frames become a video, and the item is committed."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any

import torch

from pipeline.config import RunSettings
from pipeline.errors import ItemError, item_error
from pipeline.fetch import LocalInput, fetched, file_sha256
from pipeline.lease import confirm
from pipeline.ledger import Ledger, Record
from pipeline.media.encode import VideoWriter, segment_frames
from pipeline.media.encoders import EncoderPool
from pipeline.media.h264 import H264
from pipeline.media.reader import MediaReader
from pipeline.metrics.gates import gates_of, judge, rejudged
from pipeline.metrics.item import Source
from pipeline.metrics.rendering import RenderMetrics, Watch
from pipeline.stages.base import Stage
from pipeline.talker import Arrays, Talker, TalkerInfo, load
from pipeline.tasks import SMALLER_BATCHES, AssetTask, ItemTask

_BATCHES_WAITING = 3
"""Batches of frames before a single encoder: enough to overlap it with the renderer, and a bound on memory."""
_FRAMES_PER_ENCODER = 256
"""Frames before each of several encoders: a segment's worth, so that the next thread gets the next segment while this
one still encodes. At 512 pixels these are 200 MB."""


class RenderStage(Stage[ItemTask]):
    """The last stage. It also writes the record of every item that reaches it, failed ones included."""

    name = "render"
    task_type = ItemTask

    def __init__(self, settings: RunSettings, info: TalkerInfo, output: str, threads: int, encoders: int) -> None:
        """``encoders`` is the number of encoder threads.

        `run` may be called from several threads: one item is on the device while others are encoded and stored.
        Raises CannotRun where the wished-for encoder doesn't work.
        """
        super().__init__(settings, info, output, threads)
        if settings.video.encoder != "libx264":
            H264(settings.video, info.resolution, info.resolution, info.fps).probe()
        self.media = MediaReader(settings.limits)
        self.media.warm()
        self.talker: Talker = load(info.model, settings, info)
        self.talker.warm(self.name)
        self.metrics = RenderMetrics(settings, info, self.media, self.talker)
        self.ledger = Ledger(self.store)
        self.encoders = EncoderPool(encoders, _frames_waiting(settings, info, encoders))
        self._device = Lock()
        self._waited: dict[str, float] = {}
        self._prepared: tuple[str, Any, Source | None] = ("", None, None)

    def process(self, task: ItemTask) -> None:
        assert task.motion is not None and task.frames is not None  # noqa: S101  (narrows: motion has run)
        kept = self.store.get_arrays(task.motion)
        motion = {name: array[: task.frames] for name, array in kept.items() if array.ndim}
        with TemporaryDirectory(prefix="imtalker-render-") as folder:
            path = Path(folder) / "video.mp4"
            with self._sound(task) as sound:
                video, watch = self._make(task, motion, path, sound)
                watch.end(task, path, sound.path if sound else None)
            key = f"videos/{task.key}.mp4"
            video |= {"uri": self.store.url(key), "size": path.stat().st_size, "sha256": file_sha256(path)}
            if task.fence is not None:
                confirm(self.store, task.fence)
            watch.keep_curves(self.store, task.key)
            self.store.put_file(path, key)
        task.video = video
        if self.talker.shrunk:
            task.flag(SMALLER_BATCHES)
        task.computed.append(self.name)
        self._judge(task)

    def finish(self, task: ItemTask) -> None:
        # The device was another item's meanwhile.
        task.seconds[self.name] = round(task.seconds[self.name] - self._waited.pop(task.key, 0.0), 4)
        self.ledger.write(Record.of(task, self.settings, self.info))

    def _judge(self, task: ItemTask) -> None:
        """Hold the item against the gates. Raises an `ItemError` of kind ``quality``."""
        verdict = judge(task.metrics, gates_of(self.settings.gates, self.info.weights))
        task.flags = rejudged(task.flags, verdict)
        if verdict.error is not None:
            raise item_error(verdict.error)

    def _make(
        self, task: ItemTask, motion: Arrays, path: Path, sound: LocalInput | None
    ) -> tuple[dict[str, Any], Watch]:
        """What the record says of the video at ``path``, and who has watched its frames."""
        size = self.info.resolution
        files = None if self._is_prepared(task.portrait) else self._files(task.portrait)
        with VideoWriter(
            path,
            width=size,
            height=size,
            fps=self.info.fps,
            settings=self.settings.video,
            audio=sound.path if sound else None,
            reader=self.media,
            tags=self._tags(task),
            limits=self.settings.limits,
            pool=self.encoders,
        ) as writer:
            with self._turn(task):
                started = time.perf_counter()
                prepared, source = self._prepare(task.portrait, files)
                watch = self.metrics.watch(task, motion, source)
                for frames in self.talker.render(prepared, motion):
                    writer.write(frames)
                    watch.add(frames)
                elapsed = time.perf_counter() - started
            count = writer.frames_written
            if count != task.frames:
                raise ItemError(
                    "bug", f"{count} frames were rendered where {task.frames} were due", hint="please report it"
                )
        video = {
            "frames": count,
            "frames_sha256": writer.frames_sha256,
            "width": size,
            "height": size,
            "duration_s": count / self.info.fps,
            "has_audio": sound is not None,
            "precision": self.talker.precision,
            "render_s": round(elapsed, 4),
            "encode_s": round(writer.encode_seconds, 4),
            "peak_memory_bytes": peak_memory_bytes(),
        }
        return video, watch

    @contextmanager
    def _turn(self, task: ItemTask) -> Iterator[None]:
        """The device, for one item at a time."""
        asked = time.perf_counter()
        with self._device:
            self._waited[task.key] = time.perf_counter() - asked
            yield

    def _is_prepared(self, portrait: AssetTask) -> bool:
        return self._prepared[0] == portrait.arrays

    def _files(self, portrait: AssetTask) -> tuple[Arrays, Arrays]:
        """The picture and what was made of it."""
        assert portrait.picture is not None and portrait.arrays is not None  # noqa: S101  (narrows the types)
        return self.store.get_arrays(portrait.picture), self.store.get_arrays(portrait.arrays)

    def _prepare(self, portrait: AssetTask, files: tuple[Arrays, Arrays] | None) -> tuple[Any, Source | None]:
        """The prepared source, as the renderer and as metrics need it.

        The last one is kept, because items come grouped by portrait.
        """
        assert portrait.arrays is not None  # noqa: S101  (narrows the type)
        if not self._is_prepared(portrait):
            # They were read before the item's turn, unless another portrait has come between.
            picture, arrays = files or self._files(portrait)
            prepared = self.talker.prepare(picture["image"], arrays)
            self._prepared = (portrait.arrays, prepared, self.metrics.source(picture))
        return self._prepared[1:]

    @contextmanager
    def _sound(self, task: ItemTask) -> Iterator[LocalInput | None]:
        """The file whose sound the video gets: the item's recording, else the driver if it has a sound track."""
        if task.audio is not None:
            with fetched(task.audio.uri, self.settings) as source:
                yield source
        elif task.driver is not None and task.driver.facts.get("has_audio"):
            with fetched(task.driver.uri, self.settings) as source:
                yield source
        else:
            yield None

    def _tags(self, task: ItemTask) -> dict[str, str]:
        return {
            "comment": "AI-generated video",
            "imtalker_item": task.key,
            "imtalker_model": self.info.model,
            "imtalker_weights": self.info.weights,
            "imtalker_seed": str(task.seed),
            "imtalker_fingerprint": task.fingerprint or "",
        }


def _frames_waiting(settings: RunSettings, info: TalkerInfo, encoders: int) -> int:
    """Room for frames before the encoders."""
    few = _BATCHES_WAITING * settings.batch_size
    if encoders == 1:
        return few
    return max(few, encoders * min(segment_frames(settings.video, info.fps), _FRAMES_PER_ENCODER))


def peak_memory_bytes() -> int:
    """Peak of the device's allocator where there is one, else of the process (Linux counts it in KiB)."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

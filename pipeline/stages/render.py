"""Render: motion becomes frames, frames become a video, and the item is committed; of a long item, a part."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any

import av
import numpy as np
import torch

from pipeline.config import RunSettings
from pipeline.ledger import Ledger, Record
from pipeline.media.encode import FrameEncoder, VideoWriter, segment_frames
from pipeline.media.encoders import EncoderPool
from pipeline.media.frame_hash import DIGEST_BYTES
from pipeline.media.h264 import H264
from pipeline.media.part_file import PartWriter
from pipeline.media.reader import MediaReader
from pipeline.metrics.item import Source
from pipeline.metrics.rendering import DriverFrames, RenderMetrics, Watch
from pipeline.metrics.verdict import hold
from pipeline.provenance.certificate import Signing
from pipeline.provenance.label import VisibleLabel, drawn
from pipeline.provenance.origin import Origin
from pipeline.reuse.cache import part_key
from pipeline.stages.base import Stage, gpu_name
from pipeline.stages.finish import commit_video, sound_of, video_facts
from pipeline.talker import Arrays, Talker, TalkerInfo, load
from pipeline.tasks import SMALLER_BATCHES, AssetTask, ItemTask, Part

_BATCHES_WAITING = 3
"""Batches of frames before a single encoder: enough to overlap it with the renderer, and a bound on memory."""
_FRAMES_PER_ENCODER = 256
"""Frames before each of several encoders: a segment's worth, so that the next thread gets the next segment while this
one still encodes. At 512 pixels these are 200 MB."""


class RenderStage(Stage[ItemTask]):
    """The last stage. It also writes the record of every item that reaches it whole, failed ones included.

    Parts of long items are stored for `pipeline.stages.join`.
    """

    name = "render"
    task_type = ItemTask

    def __init__(
        self,
        settings: RunSettings,
        info: TalkerInfo,
        output: str,
        threads: int,
        encoders: int,
        signing: Signing | None = None,
    ) -> None:
        """``encoders`` is the number of encoder threads; without ``signing`` no video is signed.

        `run` may be called from several threads: one item is on the device while others are encoded and stored.
        Raises CannotRun where the wished-for encoder doesn't work.
        """
        super().__init__(settings, info, output, threads)
        self._form = H264(settings.video, info.resolution, info.resolution, info.fps)
        if settings.video.encoder != "libx264":
            self._form.probe()
        self.media = MediaReader(settings.limits)
        self.media.warm()
        self.talker: Talker = load(info.model, settings, info)
        self.talker.warm(self.name)
        self.metrics = RenderMetrics(settings, info, self.media, self.talker)
        self.ledger = Ledger(self.store)
        self.signing = signing
        size = info.resolution
        self.label = VisibleLabel(size, size, info.fps) if drawn(settings.label) else None
        self.encoders = EncoderPool(encoders, _frames_waiting(settings, info, encoders))
        self._device = Lock()
        self._waited: dict[tuple[str, int | None], float] = {}
        self._prepared: tuple[str, Any, Source | None] = ("", None, None)

    def process(self, task: ItemTask) -> None:
        with TemporaryDirectory(prefix="imtalker-render-") as folder:
            if task.part is None:
                self._whole(task, Path(folder) / "video.mp4")
            else:
                self._part(task, task.part, Path(folder) / "part.zip")

    def finish(self, task: ItemTask) -> None:
        # The device was another item's meanwhile.
        task.seconds[self.name] = round(task.seconds[self.name] - self._waited.pop(_place(task), 0.0), 4)
        if task.part is None:
            self.ledger.write(Record.of(task, self.settings, self.info))

    def _whole(self, task: ItemTask, path: Path) -> None:
        """Render, encode and commit an item in one go."""
        assert task.frames is not None  # noqa: S101  (narrows: motion has run)
        form, origin = self._form, Origin.of(Record.of(task, self.settings, self.info))
        with sound_of(task, self.settings) as sound:
            with (
                self.metrics.driver_of(task, sound) as driver,
                VideoWriter(
                    path,
                    width=form.width,
                    height=form.height,
                    fps=form.fps,
                    settings=form.settings,
                    audio=sound.path if sound else None,
                    reader=self.media,
                    tags=origin.tags(),
                    label=self.label,
                    limits=self.settings.limits,
                    pool=self.encoders,
                ) as writer,
            ):
                seconds, watch = self._render_range(task, 0, task.frames, writer, measured=True, driver=driver)
            made = self._made(writer, seconds)
            facts = video_facts(task, self.info, made, writer.frames_sha256, has_audio=sound is not None)
            watch.end(task, path, sound.path if sound else None)
        watch.keep_curves(self.store, task.key)
        commit_video(task, self.store, path, facts, origin, self.signing)
        if self.talker.shrunk:
            task.flag(SMALLER_BATCHES)
        task.computed.append(self.name)
        hold(task, self.settings.gates, self.info.weights)

    def _part(self, task: ItemTask, part: Part, path: Path) -> None:
        """Render and encode a part of an item, and store it for whoever joins them; a run before may have done it."""
        key = self._part_key(task, part)
        if not self.store.exists(key):
            file = PartWriter(path)
            with FrameEncoder(
                file, self._form, name=path.name, first=part.first, pool=self.encoders, label=self.label
            ) as encoder:
                seconds, _ = self._render_range(task, part.first, part.frames, encoder)
            facts = self._made(encoder, seconds) | {"device": _device(), "smaller_batches": self.talker.shrunk}
            digests = np.frombuffer(bytes(encoder.frame_digests), np.uint8).reshape(-1, DIGEST_BYTES)
            file.describe({"sha256": digests}, facts)
            self.store.put_file(path, key)
            part.device_s = facts["render_s"]
        part.key = key

    def _part_key(self, task: ItemTask, part: Part) -> str:
        """Store key of a part: beside what shapes the item, all that equal frames are promised for."""
        return part_key(
            {
                "fingerprint": task.fingerprint,
                "first": part.first,
                "frames": part.frames,
                "device": _device(),
                "threads": self.threads,
                "torch": torch.__version__,
                "av": av.__version__,
            }
        )

    def _render_range(
        self,
        task: ItemTask,
        first: int,
        count: int,
        encoder: FrameEncoder,
        *,
        measured: bool = False,
        driver: DriverFrames | None = None,
    ) -> tuple[float, Watch]:
        """Render ``count`` frames from the index ``first`` on.

        Returns the seconds that they had the device, and who has watched them, if they are ``measured``: against the
        ``driver`` too where it is given.
        """
        # A frame's last bits depend on its place in its batch: batches are those of the whole video.
        surplus = first % self.settings.batch_size
        motion = self._motion(task, first - surplus, first + count)
        files = None if self._is_prepared(task.portrait) else self._files(task.portrait)
        with self._turn(task):
            started = time.perf_counter()
            prepared, source = self._prepare(task.portrait, files)
            watch = self.metrics.watch(task, motion, source if measured else None, driver=driver)
            for frames in self.talker.render(prepared, motion):
                encoder.write(frames[surplus:])
                watch.add(frames[surplus:])
                surplus = max(surplus - len(frames), 0)
            return time.perf_counter() - started, watch

    def _motion(self, task: ItemTask, first: int, end: int) -> Arrays:
        assert task.motion is not None  # noqa: S101  (narrows: motion has run)
        kept = self.store.get_arrays(task.motion)
        # A copy, so that a part of an hour doesn't hold the hour.
        return {name: array[first:end].copy() for name, array in kept.items() if array.ndim}

    def _made(self, encoder: FrameEncoder, render_s: float) -> dict[str, Any]:
        """What is told of the making of frames."""
        return {
            "frames": encoder.frames_written,
            "precision": self.talker.precision,
            "render_s": round(render_s, 4),
            "encode_s": round(encoder.encode_seconds, 4),
            "peak_memory_bytes": peak_memory_bytes(),
        }

    @contextmanager
    def _turn(self, task: ItemTask) -> Iterator[None]:
        """The device, for one item at a time."""
        asked = time.perf_counter()
        with self._device:
            self._waited[_place(task)] = time.perf_counter() - asked
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


def _place(task: ItemTask) -> tuple[str, int | None]:
    """Which work of this actor a task is: several parts of an item may be in hand."""
    return task.key, task.part.index if task.part else None


def _device() -> str:
    """Kind of the device that renders."""
    return gpu_name() or f"CPU {torch.backends.cpu.get_cpu_capability()}"


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

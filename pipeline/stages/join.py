"""Join: the parts of a long item become its video, and the item is committed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline.config import RunSettings
from pipeline.errors import ItemError
from pipeline.inputs.fetch import LocalInput
from pipeline.ledger import Ledger, Record
from pipeline.media.frame_hash import frames_sha256
from pipeline.media.h264 import H264
from pipeline.media.mp4 import Mp4File
from pipeline.media.part_file import PartReader
from pipeline.media.reader import MediaReader
from pipeline.media.stored import stored_frames
from pipeline.metrics.rendering import RenderMetrics
from pipeline.metrics.verdict import hold
from pipeline.provenance.certificate import Signing
from pipeline.provenance.origin import Origin
from pipeline.stages.base import Stage
from pipeline.stages.finish import commit_video, sound_of, video_facts
from pipeline.talker import TalkerInfo
from pipeline.tasks import MIXED_DEVICES, SMALLER_BATCHES, ItemTask, Part


class JoinStage(Stage[ItemTask]):
    """The end of the render stage for an item in parts: packets are copied, the sound is added, nothing is rendered.

    It also writes the record of an item whose parts failed.
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
        """``encoders`` is not used: an actor's arguments are those of `RenderStage`."""
        super().__init__(settings, info, output, threads)
        self.media = MediaReader(settings.limits)
        # Frames have come and gone in several places: the joined video is measured, without the model's eyes.
        self.metrics = RenderMetrics(settings, info, self.media, None)
        self.ledger = Ledger(self.store)
        self.signing = signing

    def enter(self, task: ItemTask) -> None:
        rendering, seconds = task.workers.get(self.name), task.seconds.get(self.name, 0.0)
        super().enter(task)
        task.seconds[self.name] = seconds
        if rendering is not None:
            # The item's worker is one that rendered it, from the first part's begin to the end of joining.
            task.workers[self.name] = rendering

    def process(self, task: ItemTask) -> None:
        with TemporaryDirectory(prefix="imtalker-join-") as folder:
            path = Path(folder) / "video.mp4"
            origin = Origin.of(Record.of(task, self.settings, self.info))
            with sound_of(task, self.settings) as sound:
                facts = self._join(task, path, sound.path if sound else None, origin.tags())
                self._measure(task, path, sound)
            commit_video(task, self.store, path, facts, origin, self.signing)
        task.computed.append(self.name)
        hold(task, self.settings.gates, self.info.weights)

    def finish(self, task: ItemTask) -> None:
        self.ledger.write(Record.of(task, self.settings, self.info))
        if task.error is None:
            self.store.delete_many(part.key for part in task.parts if part.key is not None)

    def _join(self, task: ItemTask, path: Path, sound: Path | None, tags: dict[str, str]) -> dict[str, Any]:
        size = self.info.resolution
        form = H264(self.settings.video, size, size, self.info.fps)
        file = Mp4File(
            path,
            form,
            limits=self.settings.limits,
            audio=sound,
            tags=tags,
            reader=self.media,
        )
        told: list[dict[str, Any]] = []
        digests = bytearray()
        try:
            for part in task.parts:
                with self._opened(part, path.with_name("part.zip")) as reader:
                    for segment in reader.segments():
                        file.add(segment)
                    digests += reader.frames["sha256"].tobytes()
                    told.append(reader.facts)
            file.close()
        except BaseException:
            file.discard()
            raise
        if any(facts["smaller_batches"] for facts in told):
            task.flag(SMALLER_BATCHES)
        if len({facts["device"] for facts in told}) > 1:
            task.flag(MIXED_DEVICES)
        made = {
            "precision": told[0]["precision"],
            "peak_memory_bytes": max(facts["peak_memory_bytes"] for facts in told),
            **{name: sum(facts[name] for facts in told) for name in ("frames", "render_s", "encode_s")},
        }
        facts = video_facts(task, self.info, made, frames_sha256(digests), has_audio=sound is not None)
        return facts | {"parts": [_place(part) for part in task.parts]}

    def _measure(self, task: ItemTask, path: Path, sound: LocalInput | None) -> None:
        if self.settings.metrics == "off":
            return
        assert task.portrait.picture is not None and task.motion is not None  # noqa: S101  (narrows the types)
        motion = {name: array for name, array in self.store.get_arrays(task.motion).items() if array.ndim}
        source = self.metrics.source(self.store.get_arrays(task.portrait.picture))
        with self.metrics.driver_of(task, sound) as driver:
            watch = self.metrics.watch(
                task, {name: array[: task.frames] for name, array in motion.items()}, source, "video", driver
            )
            for frames in stored_frames(path):
                watch.add(frames)
            watch.end(task, path, sound.path if sound else None)
        watch.keep_curves(self.store, task.key)

    @contextmanager
    def _opened(self, part: Part, path: Path) -> Iterator[PartReader]:
        """A local copy of a part's file, for as long as it is read."""
        try:
            assert part.key is not None  # noqa: S101  (narrows the type: no part has failed)
            self.store.get_file(part.key, path)
        except FileNotFoundError as exc:
            raise ItemError(
                "infrastructure",
                f"part {part.index + 1} of {part.count} is not in the cache any more: it was removed during the run",
                hint="run again",
            ) from exc
        with PartReader(path) as reader:
            yield reader
        path.unlink()


def _place(part: Part) -> dict[str, Any]:
    """Where a part of a video was rendered, and how long that took."""
    worker = part.worker
    where = {"node": worker.node, "pid": worker.pid, "gpu": worker.gpu} if worker else {}
    return {"first": part.first, "frames": part.frames, "seconds": part.seconds, **where}

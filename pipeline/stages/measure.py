"""Measure: the metrics of a finished item, from its stored video; nothing is rendered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.config import RunSettings
from pipeline.errors import CannotRun, ItemError
from pipeline.inputs.fetch import LocalInput, fetched, file_sha256
from pipeline.ledger import Ledger, Record
from pipeline.media.reader import MediaReader
from pipeline.media.stored import stored_frames
from pipeline.metrics.catalogue import Values
from pipeline.metrics.item import ItemMeter, Source
from pipeline.metrics.pixels import SourceLook
from pipeline.metrics.rendering import UNMEASURED, RenderMetrics, curves_parquet, hear
from pipeline.metrics.verdict import judged
from pipeline.stages.base import Stage
from pipeline.talker import Arrays, TalkerInfo, load
from pipeline.tasks import Task


class MeasureTask(Task):
    """A finished item. ``key`` is its id."""

    fence: int | None = None


class MeasureStage(Stage[MeasureTask]):
    """Takes the features stage's place on machines. Where the model's weights are not at hand it measures without."""

    name = "features"
    task_type = MeasureTask

    def __init__(self, settings: RunSettings, info: TalkerInfo, output: str, threads: int) -> None:
        super().__init__(settings, info, output, threads)
        self.media = MediaReader(settings.limits)
        self.ledger = Ledger(self.store)
        self._seeing = self._blind = RenderMetrics(settings, info, self.media, None)
        with suppress(CannotRun):
            talker = load(info.model, settings, info)
            talker.warm("render")
            self._seeing = RenderMetrics(settings, info, self.media, talker)

    def process(self, task: MeasureTask) -> None:
        record = self.ledger.read([task.key]).get(task.key)
        if record is None or record.video is None:
            raise ItemError("infrastructure", f"{task.key} has no record of a video any more", hint="run again")
        with TemporaryDirectory(prefix="imtalker-measure-") as folder:
            path = Path(folder) / "video.mp4"
            try:
                self.store.get_file(f"videos/{task.key}.mp4", path)
            except FileNotFoundError as exc:
                raise _changed(task.key, "is gone") from exc
            if file_sha256(path) != record.video["sha256"]:
                raise _changed(task.key, "is not what its record says")
            values = self._values(record, path)
        measured = record.model_copy(
            update={"metrics": values, "flags": [flag for flag in record.flags if flag != UNMEASURED]}
        )
        self.ledger.write(judged(measured, self.settings.gates).model_copy(update={"fence": task.fence}))

    def _values(self, record: Record, path: Path) -> Values:
        assert record.video is not None  # noqa: S101  (narrows the type)
        same = record.weights_sha256 == self.info.weights_sha256 and record.model == self.info.model
        eyes = self._seeing if same else self._blind
        picture, motion = (self._cached(record, role) for role in ("picture", "motion"))
        frames = int(record.video["frames"])
        if motion is not None:
            motion = {name: array[:frames] for name, array in motion.items() if array.ndim}
        asked = eyes.asked(frames, motion, with_windows=record.mode == "audio")
        source = None if picture is None else eyes.source(picture)
        meter: ItemMeter | None = None
        with self._sound(record) as sound:
            with eyes.driver_of(record, sound) as driver:
                for batch in stored_frames(path):
                    if meter is None:
                        known = source or Source(SourceLook.of(batch[0]))
                        meter = eyes.meter(asked, known, "video", driver)
                    meter.add(batch)
            if meter is None:
                raise _changed(record.id, "has no pictures")
            if sound is not None:
                with suppress(ItemError):
                    hear(meter, sound.path, path, self.media, self.settings.limits)
        values = meter.finish(path)
        if source is None:
            # The first frame has stood in for the portrait, which these compare with.
            values |= {"brightness_shift": None, "sharpness_ratio": None, "portrait_distance": None}
        if self.settings.metrics == "full":
            self.store.put_bytes(f"metrics/{record.id}.parquet", curves_parquet(meter.curves()))
        return values

    def _cached(self, record: Record, role: str) -> Arrays | None:
        """What the render stage was given, if it is still in the cache."""
        try:
            return self.store.get_arrays(record.cache[role])
        except (KeyError, FileNotFoundError):
            return None

    @contextmanager
    def _sound(self, record: Record) -> Iterator[LocalInput | None]:
        """The file of the video's sound; None for a video without, or if it is gone or another by now."""
        assert record.video is not None  # noqa: S101  (narrows the type)
        role = "audio" if "audio" in record.uris else "driver"
        with ExitStack() as opened:
            found = None
            if record.video.get("has_audio") and role in record.uris and role in record.inputs:
                with suppress(ItemError):
                    source = opened.enter_context(fetched(record.uris[role], self.settings))
                    found = source if source.sha256 == record.inputs[role].sha256 else None
            yield found


def _changed(key: str, what: str) -> ItemError:
    return ItemError("infrastructure", f"the video of {key} {what}", hint="make it again: --retry failed, or a new run")

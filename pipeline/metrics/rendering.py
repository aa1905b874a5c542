"""Measuring beside the renderer. Whatever goes wrong here costs an item its numbers, never its video."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa

from manifests.parquet import parquet_bytes
from pipeline.config import InputLimits, RunSettings
from pipeline.errors import ItemError
from pipeline.inputs.fetch import LocalInput, fetched
from pipeline.ledger import Record
from pipeline.media.audio import mono_16k_pieces
from pipeline.media.reader import MediaReader
from pipeline.metrics.against_driver import DriverMeter
from pipeline.metrics.catalogue import Values
from pipeline.metrics.csim import CsimMeter
from pipeline.metrics.dlib_identity import DlibMeter, dlib_descriptor
from pipeline.metrics.experts import measuring_device, named_experts
from pipeline.metrics.face_mesh import landmark_trackers
from pipeline.metrics.item import Asked, FrameMeter, Inspect, ItemMeter, Origin, Source
from pipeline.metrics.landmarks import LandmarkMeter
from pipeline.metrics.lse import LseMeter
from pipeline.metrics.pixels import SourceLook
from pipeline.metrics.regions import FRAMED_FACE, Box
from pipeline.metrics.sampling import compared_every
from pipeline.storage import Store
from pipeline.talker import Arrays, Talker, TalkerInfo
from pipeline.tasks import ItemTask

UNMEASURED = "not_measured"
"""Flag of an item whose metrics could not be had, though they were asked for."""

_LOG = logging.getLogger(__name__)

R = TypeVar("R")

DriverFrames = Iterable[np.ndarray]
"""Windows uint8 [n, R, R, 3] RGB of a driver's frames, every `compared_every`-th."""


class RenderMetrics:
    """What the render stage measures with; ``talker`` None measures without the model's eyes."""

    def __init__(self, settings: RunSettings, info: TalkerInfo, media: MediaReader, talker: Talker | None) -> None:
        self._settings, self._info, self._media = settings, info, media
        self.inspect: Inspect | None = None if talker is None else talker.inspect
        self._device, self._experts = measuring_device(settings), named_experts(settings)
        self._describe = None if settings.metrics == "off" else dlib_descriptor()
        self._trackers = landmark_trackers(settings)

    def source(self, picture: Arrays) -> Source | None:
        """What is to be known of a portrait, of what the crop stage keeps of it; None where nothing is measured."""
        if self._settings.metrics == "off":
            return None
        image, face = picture["image"], picture.get("face")

        def seen() -> Source:
            box = FRAMED_FACE if face is None else Box(*(float(part) for part in face))
            identity = None
            if self.inspect is not None:
                identity = self.inspect(image[None]).get("identity")
            known = self._experts.face
            return Source(
                SourceLook.of(image, box),
                None if identity is None else identity[0],
                None if known is None else known.embedded(image[None], box)[0],
                None if self._describe is None else self._describe(image),
            )

        return _tried(seen, "looking at a portrait")

    @contextmanager
    def driver_of(self, item: ItemTask | Record, at_hand: LocalInput | None = None) -> Iterator[DriverFrames | None]:
        """The frames that an item's own should equal; None for one that is not compared with its driver.

        They are read as they are asked for; none are there where the driver is gone, or is another by now. ``at_hand``
        is a file of the item's that has been fetched already.
        """
        if self._settings.metrics == "off" or not item.self_reenactment:
            yield None
            return
        windows: DriverFrames = ()
        with ExitStack() as opened:
            try:
                source = at_hand
                if source is None or source.uri != item.uris["driver"]:
                    source = opened.enter_context(fetched(item.uris["driver"], self._settings))
                if source.sha256 == item.inputs["driver"].sha256:
                    every = compared_every(self._settings.metrics)
                    reader = self._media.driver(source.path, self._info.resolution, every=every)
                    windows = opened.enter_context(closing(reader))
            except ItemError:
                _LOG.exception("the driver can't be had; the item is not compared with it")
            yield windows

    def watch(
        self,
        task: ItemTask,
        motion: Arrays | None,
        source: Source | None,
        origin: Origin = "frames",
        driver: DriverFrames | None = None,
    ) -> Watch:
        """Begin to measure an item by its rendered frames or by those of its video; not at all without ``source``.

        ``driver``: see `driver_of`.
        """
        asked = self.asked(task.frames or 0, motion, with_windows=task.mode == "audio")
        level = self._settings.metrics
        meter = None if source is None else self.meter(asked, source, origin, driver)
        return Watch(meter, self._settings, self._media, wanted=level != "off")

    def meter(self, asked: Asked, source: Source, origin: Origin, driver: DriverFrames | None = None) -> ItemMeter:
        level, experts, face = self._settings.metrics, self._experts, source.look.face
        beside: list[FrameMeter] = []
        if experts.lips is not None:
            beside.append(LseMeter(experts.lips, face))
        if experts.face is not None:
            beside.append(CsimMeter(experts.face, face, source.face, asked.frames, level))
        if self._describe is not None and source.dlib is not None:
            beside.append(DlibMeter(self._describe, source.dlib, asked.frames, level))
        if driver is not None:
            beside.append(DriverMeter(driver, compared_every(level), self._device, experts.perception))
        landmarks = None if self._trackers is None else LandmarkMeter(self._trackers, asked.fps)
        return ItemMeter(asked, source, level, self.inspect, origin, beside, landmarks)

    def asked(self, frames: int, motion: Arrays | None, *, with_windows: bool) -> Asked:
        """What a video should be; of motion in several arrays the first counts."""
        codes = next(iter(motion.values()), None) if motion else None
        if codes is not None:
            codes = codes.reshape(len(codes), -1)
        return Asked(frames, self._info.fps, codes, self._info.window if with_windows else None)


class Watch:
    """One item's measuring."""

    def __init__(self, meter: ItemMeter | None, settings: RunSettings, media: MediaReader, *, wanted: bool) -> None:
        self._meter, self._settings, self._media, self._wanted = meter, settings, media, wanted

    def add(self, frames: np.ndarray) -> None:
        """uint8 [n, R, R, 3], in order, which are only read."""
        if self._meter is None:
            return
        try:
            self._meter.add(frames)
        except Exception:  # noqa: BLE001  (as below)
            _LOG.exception("measuring frames failed; the item goes on without metrics")
            self._meter = None

    def end(self, task: ItemTask, video: Path, sound: Path | None) -> None:
        """Put the metrics into the task; ``sound`` is the file that the video's sound was made from."""
        found = None
        if (meter := self._meter) is not None:
            found = _tried(lambda: self._finished(meter, video, sound), "measuring a video")
        if found is not None:
            task.metrics = found
        elif self._wanted:
            self._meter = None
            task.flag(UNMEASURED)

    def keep_curves(self, store: Store, key: str) -> None:
        """At level full, write a table with a row a frame. Raises `StorageError`."""
        if self._meter is None or self._meter.level != "full":
            return
        store.put_bytes(f"metrics/{key}.parquet", curves_parquet(self._meter.curves()))

    def _finished(self, meter: ItemMeter, video: Path, sound: Path | None) -> Values:
        if sound is not None:
            hear(meter, sound, video, self._media, self._settings.limits)
        return meter.finish(video)


def hear(meter: ItemMeter, sound: Path, video: Path, media: MediaReader, limits: InputLimits) -> None:
    """Give the meter the file that the video's sound was made from, as far as frames go, and the video's own sound.

    Raises `InputError` where either can't be decoded; the meter has then heard nothing.
    """
    seconds = meter.asked.frames / meter.asked.fps
    with closing(media.mono_16k_pieces(sound, seconds)) as recording, closing(mono_16k_pieces(video, limits)) as heard:
        meter.listen(recording, heard)


def curves_parquet(curves: Mapping[str, np.ndarray]) -> bytes:
    """A table with a row a frame."""
    return parquet_bytes(pa.table({name: values.astype(np.float32) for name, values in curves.items()}))


def _tried(measure: Callable[[], R], doing: str) -> R | None:
    try:
        return measure()
    except Exception:  # noqa: BLE001  (a video without numbers is better than none)
        _LOG.exception("%s failed; the item goes on without metrics", doing)
        return None

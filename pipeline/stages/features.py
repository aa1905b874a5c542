"""Features: codes of portraits, features of recordings, motion of drivers; each made once a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.config import RunSettings
from pipeline.errors import InputError
from pipeline.inputs.fetch import LocalInput, fetched
from pipeline.media.reader import MediaReader
from pipeline.reuse.stage_facts import StageFacts
from pipeline.stages.arrays import checked_finite
from pipeline.stages.batched import BatchedStage
from pipeline.talker import Arrays, Talker, TalkerInfo, load
from pipeline.tasks import SMALLER_BATCHES, AssetTask, Input

SAMPLE_RATE = 16_000


def frames_for(samples: int, fps: int) -> int:
    """How many frames a recording of ``samples`` at 16 kHz lasts, rounded up, in integers."""
    return -(-samples * fps // SAMPLE_RATE)


class FeaturesStage(BatchedStage[AssetTask, np.ndarray]):
    """Portraits and drivers one by one, recordings several at a time."""

    name = "features"
    task_type = AssetTask

    def __init__(self, settings: RunSettings, info: TalkerInfo, output: str, threads: int) -> None:
        super().__init__(settings, info, output, threads)
        self.media = MediaReader(settings.limits)
        self.media.warm()
        self.facts = StageFacts(settings, info)
        self.talker: Talker = load(info.model, settings, info)
        self.talker.warm(self.name)

    def begin(self, task: AssetTask) -> np.ndarray | None:
        if task.kind == "portrait":
            self._portrait(task)
            return None
        with fetched(task.uri, self.settings) as source:
            task.input = Input(uri=task.uri, size=source.size, sha256=source.sha256)
            if task.kind == "audio":
                return self._audio(task, source.path)
            self._driver(task, source)
            return None

    def compute(self, works: Sequence[np.ndarray]) -> list[Arrays]:
        return self.talker.encode_audio(works)

    def end(self, task: AssetTask, work: np.ndarray, found: Arrays) -> None:
        assert task.arrays is not None  # noqa: S101  (narrows the type: begin has run)
        self._keep(task, task.arrays, found)

    def _portrait(self, task: AssetTask) -> None:
        assert task.picture is not None and task.input is not None  # noqa: S101  (narrows the types: crop has run)
        key = self.facts.features_key(task, task.input.sha256)
        if not self._reuse(task, key):
            image = self.store.get_arrays(task.picture)["image"]
            self._keep(task, key, self.talker.encode_portrait(image))

    def _audio(self, task: AssetTask, path: Path) -> np.ndarray | None:
        """The waveform, if its features have to be made."""
        waveform = self.media.mono_16k(path, self.settings.max_seconds)
        task.samples = len(waveform)
        task.frames = frames_for(len(waveform), self.info.fps)
        if not task.needs_features:
            return None
        assert task.input is not None  # noqa: S101  (narrows the type)
        key = self.facts.features_key(task, task.input.sha256)
        return None if self._reuse(task, key) else waveform

    def _driver(self, task: AssetTask, source: LocalInput) -> None:
        key = self.facts.features_key(task, source.sha256)
        if not self._reuse(task, key):
            reader = self.media.driver(source.path, self.info.resolution, self.settings.max_seconds)
            motion = self.talker.encode_driver(reader)
            self._keep(task, key, motion | {"decoder": np.array(reader.decoder)})
        task.facts["has_audio"] = self.media.facts(source.path).audio is not None
        kept = self.store.get_arrays(key)
        task.facts["decoder"] = str(kept["decoder"])
        task.frames = max(len(array) for array in kept.values() if array.ndim)
        if task.frames == 0:
            raise InputError(f"{task.uri} has no video frames", hint="give a video with a picture track")

    def _reuse(self, task: AssetTask, key: str) -> bool:
        task.arrays = key
        return self.store.exists(key)

    def _keep(self, task: AssetTask, key: str, arrays: Arrays) -> None:
        self.store.put_arrays(key, checked_finite(arrays, f"features of {task.uri}"))
        task.computed.append(self.name)
        if self.talker.shrunk:
            task.facts[SMALLER_BATCHES] = True

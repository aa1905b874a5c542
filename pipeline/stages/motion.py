"""Motion: an item's motion sequence, from its recording or from its driver."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.config import RunSettings
from pipeline.controls import read_controls
from pipeline.fetch import fetched
from pipeline.fingerprint import cache_key, digest, item_seed, model_facts
from pipeline.stages.arrays import checked_finite
from pipeline.stages.batched import BatchedStage
from pipeline.talker import Arrays, MotionRequest, Talker, TalkerInfo, load
from pipeline.tasks import SMALLER_BATCHES, AssetTask, Input, ItemTask

CONTROLS = ("pose", "camera", "gaze")


class MotionStage(BatchedStage[ItemTask, MotionRequest]):
    name = "motion"
    task_type = ItemTask

    def __init__(self, settings: RunSettings, info: TalkerInfo, output: str, threads: int) -> None:
        super().__init__(settings, info, output, threads)
        self.talker: Talker = load(info.model, settings, info)
        self.talker.warm(self.name)

    def begin(self, task: ItemTask) -> MotionRequest | None:
        for role, asset in (("image", task.portrait), ("audio", task.audio), ("driver", task.driver)):
            if asset is not None:
                task.inputs[role] = input_of(asset)
        controls = self._controls(task)
        if task.seed is None:
            task.seed = item_seed(self.settings.seed, {role: i.sha256 for role, i in task.inputs.items()})
        task.frames = task.due_frames
        task.fingerprint = digest({"request": task.request, "inputs": {r: i.sha256 for r, i in task.inputs.items()}})
        if task.mode == "driver":
            assert task.driver is not None  # noqa: S101  (narrows the type)
            task.motion = task.driver.arrays
            return None
        return self._request(task, controls)

    def compute(self, works: Sequence[MotionRequest]) -> list[Arrays]:
        return self.talker.generate(works)

    def end(self, task: ItemTask, work: MotionRequest, found: Arrays) -> None:
        assert task.motion is not None  # noqa: S101  (narrows the type: begin has run)
        self.store.put_arrays(task.motion, checked_finite(found, "generated motion"))
        task.computed.append(self.name)
        if self.talker.shrunk:
            task.flag(SMALLER_BATCHES)

    def _controls(self, task: ItemTask) -> Arrays:
        controls: Arrays = {}
        for role in CONTROLS:
            uri: str | None = getattr(task, role)
            if uri is not None:
                with fetched(uri, self.settings) as source:
                    task.inputs[role] = Input(uri=uri, size=source.size, sha256=source.sha256)
                    # A file of its own wins over the camera inside a SMIRK file, because it comes later.
                    controls |= read_controls(role, source.path, uri)
        return controls

    def _request(self, task: ItemTask, controls: Arrays) -> MotionRequest | None:
        """What is to be generated; None where an item has asked for the same before."""
        assert task.audio is not None and task.audio.arrays is not None  # noqa: S101  (narrows the types)
        assert task.portrait.arrays is not None and task.seed is not None  # noqa: S101
        task.motion = cache_key(
            self.name,
            {
                "version": self.version,
                **model_facts(self.info, self.settings),
                "portrait": task.portrait.arrays,
                "audio": task.audio.arrays,
                "controls": {role: task.inputs[role].sha256 for role in CONTROLS if role in task.inputs},
                "seed": task.seed,
                "cfg_scale": task.cfg_scale,
                "nfe": task.nfe,
                "items_in_flight": self.settings.items_in_flight,
            },
        )
        if self.store.exists(task.motion):
            return None
        portrait, audio = (self.store.get_arrays(a) for a in (task.portrait.arrays, task.audio.arrays))
        return MotionRequest(portrait, audio, task.seed, task.cfg_scale, task.nfe, controls)


def input_of(asset: AssetTask) -> Input:
    assert asset.input is not None  # noqa: S101  (every asset that did not fail has been read)
    return asset.input

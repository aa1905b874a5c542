"""Motion: an item's motion sequence, from its recording or from its driver."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.config import RunSettings
from pipeline.errors import ItemError
from pipeline.inputs.controls import read_controls
from pipeline.inputs.fetch import fetched
from pipeline.parts import split
from pipeline.reuse.fingerprint import item_seed
from pipeline.reuse.stage_facts import CONTROLS, StageFacts
from pipeline.stages.arrays import checked_finite
from pipeline.stages.batched import BatchedStage
from pipeline.talker import Arrays, MotionRequest, Talker, TalkerInfo, load
from pipeline.tasks import SMALLER_BATCHES, AssetTask, Input, ItemTask


class MotionStage(BatchedStage[ItemTask, MotionRequest]):
    name = "motion"
    task_type = ItemTask

    def __init__(self, settings: RunSettings, info: TalkerInfo, output: str, threads: int) -> None:
        super().__init__(settings, info, output, threads)
        self.facts = StageFacts(settings, info)
        self.talker: Talker = load(info.model, settings, info)
        self.talker.warm(self.name)

    def begin(self, task: ItemTask) -> MotionRequest | None:
        for role, asset in (("image", task.portrait), ("audio", task.audio), ("driver", task.driver)):
            if asset is not None:
                task.inputs[role] = input_of(asset)
        controls = self._controls(task)
        contents = {role: given.sha256 for role, given in task.inputs.items()}
        if task.seed is None:
            task.seed = item_seed(self.settings.seed, contents)
        task.frames = task.due_frames
        task.fingerprint = self.facts.fingerprint(task, contents)
        if task.mode == "driver":
            assert task.driver is not None  # noqa: S101  (narrows the type)
            task.motion = task.driver.arrays
            return None
        task.motion = self.facts.motion_key(task, contents)
        return None if self.store.exists(task.motion) else self._request(task, controls)

    def compute(self, works: Sequence[MotionRequest]) -> list[Arrays]:
        return self.talker.generate(works)

    def end(self, task: ItemTask, work: MotionRequest, found: Arrays) -> None:
        assert task.motion is not None  # noqa: S101  (narrows the type: begin has run)
        self.store.put_arrays(task.motion, checked_finite(found, "generated motion"))
        task.computed.append(self.name)
        if self.talker.shrunk:
            task.flag(SMALLER_BATCHES)

    def onward(self, task: ItemTask) -> list[ItemTask]:
        """A long item goes on in parts."""
        return split(task, self.settings, self.info.fps)

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

    def _request(self, task: ItemTask, controls: Arrays) -> MotionRequest:
        assert task.audio is not None and task.seed is not None  # noqa: S101  (narrows the types)
        portrait, audio = self._kept(task.portrait), self._kept(task.audio)
        return MotionRequest(portrait, audio, task.seed, task.cfg_scale, task.nfe, controls)

    def _kept(self, asset: AssetTask) -> Arrays:
        """What was made of an asset. The plan leaves it out where the motion was there already."""
        try:
            if asset.arrays is not None:
                return self.store.get_arrays(asset.arrays)
        except FileNotFoundError:
            pass
        raise ItemError(
            "infrastructure",
            f"what was made of {asset.uri} is not in the cache: the file, or the cache, was changed during the run",
            hint="run again",
        )


def input_of(asset: AssetTask) -> Input:
    assert asset.input is not None  # noqa: S101  (every asset that did not fail has been read)
    return asset.input

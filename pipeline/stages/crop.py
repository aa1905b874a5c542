"""Crop: a portrait becomes a square picture with the head framed; a driver is looked at for a face."""

from __future__ import annotations

import numpy as np

from pipeline.config import RunSettings
from pipeline.errors import InputError
from pipeline.inputs.fetch import fetched
from pipeline.media.crop_box import crop_around, cut
from pipeline.media.faces import choose_face, load_detector
from pipeline.media.image import resize_square
from pipeline.media.reader import MediaReader
from pipeline.reuse.stage_facts import StageFacts
from pipeline.stages.base import Stage
from pipeline.talker import Arrays, TalkerInfo
from pipeline.tasks import AssetTask, Input

DRIVER_LOOK_EVERY = 15
"""Frames at 25 a second between two looks at a driver, as in the published demo."""


class CropStage(Stage[AssetTask]):
    name = "crop"
    task_type = AssetTask

    def __init__(self, settings: RunSettings, info: TalkerInfo, output: str, threads: int) -> None:
        super().__init__(settings, info, output, threads)
        self.media = MediaReader(settings.limits)
        self.media.warm()
        self.facts = StageFacts(settings, info)
        self.detector = load_detector(settings.detector)

    def process(self, task: AssetTask) -> None:
        if task.kind == "portrait":
            self._portrait(task)
        elif task.kind == "driver" and self.settings.driver_face == "checked":
            self._driver(task)

    def _portrait(self, task: AssetTask) -> None:
        with fetched(task.uri, self.settings) as source:
            task.input = Input(uri=task.uri, size=source.size, sha256=source.sha256)
            task.picture = self.facts.crop_key(task, source.sha256)
            if self.store.exists(task.picture):
                task.faces_seen = self._stored_faces(task.picture)
                return
            image = self.media.image(source.path)
        found: Arrays = {}
        if task.crop:
            image, found["face"], task.faces_seen = self._crop(image, task)
        picture = resize_square(image, self.info.resolution)
        seen = -1 if task.faces_seen is None else task.faces_seen
        self.store.put_arrays(task.picture, {"image": picture, "faces_seen": np.array(seen), **found})
        task.computed.append(self.name)

    def _crop(self, image: np.ndarray, task: AssetTask) -> tuple[np.ndarray, np.ndarray, int]:
        """The square, the face's box [left, top, right, bottom] in parts of it, and how many faces there are."""
        faces = self.detector.detect(image)
        face = choose_face(faces, self.settings.face)
        box = crop_around(face.box, (image.shape[1], image.shape[0]), task.crop_rule)
        left, top, right, bottom = face.box
        within = [
            (left - box.x0) / box.width,
            (top - box.y0) / box.height,
            (right - box.x0) / box.width,
            (bottom - box.y0) / box.height,
        ]
        return cut(image, box), np.array(within), len(faces)

    def _stored_faces(self, key: str) -> int | None:
        seen = int(self.store.get_arrays(key)["faces_seen"])
        return None if seen < 0 else seen

    def _driver(self, task: AssetTask) -> None:
        with fetched(task.uri, self.settings) as source:
            task.picture = self.facts.crop_key(task, source.sha256)
            if self.store.exists(task.picture):
                return
            frames = self.media.sampled(source.path, DRIVER_LOOK_EVERY)
            if not any(self.detector.detect(frame, small=False) for frame in frames):
                raise InputError(
                    f"no face found in any of the looked-at frames of {task.uri} (every {DRIVER_LOOK_EVERY}th)",
                    hint="give a driver that shows one upright face, or set driver_face: unchecked",
                )
            self.store.put_arrays(task.picture, {"has_face": np.array(True)})
            task.computed.append(self.name)

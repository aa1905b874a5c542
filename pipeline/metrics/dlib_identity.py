"""How far rendered faces are from the portrait's, by dlib's face recognition where the extra ``identity`` is installed.

The network (dlib_face_recognition_resnet_model_v1) and the five landmarks that faces are aligned by are Davis King's,
CC0. It was trained to put pictures of a person within 0.6 of each other. This is not CSIM.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
from PIL import Image

from pipeline.metrics.catalogue import Level, Values
from pipeline.metrics.sampling import is_described

# The detector finds faces from 80 pixels on.
_SIDE = 512
# That there is a face is known, so one that the detector is hardly sure of will do.
_LEAST_SCORE = -0.3


class Describe(Protocol):
    def __call__(self, picture: np.ndarray, /) -> np.ndarray | None:
        """uint8 [H, W, 3] RGB -> float [128] of its largest face; None where none is found."""


@dataclass
class DlibMeter:
    """Takes an item's frames in order and remembers a few numbers of each that it looks at."""

    describe: Describe
    portrait: np.ndarray
    """What ``describe`` says of the portrait."""
    frames: int
    """How many the item will have."""
    level: Level = "basic"
    _seen: int = 0
    _looked: int = 0
    _distances: list[float] = field(default_factory=list)

    def add(self, frames: np.ndarray) -> None:
        """uint8 [n, R, R, 3] RGB, which are only read."""
        for index in range(len(frames)):
            if is_described(self._seen + index, self.frames, self.level):
                self._looked += 1
                found = self.describe(frames[index])
                if found is not None:
                    self._distances.append(float(np.linalg.norm(found - self.portrait)))
        self._seen += len(frames)

    def values(self, recording: np.ndarray | None) -> Values:
        """Without a face in any of the frames, only how many were missed."""
        found: Values = {"dlib_faces_missed": self._looked - len(self._distances)}
        if self._distances:
            found["dlib_distance"] = float(np.mean(self._distances))
            found["dlib_distance_worst"] = max(self._distances)
        return found


@cache
def dlib_descriptor() -> Describe | None:
    """dlib's detector, landmarks and network; None without the extra."""
    if find_spec("face_recognition_models") is None:
        return None
    dlib: Any = importlib.import_module("dlib")
    models: Any = importlib.import_module("face_recognition_models")
    detect = dlib.get_frontal_face_detector()
    landmarks = dlib.shape_predictor(models.pose_predictor_five_point_model_location())
    network = dlib.face_recognition_model_v1(models.face_recognition_model_location())

    def describe(picture: np.ndarray, /) -> np.ndarray | None:
        scaled = np.array(Image.fromarray(picture).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR))
        faces, _, _ = detect.run(scaled, 0, _LEAST_SCORE)
        if not faces:
            return None
        largest = max(faces, key=lambda face: face.area())
        return np.array(network.compute_face_descriptor(scaled, landmarks(scaled, largest)))

    return describe

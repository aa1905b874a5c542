"""Finding faces. Every detector's boxes are given in the convention of the published one (S3FD, as in WIDER FACE)."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from PIL import Image

from pipeline.errors import CannotRun, InputError

DetectorName = Literal["dlib", "s3fd"]


@dataclass(frozen=True)
class Face:
    """One face: its box in pixels of the picture (may reach outside), and how sure the detector is.

    Scores of different detectors can't be compared.
    """

    box: tuple[float, float, float, float]
    """``(x1, y1, x2, y2)``, from the hairline to the chin and from cheek to cheek."""
    score: float

    @property
    def area(self) -> float:
        x1, y1, x2, y2 = self.box
        return (x2 - x1) * (y2 - y1)


class FaceDetector(Protocol):
    """What finds faces."""

    def detect(self, image: np.ndarray, *, small: bool = True) -> list[Face]:
        """Faces above the detector's own threshold in uint8 [H, W, 3] RGB, ordered by falling score.

        ``small=False`` may leave out the search for small faces, which costs most where there is no face at all.
        """
        ...


def load_detector(name: DetectorName, device: str = "cpu") -> FaceDetector:
    """Make a detector by name. Raises `CannotRun` if its package or its weights aren't there."""
    return DlibDetector() if name == "dlib" else S3FDDetector(device)


def choose_face(faces: Sequence[Face], which: Literal["largest", "first"]) -> Face:
    """The face a portrait is cropped around: the largest, or the detector's surest as published.

    Raises `InputError` if there is none.
    """
    if not faces:
        raise InputError(
            "expected a face in the picture, found none",
            hint="use a picture with a clear, frontal face, or set crop=false",
        )
    # Of equal areas the surer one: max keeps the first.
    return max(faces, key=lambda face: face.area) if which == "largest" else faces[0]


class DlibDetector:
    """dlib's frontal HOG detector (Boost licence, weights in its code, nothing is downloaded).

    Its square boxes come in sizes that differ by a fifth, on a grid of 8 pixels, so each picture is searched at three
    scales within one such step and the boxes are averaged; a face must show at two of the three. The average is
    then mapped to the S3FD convention by `_MAP`.
    """

    threshold = 0.3
    """Score a face must reach at its best scale. True faces scored 0.6 to 3, the best false one 0.3."""

    _MAP = (-0.090, 0.919, 1.258)
    """Centre moved down by, width and height as, a part of dlib's side.

    Fitted to RetinaFace-mobile0.25 (trained on WIDER FACE, as S3FD is) on 156 pictures: photographs, a statue and video
    frames of 7 people, at 3 sizes each and mirrored; the mean of the people's means. No sideways shift, for a mirrored
    picture must give the mirrored box. Residuals in parts of the face's height, root mean square (largest): centre
    0.036 (0.09) across and 0.027 (0.12) down, width 0.047 (0.13), height 0.056 (0.16); for a person left out of the
    fit 0.026, 0.023, 0.044 and 0.052 on average.
    """

    _LONGEST = 640
    """Longest side a picture is scaled to: faces from an eighth of it are found."""
    _LONGEST_SMALL = 1600
    """The same where that found none: faces from a twentieth."""
    _STEPS = (1.0, (6 / 5) ** (1 / 3), (6 / 5) ** (2 / 3))
    """The three scales: even parts of the step between the sizes of dlib's boxes."""
    _SAME_FACE = 0.4
    """Overlap (intersection over union) from which two boxes are of one face."""

    def __init__(self) -> None:
        self._detector = importlib.import_module("dlib").get_frontal_face_detector()

    def detect(self, image: np.ndarray, *, small: bool = True) -> list[Face]:
        """See `FaceDetector.detect`."""
        faces = self._detect_at(image, self._LONGEST)
        return faces or (self._detect_at(image, self._LONGEST_SMALL) if small else [])

    def _detect_at(self, image: np.ndarray, longest: int) -> list[Face]:
        seen = [found for step in self._STEPS for found in self._squares(image, longest * step)]
        groups: list[list[tuple[np.ndarray, float]]] = []
        for square, score in seen:
            group = next((g for g in groups if _overlap(g[0][0], square) > self._SAME_FACE), None)
            if group is None:
                groups.append([(square, score)])
            else:
                group.append((square, score))
        faces = [
            Face(self._to_s3fd(np.mean([square for square, _ in group], axis=0)), max(score for _, score in group))
            for group in groups
            if len(group) >= 2
        ]
        return sorted((f for f in faces if f.score >= self.threshold), key=lambda f: f.score, reverse=True)

    def _squares(self, image: np.ndarray, longest: float) -> list[tuple[np.ndarray, float]]:
        """dlib's boxes ``[x1, y1, x2, y2]`` in the picture's pixels, and their scores, at one scale."""
        height, width = image.shape[:2]
        scale = longest / max(height, width)
        size = max(round(width * scale), 1), max(round(height * scale), 1)
        scaled = np.array(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
        boxes, scores, _ = self._detector.run(scaled, 0, 0.0)
        # dlib's right and bottom are the last pixels inside.
        return [
            (np.array([box.left(), box.top(), box.right() + 1, box.bottom() + 1]) / scale, float(score))
            for box, score in zip(boxes, scores, strict=True)
        ]

    def _to_s3fd(self, square: np.ndarray) -> tuple[float, float, float, float]:
        down, across, tall = self._MAP
        x1, y1, x2, y2 = (float(value) for value in square)
        side = x2 - x1
        x, y = (x1 + x2) / 2, (y1 + y2) / 2 + down * side
        return x - across * side / 2, y - tall * side / 2, x + across * side / 2, y + tall * side / 2


class S3FDDetector:
    """The published detector, from the optional package face_alignment, which downloads its weights once.

    Run as published: on the full-size picture, boxes with a score above 0.95.
    """

    threshold = 0.95

    def __init__(self, device: str = "cpu") -> None:
        """Load the network. Raises `CannotRun` if the package or its weights can't be had."""
        try:
            sfd = importlib.import_module("face_alignment.detection.sfd.sfd_detector")
        except ImportError as exc:
            raise CannotRun(
                f"detector s3fd needs the package face-alignment, which can't be imported ({exc}): "
                "pip install 'imtalker[s3fd]', or use detector=dlib"
            ) from exc
        try:
            self._detector: Any = sfd.SFDDetector(device)
        except OSError as exc:
            raise CannotRun(
                f"detector s3fd has no weights and can't download them ({exc}): connect once, or use detector=dlib"
            ) from exc

    def detect(self, image: np.ndarray, *, small: bool = True) -> list[Face]:
        """See `FaceDetector.detect`; small faces are always searched for."""
        boxes = [[float(value) for value in box] for box in self._detector.detect_from_image(image)]
        return [Face((x1, y1, x2, y2), score) for x1, y1, x2, y2, score in boxes if score > self.threshold]


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes ``[x1, y1, x2, y2]``."""
    size = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    common = float(np.prod(np.maximum(size, 0)))
    return common / (float(np.prod(a[2:] - a[:2])) + float(np.prod(b[2:] - b[:2])) - common)

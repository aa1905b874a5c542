"""MediaPipe's face mesh, the optional package that finds landmarks."""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
from typing import Any

import numpy as np

from pipeline.config import RunSettings
from pipeline.errors import CannotRun
from pipeline.metrics.face_geometry import POINTS
from pipeline.metrics.landmarks import Tracker, Trackers

VERSION = "0.10.14"
"""The last that goes with current numpy, carries its weights and sends nothing: later ones report to their maker."""

_BLANKS = 3
_LOG = logging.getLogger(__name__)


def wanted(settings: RunSettings) -> bool:
    """Whether a run by these settings looks for landmarks, as far as this machine can tell. Imports nothing."""
    if settings.metrics == "off" or settings.landmarks == "off":
        return False
    return settings.landmarks == "always" or (settings.metrics == "full" and _installed() == VERSION)


def landmark_trackers(settings: RunSettings) -> Trackers | None:
    """What finds landmarks; None where they are not `wanted`, or, unless they are demanded, can't be had.

    Raises CannotRun if ``landmarks: always`` can't be kept.
    """
    if not wanted(settings):
        return None
    try:
        mesh = _imported()
    except CannotRun as exc:
        if settings.landmarks == "always":
            raise
        _LOG.warning("no landmarks, mouths are measured by pixels: %s", exc)
        return None

    def opened() -> Tracker:
        return FaceMeshTracker(mesh)

    return Trackers(opened)


class FaceMeshTracker:
    """Follows one face through a video; see `Tracker`."""

    def __init__(self, mesh: Any) -> None:
        """``mesh`` is the module ``mediapipe.solutions.face_mesh``."""
        self._graph = mesh.FaceMesh(static_image_mode=False, max_num_faces=1, refine_landmarks=True)
        self._size = (64, 64)

    def track(self, frames: np.ndarray) -> np.ndarray:
        """Points in picture widths."""
        found = np.full((len(frames), POINTS, 3), np.nan, np.float32)
        height, width = self._size = (int(frames.shape[1]), int(frames.shape[2]))
        for points, frame in zip(found, frames, strict=True):
            faces = self._graph.process(np.ascontiguousarray(frame)).multi_face_landmarks
            if faces:
                points[:] = [(point.x, point.y * height / width, point.z) for point in faces[0].landmark]
        return found

    def forget(self) -> None:
        # All it knows of earlier frames is where the face was. On a black picture it loses that, and is as it was when
        # new; a new one would take longer, and write its warnings again.
        blank = np.zeros((*self._size, 3), np.uint8)
        for _ in range(_BLANKS):
            if not self._graph.process(blank).multi_face_landmarks:
                return
        self._graph.reset()


def _imported() -> Any:
    found = _installed()
    how = "pip install 'imtalker[landmarks]', or set landmarks to auto or off"
    if found != VERSION:
        raise CannotRun(f"landmarks need the package mediapipe, expected {VERSION}, found {found or 'none'}: {how}")
    try:
        return importlib.import_module("mediapipe").solutions.face_mesh
    except (ImportError, OSError, AttributeError) as exc:
        raise CannotRun(
            f"mediapipe {found} can't be imported ({exc}): it needs libGL and glib (Debian: libgl1 libglib2.0-0); {how}"
        ) from exc


def _installed() -> str | None:
    try:
        return importlib.metadata.version("mediapipe")
    except importlib.metadata.PackageNotFoundError:
        return None

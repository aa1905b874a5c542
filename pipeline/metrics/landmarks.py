"""Mouth, pose, gaze and blinks from facial landmarks, frame by frame.

A `Tracker` finds the landmarks. The one there is needs an optional package, see `pipeline.metrics.face_mesh`.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Protocol

import numpy as np

from pipeline.metrics import face_geometry
from pipeline.metrics.catalogue import Values

LEAST_FOUND = 0.8
"""Share of frames with a face from which on the others can be filled in; below, landmarks are not relied on."""

_ANGLES = ("yaw_range_deg", "pitch_range_deg", "roll_range_deg")
_LOG = logging.getLogger(__name__)


class Tracker(Protocol):
    """Finds landmarks in the frames of one video after another."""

    def track(self, frames: np.ndarray) -> np.ndarray:
        """uint8 [n, R, R, 3] RGB, in order -> float [n, 478, 3] as in `face_geometry`, NaN where no face is found."""

    def forget(self) -> None:
        """The next frame is another video's."""


class Trackers:
    """Trackers that wait for their next video: opening one takes as long as tracking many frames.

    May be asked from several threads; each video has a tracker of its own for as long as it lasts.
    """

    def __init__(self, open_tracker: Callable[[], Tracker]) -> None:
        self._open = open_tracker
        self._waiting: deque[Tracker] = deque()

    def take(self) -> Tracker:
        try:
            return self._waiting.popleft()
        except IndexError:
            return self._open()

    def give_back(self, tracker: Tracker) -> None:
        tracker.forget()
        self._waiting.append(tracker)


class LandmarkMeter:
    """Takes an item's frames in order and keeps seven numbers of each.

    A tracker that fails costs the item its landmarks and nothing else.
    """

    def __init__(self, trackers: Trackers, fps: int) -> None:
        self._trackers, self._fps = trackers, fps
        self._tracker: Tracker | None = None
        self._failed = False
        self._lips: list[float] = []
        self._angles: list[np.ndarray] = []
        self._eyes: list[float] = []
        self._gaze: list[np.ndarray] = []

    def add(self, frames: np.ndarray) -> None:
        """uint8 [n, R, R, 3] RGB, which are only read."""
        if self._failed:
            return
        try:
            if self._tracker is None:
                self._tracker = self._trackers.take()
            self._note(self._tracker.track(frames).astype(np.float64))
        except Exception:  # noqa: BLE001  (there are pixels still)
            _LOG.exception("finding landmarks failed; the item is measured by its pixels alone")
            self._failed, self._tracker = True, None

    def close(self) -> None:
        """There are no more frames."""
        tracker, self._tracker = self._tracker, None
        if tracker is None:
            return
        try:
            self._trackers.give_back(tracker)
        except Exception:  # noqa: BLE001  (the next item opens another)
            _LOG.exception("a landmark tracker could not be made ready for the next item")

    @property
    def found(self) -> float | None:
        """Share of frames with a face; None where the tracker failed, or for no frames."""
        return None if self._failed or not self._lips else float(np.isfinite(self._lips).mean())

    @property
    def reliable(self) -> bool:
        return self.found is not None and self.found >= LEAST_FOUND

    @property
    def lips(self) -> np.ndarray:
        """`face_geometry.lip_aperture` of each frame, filled in where no face was found; for `reliable` ones."""
        return _filled(np.array(self._lips))

    def values(self) -> Values:
        """Nothing but ``landmarks_found`` where landmarks are not `reliable`."""
        if not self.reliable:
            return {"landmarks_found": self.found}
        seen = np.isfinite(self._lips)
        angles, eyes = np.array(self._angles)[seen], np.array(self._eyes)
        awake = np.array(self._gaze)[seen][~face_geometry.shut(eyes[seen])]
        blinks = face_geometry.blinks(_filled(eyes), self._fps)
        minutes = len(eyes) / self._fps / 60
        return {
            "landmarks_found": self.found,
            "lip_range": float(_range(self.lips)),
            **{name: float(span) for name, span in zip(_ANGLES, _range(angles), strict=True)},
            "gaze_range": float(_range(awake).max()) if len(awake) else None,
            "blinks_a_minute": None if blinks is None else blinks / minutes,
        }

    def curves(self) -> dict[str, np.ndarray]:
        """A number a frame [T] for each signal, NaN without a face; none at all where landmarks are not `reliable`."""
        if not self.reliable:
            return {}
        angles, gaze = np.array(self._angles), np.array(self._gaze)
        return {
            "lip_aperture": np.array(self._lips),
            "yaw_deg": angles[:, 0],
            "pitch_deg": angles[:, 1],
            "roll_deg": angles[:, 2],
            "eye_opening": np.array(self._eyes),
            "gaze_right": gaze[:, 0],
            "gaze_down": gaze[:, 1],
        }

    def _note(self, points: np.ndarray) -> None:
        self._lips += face_geometry.lip_aperture(points).tolist()
        self._angles += list(face_geometry.head_angles(points))
        self._eyes += face_geometry.eye_opening(points).tolist()
        self._gaze += list(face_geometry.gaze(points))


def _range(values: np.ndarray) -> np.ndarray:
    """From the 5th to the 95th percentile, along the first axis."""
    found: np.ndarray = np.ptp(np.percentile(values, [5, 95], axis=0), axis=0)
    return found


def _filled(values: np.ndarray) -> np.ndarray:
    """NaN replaced by straight lines between neighbours; some are finite."""
    known = np.isfinite(values)
    return np.interp(np.arange(len(values)), np.flatnonzero(known), values[known])

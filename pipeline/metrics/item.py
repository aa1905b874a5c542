"""All metrics of one item: frames come in as they are rendered, numbers come out when the video is there."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from pipeline.metrics import codes
from pipeline.metrics.catalogue import VERSION, Level, Values
from pipeline.metrics.landmarks import LandmarkMeter
from pipeline.metrics.listening import Heard, Pieces, listen
from pipeline.metrics.pixels import PixelMeter, SourceLook, frozen, largest_step, longest_run
from pipeline.metrics.sampling import is_encoded
from pipeline.metrics.sound import end_gap_s
from pipeline.metrics.sync import silence_ratio, synchrony

Origin = Literal["frames", "video"]
"""What is measured: frames as they are rendered, or those of the video, which the encoder has changed."""

Inspect = Callable[[np.ndarray], dict[str, np.ndarray]]
"""`pipeline.talker.Talker.inspect`."""


class FrameMeter(Protocol):
    """What else may watch an item: networks that only measure, and the driver."""

    def add(self, frames: np.ndarray) -> None:
        """uint8 [n, R, R, 3] RGB, in order, which are only read."""
        ...

    def values(self, recording: np.ndarray | None) -> Values:
        """Its metrics; ``recording``: `pipeline.metrics.listening.Heard.beginning`, None for an item without sound."""
        ...


@dataclass(frozen=True)
class Source:
    """An item's portrait as metrics see it; one for all items of the portrait."""

    look: SourceLook
    identity: np.ndarray | None = None
    """The model's identity vector [D]."""
    face: np.ndarray | None = None
    """ArcFace's embedding [D], where its weights are named."""
    dlib: np.ndarray | None = None
    """dlib's descriptor [128], where its network is installed and finds a face."""


@dataclass(frozen=True)
class Asked:
    """What the video should be."""

    frames: int
    fps: int
    codes: np.ndarray | None = None
    """Motion codes [T, D]; None where they are gone."""
    window: int | None = None
    """Frames that the motion was made in at a time; None for motion without seams."""


@dataclass
class ItemMeter:
    """Takes an item's frames in order; see `PixelMeter` on memory.

    ``inspect`` is asked for the codes of the frames that `is_encoded` names; None leaves out what is made of them.
    ``beside`` are meters that see every frame, ``landmarks`` another one, which the mouth is read from if it can be.
    """

    asked: Asked
    source: Source
    level: Level = "basic"
    inspect: Inspect | None = None
    origin: Origin = "frames"
    beside: Sequence[FrameMeter] = ()
    landmarks: LandmarkMeter | None = None
    pixels: PixelMeter = field(init=False)
    seconds: float = 0.0
    _heard: Heard | None = None
    _codes: list[np.ndarray] = field(default_factory=list)
    _identities: list[np.ndarray] = field(default_factory=list)
    _checked: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pixels = PixelMeter(self.source.look)

    def add(self, frames: np.ndarray) -> None:
        """uint8 [n, R, R, 3] RGB, which are only read."""
        started = time.perf_counter()
        first = len(self.pixels)
        self.pixels.add(frames)
        for meter in self.beside:
            meter.add(frames)
        if self.landmarks is not None:
            self.landmarks.add(frames)
        if self.inspect is not None:
            count, level = self.asked.frames, self.level
            chosen = [index for index in range(len(frames)) if is_encoded(first + index, count, level)]
            if chosen:
                self._note(self.inspect(frames[chosen]), [first + index for index in chosen])
        self.seconds += time.perf_counter() - started

    def listen(self, recording: Pieces, heard: Pieces) -> None:
        """Once all frames are there: the sound that the item was given, as far as its frames go, and the video's."""
        started = time.perf_counter()
        self._heard = listen(recording, heard, len(self.pixels), self.asked.fps, with_beginning=bool(self.beside))
        self.seconds += time.perf_counter() - started

    def finish(self, path: Path) -> Values:
        """The metrics, once the video lies at ``path``."""
        started = time.perf_counter()
        found: Values = {"metrics_level": self.level, "metrics_version": VERSION, "metrics_from": self.origin}
        found["frames_missing"] = self.asked.frames - len(self.pixels)
        found["end_gap_s"] = end_gap_s(path)
        if self.landmarks is not None:
            self.landmarks.close()
            found |= self.landmarks.values()
        if len(self.pixels):
            found |= self._of_pixels() | self._of_codes()
            found |= self._of_sound()
        for meter in self.beside:
            found |= meter.values(None if self._heard is None else self._heard.beginning)
        self.seconds += time.perf_counter() - started
        found["metrics_s"] = self.seconds
        return {name: _plain(value) for name, value in found.items()}

    def curves(self) -> dict[str, np.ndarray]:
        """Once finished, a number a frame [T] for each of: brightness, change, opening, what sound and codes add."""
        pixels, asked = self.pixels, self.asked
        drawn = {
            "brightness": np.array(pixels.brightness),
            "change": np.array(pixels.change),
            "mouth_opening": pixels.opening,
        }
        if self._heard is not None:
            speech = self._heard.speech
            drawn |= {"sound_db": speech.level_db, "expected_opening": speech.opening}
        if asked.codes is not None and len(asked.codes) == len(pixels):
            drawn["code_step"] = codes.steps(asked.codes)
        for name, values in self._dense().items():
            if len(values) == len(pixels):
                drawn[name] = values
        return drawn if self.landmarks is None else drawn | self.landmarks.curves()

    def _note(self, seen: dict[str, np.ndarray], indices: list[int]) -> None:
        self._checked += indices
        if "motion" in seen:
            self._codes += list(seen["motion"])
        if "identity" in seen:
            self._identities += list(seen["identity"])

    def _dense(self) -> dict[str, np.ndarray]:
        found = {}
        if self._codes and self.asked.codes is not None and max(self._checked) < len(self.asked.codes):
            found["code_distance"] = codes.distances(np.array(self._codes), self.asked.codes[self._checked])
        if self._identities and self.source.identity is not None:
            found["identity_distance"] = codes.cosine_distances(np.array(self._identities), self.source.identity)
        return found

    def _of_pixels(self) -> Values:
        pixels, asked, look = self.pixels, self.asked, self.source.look
        steps = codes.steps(asked.codes) if asked.codes is not None and len(asked.codes) == len(pixels) else None
        still = frozen(pixels.change, steps)
        brightness, change = np.array(pixels.brightness), np.array(pixels.change)
        sharpness = float(np.median(pixels.sharpnesses))
        return {
            "black_frames": pixels.black_frames,
            "frozen_frames": int(still.sum()),
            "longest_freeze_s": longest_run(still) / asked.fps,
            "brightness_shift": float(brightness.mean() - look.brightness),
            "brightness_jump": float(np.abs(np.diff(brightness)).max(initial=0.0)),
            "sharpness_ratio": sharpness / look.sharpness if look.sharpness > 1e-6 else None,
            "flicker": pixels.flicker,
            "largest_step_pixels": largest_step(change),
            "portrait_distance": max(pixels.strangeness),
            "seam_step_pixels": codes.seam_step(change, asked.window) if asked.window else None,
            "head_range": pixels.head_range,
            "mouth_from": self._mouth()[0],
            "mouth_range": float(np.ptp(np.percentile(pixels.opening, [5, 95]))),
        }

    def _of_codes(self) -> Values:
        found: Values = {}
        asked = self.asked
        if asked.codes is not None:
            found["nonfinite_values"] = int(asked.codes.size - np.isfinite(asked.codes).sum())
            found["motion_jitter"] = codes.jitter(asked.codes)
            if asked.window:
                found["seam_step"] = codes.seam_step(codes.steps(asked.codes), asked.window)
        found["codes_checked"] = len(self._checked)
        dense = self._dense()
        if "code_distance" in dense:
            found["code_distance"] = float(dense["code_distance"].mean())
        if "identity_distance" in dense:
            found["identity_distance"] = float(dense["identity_distance"].mean())
            found["identity_worst"] = float(dense["identity_distance"].max())
        return found

    def _mouth(self) -> tuple[str, np.ndarray]:
        """What the mouth's opening [T] was read from, and the opening."""
        if self.landmarks is not None and self.landmarks.reliable:
            return "landmarks", self.landmarks.lips
        return "pixels", self.pixels.opening

    def _of_sound(self) -> Values:
        if self._heard is None:
            return {}
        found: Values = {}
        speech, kept = self._heard.speech, self._heard.kept
        _, opening = self._mouth()
        found["speech_from"] = speech.found_by
        found["speech_share"] = float(speech.speaking.mean())
        found["mouth_silence_ratio"] = silence_ratio(opening, speech.speaking, speech.silent)
        sync = synchrony(opening, speech.opening)
        if sync is not None:
            found |= {"lip_lag_frames": sync.lag, "lip_correlation": sync.correlation}
            found["lip_confidence"] = sync.confidence
        if kept is not None:
            found |= {"audio_correlation": kept.correlation, "audio_level_db": kept.level_db}
        return found


def _plain(value: object) -> object:
    """For JSON, which has no infinities; six digits are more than any metric means."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.6g}") if np.isfinite(value) else None

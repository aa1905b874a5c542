"""Sets of videos, and the moments of a network's features over them: what FID and FVD compare."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from math import gcd
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from imtalker.engine.precision import exact_float32
from manifests.build import VIDEO_ENDINGS, list_files
from manifests.errors import ManifestError
from pipeline.config import RunSettings
from pipeline.errors import CannotRun, InputError, ItemError
from pipeline.inputs.fetch import fetched, redacted
from pipeline.media.reader import MediaReader
from pipeline.metrics.frechet import Moments
from pipeline.records.index import RecordIndex
from pipeline.storage import Store

Measure = Literal["fid", "fvd"]


@dataclass(frozen=True)
class Video:
    """One of a set."""

    uri: str
    name: str
    """For people: an item's id, or the path in the folder."""
    sha256: str | None = None
    """What its record says of its content."""


@dataclass(frozen=True)
class Eye:
    """A network that sees samples of ``length`` frames, one from each ``step`` frames on."""

    network: Callable[[Tensor], Tensor]
    """RGB in 0..1, [n, 3, length, H, W] -> features [n, width]."""
    width: int
    length: int
    step: int
    batch: int
    """Samples seen at once."""
    device: torch.device
    weights: str
    """Their file."""
    sha256: str

    @torch.inference_mode()
    def features(self, samples: np.ndarray) -> np.ndarray:
        """uint8 [n, length, H, W, 3] RGB -> [n, width]. Raises CannotRun for features that are not finite."""
        pictures = torch.from_numpy(samples).to(self.device).permute(0, 4, 1, 2, 3).float() / 255
        with exact_float32(self.device):
            found = self.network(pictures).float().cpu().numpy()
        if not np.isfinite(found).all():
            raise CannotRun(f"the network of {self.weights} gives numbers that are not finite; are these its weights?")
        return found


@dataclass
class SeenSet:
    """What was seen of one set."""

    uri: str
    moments: dict[Measure, Moments]
    videos: int = 0
    """Those that could be read."""
    without: dict[Measure, int] = field(default_factory=dict)
    """How many of these are too short for a sample."""
    unreadable: list[dict[str, str]] = field(default_factory=list)
    """Each video that could not be read, with the reason."""
    hashes: list[str] = field(default_factory=list)

    @property
    def sha256(self) -> str:
        """Of the contents of the videos that were read, in whatever order: says whether two sets are the same."""
        return hashlib.sha256("\n".join(sorted(self.hashes)).encode()).hexdigest()


def output_videos(store: Store, limit: int | None) -> list[Video]:
    """The videos of a run's items in the manifest's order, at most ``limit``; also of those that a gate stopped."""
    found = sorted(
        (record.index, key, str(record.video["sha256"]))
        for key, record in RecordIndex(store).records()
        if record.video is not None
    )
    return [Video(store.url(f"videos/{key}.mp4"), key, sha256) for _, key, sha256 in found[:limit]]


def reference_videos(uri: str, settings: RunSettings, limit: int | None) -> list[Video]:
    """The videos of a folder and its subfolders by their paths, at most ``limit``; or those of a run's output.

    Raises CannotRun where there are none.
    """
    try:
        store = Store(uri, settings.storage_options, settings.retries)
        if store.exists("run.json"):
            if not (videos := output_videos(store, limit)):
                raise CannotRun(f"the run in {redacted(uri)} has no video")
            return videos
        found, _ = list_files(uri, VIDEO_ENDINGS, settings.storage_options)
    except (CannotRun, ManifestError) as exc:
        raise CannotRun(f"--reference: {redacted(str(exc))}") from exc
    return [Video(source.uri, source.path) for source in found[:limit]]


def see_set(
    uri: str,
    videos: Sequence[Video],
    eyes: dict[Measure, Eye],
    size: int,
    settings: RunSettings,
    note: Callable[[bool], None],
) -> SeenSet:
    """Read each of ``videos`` once, ``size`` x ``size`` at 25 frames a second.

    One that can't be read to its end adds nothing but its name and the reason. ``note`` is told after each whether that
    was so. Raises CannotRun for features that are not finite.
    """
    found = SeenSet(redacted(uri), {name: Moments(eye.width) for name, eye in eyes.items()})
    media = MediaReader(settings.limits)
    for video in videos:
        try:
            sha256, moments = _seen(video, eyes, size, settings, media)
        except ItemError as exc:
            found.unreadable.append({"video": redacted(video.name), "message": redacted(exc.message)})
            note(True)
            continue
        found.videos += 1
        found.hashes.append(sha256)
        for name, one in moments.items():
            found.moments[name].include(one)
            found.without[name] = found.without.get(name, 0) + (one.count == 0)
        note(False)
    return found


def _seen(
    video: Video, eyes: dict[Measure, Eye], size: int, settings: RunSettings, media: MediaReader
) -> tuple[str, dict[Measure, Moments]]:
    """A video's hash and its own moments. Raises ItemError where it can't be read."""
    # Frames that nobody looks at are not even scaled.
    every = gcd(*(eye.step if eye.length == 1 else 1 for eye in eyes.values()))
    samplers = {name: _Sampler(eye, every) for name, eye in eyes.items()}
    with fetched(video.uri, settings) as local:
        if video.sha256 is not None and local.sha256 != video.sha256:
            raise InputError(f"{video.name}: the video is not what its record says", hint="run again")
        with closing(media.driver(local.path, size, every=every)) as windows:
            for frames in windows:
                for sampler in samplers.values():
                    sampler.add(frames)
        return local.sha256, {name: sampler.ended() for name, sampler in samplers.items()}


class _Sampler:
    """Takes a video's frames in order, each ``every``-th of them, and holds no more than a batch of samples."""

    def __init__(self, eye: Eye, every: int) -> None:
        self._eye, self._every = eye, every
        self._moments = Moments(eye.width)
        self._seen = 0
        self._waiting: list[np.ndarray] = []

    def add(self, frames: np.ndarray) -> None:
        """uint8 [n, H, W, 3] RGB."""
        for frame in frames:
            if self._seen % self._eye.step < self._eye.length:
                self._waiting.append(frame)
            self._seen += self._every
            if len(self._waiting) == self._eye.length * self._eye.batch:
                self._look()

    def ended(self) -> Moments:
        """Of all samples; frames that are too few for another one are left out."""
        self._look()
        return self._moments

    def _look(self) -> None:
        samples = list(_whole(self._waiting, self._eye.length))
        self._waiting = []
        if samples:
            self._moments.add(self._eye.features(np.stack(samples)))


def _whole(frames: list[np.ndarray], length: int) -> Iterator[np.ndarray]:
    for begin in range(0, len(frames) - length + 1, length):
        yield np.stack(frames[begin : begin + length])

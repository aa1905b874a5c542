"""FID and FVD of a finished run against real videos, or against another run.

Heusel et al., "GANs trained by a two time-scale update rule converge to a local Nash equilibrium" (2017); Unterthiner
et al., "Towards accurate generative models of video: a new metric and challenges" (2018). ``docs/metrics.md`` states
the protocol.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from manifests.uri import absolute
from pipeline.config import RunSettings
from pipeline.errors import CannotRun
from pipeline.inputs.fetch import file_sha256, redacted
from pipeline.ledger import now
from pipeline.media.timeline import FPS
from pipeline.metrics import i3d, inception
from pipeline.metrics.again import last_settings
from pipeline.metrics.frechet import frechet_distance
from pipeline.metrics.sets import Eye, Measure, SeenSet, output_videos, reference_videos, see_set
from pipeline.progress import RunProgress
from pipeline.storage import Store
from pipeline.summary import package_versions

NAME = "set_metrics.json"
PROTOCOL = 1
"""Raised when a definition changes: numbers of other protocols don't compare."""
EVERY = 25
"""Of so many frames FID takes the first, unless something else is said: one a second."""
CLIP_FRAMES = 16

_UNITS: dict[Measure, str] = {"fid": "frames", "fvd": "clips"}
_FILES: dict[Measure, str] = {"fid": "inception", "fvd": "i3d"}
_NAMED = 20
"""Videos that could not be read which people are told of; the file has all."""


@dataclass(frozen=True)
class SetMetrics:
    """What was found. ``sets`` are the run's output and the reference."""

    values: dict[Measure, float | None]
    """Of what was asked for; None where a set had fewer than two samples."""
    sets: dict[str, SeenSet]
    notes: list[str]
    protocol: dict[str, Any]
    weights: dict[str, str]
    device: str

    @property
    def exit_code(self) -> int:
        lacking = None in self.values.values() or any(seen.unreadable for seen in self.sets.values())
        return 3 if lacking else 0

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as they are written."""
        return {
            "fid": self.values.get("fid"),
            "fvd": self.values.get("fvd"),
            "reference": self.sets["reference"].uri,
            "samples": {name: _samples(seen) for name, seen in self.sets.items()},
            "notes": self.notes,
            "unreadable": {name: seen.unreadable for name, seen in self.sets.items()},
            "protocol": self.protocol,
            "weights_sha256": self.weights,
            "device": self.device,
            "versions": {
                "python": platform.python_version(),
                **package_versions("imtalker", "torch", "numpy", "av"),
            },
            "measured_at": now(),
        }

    def text(self) -> str:
        """For people."""
        rows = [
            *((name.upper(), "-" if value is None else f"{value:.4g}") for name, value in self.values.items()),
            *((name, f"{seen.uri}: {_counts(seen)}") for name, seen in self.sets.items()),
            *(("note", note) for note in self.notes),
        ]
        for name, seen in self.sets.items():
            rows += [(f"unreadable, {name}", f"{one['video']}: {one['message']}") for one in seen.unreadable[:_NAMED]]
            if (more := len(seen.unreadable) - _NAMED) > 0:
                rows.append((f"unreadable, {name}", f"and {more} more, see {NAME}"))
        return "\n".join(f"{name:<24}{value}" for name, value in rows)


def load_eyes(
    inception_file: str | None, i3d_file: str | None, device: torch.device, every: int = EVERY
) -> dict[Measure, Eye]:
    """The networks whose files are given. Raises CannotRun, which names the option, for a file of something else."""
    eyes: dict[Measure, Eye] = {}
    if inception_file is not None:
        pictures = _loaded("--inception", inception.load_inception, inception_file).to(device)
        eyes["fid"] = Eye(
            lambda samples: pictures(samples[:, :, 0]), inception.FEATURES, 1, every, 16, device,
            inception_file, file_sha256(Path(inception_file)),
        )  # fmt: skip
    if i3d_file is not None:
        clips = _loaded("--i3d", i3d.load_i3d, i3d_file).to(device)
        eyes["fvd"] = Eye(
            clips, i3d.FEATURES, CLIP_FRAMES, CLIP_FRAMES, 4, device, i3d_file, file_sha256(Path(i3d_file))
        )
    return eyes


def measure_sets(
    output: str,
    reference: str,
    eyes: dict[Measure, Eye],
    settings: RunSettings,
    progress: RunProgress,
    *,
    limit: int | None = None,
) -> SetMetrics:
    """Compare the videos of the finished run in ``output`` with those of ``reference``, and write `NAME` beside them.

    Of ``settings`` the limits, the storage's options and retries are used. Both sets are read at the resolution of the
    run's model. Raises CannotRun where nothing can be computed; nothing is written then.
    """
    store = Store(output, settings.storage_options, settings.retries)
    _, info = last_settings(store)
    wanted = {
        "output": (store.uri, output_videos(store, limit)),
        "reference": (absolute(reference), reference_videos(reference, settings, limit)),
    }
    if not wanted["output"][1]:
        raise CannotRun(f"{redacted(store.uri)} has no video: none of its items has one; look at imtalker status")
    sets: dict[str, SeenSet] = {}
    for name, (uri, videos) in wanted.items():
        progress.begin(name, len(videos))
        sets[name] = see_set(
            uri, videos, eyes, info.resolution, settings, lambda failed: progress.advance(failed=failed)
        )
    few = [note for measure in eyes for name, seen in sets.items() for note in _too_few(measure, name, seen)]
    values = {measure: _distance(measure, sets) for measure in eyes}
    if set(values.values()) == {None}:
        raise CannotRun(f"nothing can be computed: {'; '.join(few)}{_first_unreadable(sets)}")
    found = SetMetrics(
        values,
        sets,
        [*few, *_notes(eyes, sets)],
        _protocol(eyes, info.resolution, limit),
        {_FILES[measure]: eye.sha256 for measure, eye in eyes.items()},
        str(next(iter(eyes.values())).device),
    )
    store.put_bytes(NAME, json.dumps(found.as_dict(), indent=1).encode())
    return found


def _loaded(option: str, load: Any, path: str) -> Any:
    try:
        return load(Path(path))
    except CannotRun as exc:
        raise CannotRun(f"{option}: {exc}") from exc


def _distance(measure: Measure, sets: Mapping[str, SeenSet]) -> float | None:
    one, other = (seen.moments[measure] for seen in sets.values())
    return frechet_distance(one, other) if min(one.count, other.count) > 1 else None


def _too_few(measure: Measure, name: str, seen: SeenSet) -> Iterator[str]:
    unit, count = _UNITS[measure], seen.moments[measure].count
    if count < 2:
        what = f"{unit} of {CLIP_FRAMES} frames" if measure == "fvd" else unit
        yield f"{measure.upper()} needs 2 {what} of the {name} at least, found {count} in {seen.videos} readable videos"


def _notes(eyes: Mapping[Measure, Eye], sets: Mapping[str, SeenSet]) -> Iterator[str]:
    for measure, eye in eyes.items():
        for name, seen in sets.items():
            unit, count = _UNITS[measure], seen.moments[measure].count
            if 1 < count <= eye.width:
                yield (
                    f"{measure.upper()}: {count} {unit} of the {name} are too few for {eye.width} numbers each: "
                    "the covariance is singular and the distance biased; compare it with none of other counts"
                )
            if short := seen.without.get(measure):
                yield f"{measure.upper()}: {short} videos of the {name} are shorter than a clip of {CLIP_FRAMES} frames"


def _first_unreadable(sets: Mapping[str, SeenSet]) -> str:
    for name, seen in sets.items():
        for one in seen.unreadable:
            return f"; {len(seen.unreadable)} of the {name} can't be read, the first {one['video']}: {one['message']}"
    return "; give longer or more videos"


def _protocol(eyes: Mapping[Measure, Eye], resolution: int, limit: int | None) -> dict[str, Any]:
    said: dict[str, Any] = {"version": PROTOCOL, "fps": FPS, "resolution": resolution, "videos_at_most": limit}
    if "fid" in eyes:
        said["fid"] = {"every": eyes["fid"].step, "side": inception.SIDE, "features": inception.FEATURES}
    if "fvd" in eyes:
        said["fvd"] = {"clip_frames": CLIP_FRAMES, "side": i3d.SIDE, "features": i3d.FEATURES}
    return said


def _samples(seen: SeenSet) -> dict[str, Any]:
    counts = {_UNITS[measure]: moments.count for measure, moments in seen.moments.items()}
    return {
        "uri": seen.uri,
        "videos": seen.videos,
        "unreadable": len(seen.unreadable),
        **counts,
        "videos_sha256": seen.sha256,
    }


def _counts(seen: SeenSet) -> str:
    parts = [f"{seen.videos} videos", *(f"{one.count} {_UNITS[name]}" for name, one in seen.moments.items())]
    return ", ".join([*parts, f"{len(seen.unreadable)} unreadable"] if seen.unreadable else parts)

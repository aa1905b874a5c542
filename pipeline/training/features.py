"""The generator's data from videos: motion codes and audio features by the stages of a run, states where known."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from imtalker.files import file_sha256
from imtalker.training.motion_clips import MotionClip
from manifests.build import VIDEO_ENDINGS, list_files
from manifests.ids import PATTERN, fold, is_valid
from manifests.pairing import Source
from manifests.uri import absolute
from pipeline.avatars.conditions import ClipConditions, read_conditions
from pipeline.config import RunSettings
from pipeline.document import parse_document
from pipeline.errors import CannotRun, ErrorRecord, InputError, ItemError, error_record
from pipeline.execute import Context, Executor, lost, through
from pipeline.inputs.fetch import UNKNOWN, identities, redacted
from pipeline.locks.claims import Claims
from pipeline.progress import RunProgress
from pipeline.reuse.fingerprint import digest, model_facts
from pipeline.stages import STAGE_VERSIONS
from pipeline.stages.crop import CropStage
from pipeline.stages.features import FeaturesStage
from pipeline.storage import Store
from pipeline.talker import TalkerInfo
from pipeline.tasks import AssetKind, AssetTask
from pipeline.training.clip_folder import ClipFolder
from pipeline.weights import parse_weights

_VERSION = 1
"""Raised when clips come out otherwise from the same features and states."""


@dataclass
class FeaturesSummary:
    """What became of the videos. ``videos == made + kept + failed`` always holds."""

    output: str
    videos: int
    made: int = 0
    kept: int = 0
    """Finished by an earlier call."""
    failed: int = 0
    frames: int = 0
    """Of the clips that were made."""
    computed: dict[str, int] = field(default_factory=dict)
    """How often each stage computed a result rather than reusing one."""
    seconds: float = 0.0
    weights: str = ""
    failures: list[dict[str, str]] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        return 3 if self.failed else 0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        lines = [f"videos   {self.videos}: {self.made} made, {self.kept} from an earlier call, {self.failed} failed"]
        for failure in self.failures:
            kind = f"{failure['kind']} error in {failure['stage']}"
            lines.append(f"         {failure['video']}: {kind}: {failure['message']} ({failure['hint']})")
        rate = self.frames / self.seconds if self.seconds else 0.0
        lines.append(f"made     {self.frames} frames in {self.seconds:.1f} s ({rate:.1f} frames/s)")
        if self.weights == "random":
            lines.append("note     this model's weights are random stand-ins: its features say nothing about faces")
        return [*lines, f"clips    {self.output}"]


@dataclass
class _Clip:
    """One video on its way."""

    source: Source
    states: Path | None
    request: str = ""
    assets: dict[AssetKind, AssetTask] = field(default_factory=dict)

    @property
    def stem(self) -> str:
        return self.source.stem


def make_features(
    videos: str,
    output: Path,
    settings: RunSettings,
    info: TalkerInfo,
    open_executor: Callable[[Context], AbstractContextManager[Executor]],
    progress: RunProgress,
    *,
    states: Path | None = None,
) -> FeaturesSummary:
    """Make a clip in the published layout, in ``output``, of each talking video in the folder ``videos`` (a URI).

    ``states`` is a folder of states that `pipeline.avatars` wrote, one for each video; without it pose, camera and
    gaze are unknown. ``open_executor`` is entered only when there is something to make.

    Raises CannotRun or ManifestError when nothing can be made at all; what was made until then is kept.
    """
    started = time.monotonic()
    sources, _ = list_files(videos, VIDEO_ENDINGS, settings.storage_options)
    store = Store(str(output), settings.storage_options)
    store.check_writable()
    making = _Making(store, info, FeaturesSummary(store.uri, len(sources), weights=info.weights), progress)
    clips = making.wanted(sources, states, settings)
    if clips:
        with open_executor(Context(settings, info, store.uri)) as executor:
            making.make(clips, executor)
    making.summary.seconds = round(time.monotonic() - started, 2)
    making.summary.failures.sort(key=lambda failure: failure["video"])
    return making.summary


def feature_settings(plain: Mapping[str, Any], weights: Iterable[str], audio_encoder: Path | None) -> RunSettings:
    """Settings from flags: plain ones by name (None: not given), ``PART=PATH`` texts, a hub folder.

    Raises CannotRun for values that aren't allowed.
    """
    parts = parse_weights(weights)
    if audio_encoder is not None:
        if taken := parts.keys() & {"generator", "wav2vec2"}:
            raise CannotRun(f"an audio encoder is given twice: as audio encoder, and as weights of {', '.join(taken)}")
        parts["wav2vec2"] = str(audio_encoder)
    # Workers have other working folders.
    given = {"weights": {part: absolute(path) for part, path in parts.items()}, **plain}
    return parse_document(
        RunSettings, {name: value for name, value in given.items() if value is not None}, "command line", kind="setting"
    )


class _Making:
    def __init__(self, store: Store, info: TalkerInfo, summary: FeaturesSummary, progress: RunProgress) -> None:
        self.summary = summary
        self._store, self._info, self._progress = store, info, progress
        self._folder = ClipFolder(store)
        self._own: set[str] = set()

    def wanted(self, sources: Sequence[Source], states: Path | None, settings: RunSettings) -> list[_Clip]:
        """The clips to make; those that are finished, or can't be attempted, are counted."""
        seen = identities((source.uri for source in sources), settings.storage_options, settings.limits)
        same_name = Counter(fold(source.stem) for source in sources)
        records = self._folder.read_records(source.stem for source in sources if is_valid(source.stem))
        self._own = set(records)
        facts = _facts(settings, self._info)
        wanted = []
        for source in sources:
            clip = _Clip(source, states and states / f"{source.stem}.parquet")
            try:
                _check_name(source, same_name)
                clip.request = _request(clip, facts, seen[source.uri])
                record = records.get(clip.stem)
                if record is None:
                    self._folder.check_free(clip.stem)
                elif (
                    record.request == clip.request and seen[source.uri] != UNKNOWN and self._folder.is_whole(clip.stem)
                ):
                    self.summary.kept += 1
                    continue
                wanted.append(clip)
            except ItemError as exc:
                self._fail(clip, error_record(exc, "plan"))
        return wanted

    def make(self, clips: Sequence[_Clip], executor: Executor) -> None:
        """Send sounds and pictures through the stages, and write a clip as soon as both are back."""
        # Sounds first: together they fill the audio encoder's batches, and they are soon done.
        assets = {
            task.key: (task, clip) for kind in ("audio", "driver") for clip in clips for task in [_asset(kind, clip)]
        }

        def keep(task: AssetTask) -> None:
            clip = assets[task.key][1]
            clip.assets[task.kind] = task
            self.summary.computed = dict(Counter(self.summary.computed) + Counter(task.computed))
            if len(clip.assets) == 2:
                self._finish(clip)

        self._progress.begin("clips", len(clips))
        claims = Claims(self._store, "asset")
        tasks = [task for task, _ in assets.values()]
        for gone in through(tasks, (CropStage, FeaturesStage), executor, keep, claims, self._progress.say):
            keep(gone.model_copy(update={"error": lost("features")}))
            claims.release(gone.key)

    def _finish(self, clip: _Clip) -> None:
        error = clip.assets["driver"].error or clip.assets["audio"].error
        frames = 0
        if error is None:
            try:
                made = self._assembled(clip)
                self._folder.keep(clip.stem, clip.request, made)
                frames = len(made)
            except (ItemError, OSError) as exc:
                error = error_record(exc, "write")
        if error is None:
            self.summary.made += 1
            self.summary.frames += frames
        else:
            self._fail(clip, error)
        self._progress.advance(failed=error is not None, frames=frames)

    def _assembled(self, clip: _Clip) -> MotionClip:
        """The clip, its sequences cut to the shorter of picture and sound."""
        motion = self._arrays(clip.assets["driver"], "motion")
        audio = self._arrays(clip.assets["audio"], "audio")
        known = _unknown(len(motion)) if clip.states is None else read_conditions(clip.states)
        if len(known.pose) != len(motion):
            raise InputError(
                f"expected a row of states for each of {len(motion)} frames, found {len(known.pose)}: {clip.states}",
                hint="give the states of this very video",
            )
        length = min(len(motion), len(audio))
        sequences = (motion, audio, known.pose, known.camera, known.gaze)
        return MotionClip(*(torch.from_numpy(rows[:length]) for rows in sequences))

    def _arrays(self, task: AssetTask, name: str) -> np.ndarray:
        assert task.arrays is not None  # noqa: S101  (a task without error has them)
        return self._store.get_arrays(task.arrays)[name]

    def _fail(self, clip: _Clip, error: ErrorRecord) -> None:
        """Count a failure. What an earlier call made of another video or other settings would pass for this one."""
        if clip.request and clip.stem in self._own:
            self._folder.remove(clip.stem)
        self.summary.failed += 1
        facts = {"kind": error.kind, "stage": error.stage, "message": error.message, "hint": error.hint}
        self.summary.failures.append({"video": clip.source.path, **facts})


def _asset(kind: AssetKind, clip: _Clip) -> AssetTask:
    return AssetTask(key=digest([kind, clip.source.uri]), kind=kind, uri=clip.source.uri)


def _facts(settings: RunSettings, info: TalkerInfo) -> dict[str, Any]:
    """Settings that shape every clip."""
    return {
        "version": _VERSION,
        "model": model_facts(info, settings),
        "stages": {stage.name: STAGE_VERSIONS[stage.name] for stage in (CropStage, FeaturesStage)},
        **settings.model_dump(include={"batch_size", "items_in_flight", "driver_face"}),
    }


def _request(clip: _Clip, facts: dict[str, Any], identity: str | None) -> str:
    """Fingerprint of what a clip is made of. Raises InputError where its states are missing."""
    states = None
    if clip.states is not None:
        try:
            states = file_sha256(clip.states)
        except OSError as exc:
            raise InputError(
                f"expected the states of {clip.source.path} in {clip.states}, but it can't be read: {exc.strerror}",
                hint="give the folder states/ beside the videos, or leave --states out",
            ) from exc
    return digest({"uri": redacted(clip.source.uri), "video": identity, "states": states, **facts})


def _check_name(source: Source, same_name: Counter[str]) -> None:
    if not is_valid(source.stem):
        raise InputError(
            f"expected a name that can be a clip's ({PATTERN}), found {source.stem!r}", hint="rename the video"
        )
    if same_name[fold(source.stem)] > 1:
        raise InputError(
            f"{same_name[fold(source.stem)]} videos are called {source.stem!r} but for folder, ending or case; clips "
            "are told apart by that name alone",
            hint="rename them",
        )


def _unknown(frames: int) -> ClipConditions:
    pose, camera, gaze = (np.full((frames, width), np.nan, np.float32) for width in (3, 3, 2))
    return ClipConditions(pose, camera, gaze)

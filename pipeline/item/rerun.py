"""Rendering an item again from its record, to see whether it comes out the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from manifests.reader import single_row
from pipeline.config import InputLimits, Resources, RunSettings
from pipeline.errors import CannotRun, ItemError
from pipeline.execute import in_process
from pipeline.item.explain import find_record, run_json
from pipeline.item.reproduce import settings_of, threads_of
from pipeline.ledger import Ledger, Record
from pipeline.media.probe import decoding, open_container, video_stream
from pipeline.progress import RunProgress
from pipeline.run import prepare, run
from pipeline.storage import Store
from pipeline.tasks import SMALLER_BATCHES


@dataclass(frozen=True)
class Rerun:
    """What came of an item that was rendered again."""

    id: str
    same: bool
    """Whether its frames are those of the record, and decode as the video's in the output do."""
    frames_sha256: str
    """Of the frames before label and encoder, by the record."""
    found_sha256: str | None
    """The same of the new frames; None where the item failed this time."""
    decoded_sha256: str | None
    """Of the pictures that the output's video decodes to; None where it is gone or damaged."""
    found_decoded_sha256: str | None
    """The same of the new video."""
    reasons: tuple[str, ...]
    """What is known to be otherwise than it was."""
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def rerun(output: str, item: str, settings: RunSettings | None, progress: RunProgress) -> Rerun:
    """Render an item of a finished run again in this process, in a temporary folder; the output is only read.

    All that shapes frames is the record's: seed, settings, torch threads of each stage. ``settings``, if given, say
    how to get at things: storage options, limits, paths of weights, and whether those may be fetched.

    Raises CannotRun when there is no such item, its video was not made, or weights are missing.
    """
    store = Store(output, settings.storage_options if settings else {})
    _, record = find_record(store, item)
    if record is None or record.status != "ok" or record.video is None or record.seed is None:
        state = "no record of it" if record is None else f"it is {record.status}"
        raise CannotRun(f"{item}: expected an item of {store.uri} whose video was made, found {state}: see explain")
    notes: list[str] = []
    wanted = _settings(record, run_json(store), settings, notes)
    if SMALLER_BATCHES in record.flags:
        notes.append("it was made in smaller batches than asked for, on a device with too little memory")
    row = {**record.uris, "id": record.id, "seed": record.seed}
    manifest = single_row(row, store.uri, motion_from=wanted.motion_from)
    with TemporaryDirectory(prefix="imtalker-reproduce-") as folder:
        run(manifest, wanted, prepare(wanted), folder, in_process, progress)
        made = Ledger(Store(folder, {})).read([record.id])[record.id]
        new = _decoded(Path(folder) / "videos" / f"{record.id}.mp4", wanted.limits)
        kept = Path(folder) / "kept.mp4"
        try:
            store.get_file(f"videos/{record.id}.mp4", kept)
        except FileNotFoundError:
            old = None
        else:
            old = _decoded(kept, wanted.limits)
    expected: str = record.video["frames_sha256"]
    found = None if made.video is None else made.video["frames_sha256"]
    if old is None:
        notes.append("the video in the output is gone or damaged: only the record is compared")
    return Rerun(
        id=record.id,
        same=found == expected and old in (None, new),
        frames_sha256=expected,
        found_sha256=found,
        decoded_sha256=old,
        found_decoded_sha256=new,
        reasons=tuple(_reasons(record, made)),
        notes=tuple(notes),
    )


def _settings(record: Record, run_facts: Any, settings: RunSettings | None, notes: list[str]) -> RunSettings:
    """The record's settings, with the given ways to get at things."""
    unknown: list[str] = []
    wanted = settings_of(record, run_facts, unknown)
    threads = {stage: {"threads": count} for stage, count in threads_of(record).items()}
    changes: dict[str, Any] = {"resources": Resources.model_validate(threads)}
    if settings is None:
        notes += unknown
    else:
        changes |= {name: getattr(settings, name) for name in ("storage_options", "limits", "retries", "download")}
        if settings.weights:
            changes["weights"] = settings.weights
    return wanted.model_copy(update=changes)


def _decoded(path: Path, limits: InputLimits) -> str | None:
    """SHA-256 of a video's decoded pictures, as they are stored; None for one that is not there or damaged."""
    digest = hashlib.sha256()
    try:
        with open_container(path, limits) as container, decoding(path):
            stream = video_stream(container)
            if stream is None:
                return None
            for frame in container.decode(stream):
                digest.update(frame.to_ndarray().data)
    except (ItemError, OSError):
        return None
    return digest.hexdigest()


def _reasons(before: Record, now: Record) -> Iterator[str]:
    """What was otherwise when the item was made."""
    if now.error is not None:
        yield f"it failed this time: {now.error.kind} error in {now.error.stage}: {now.error.message}"
    for role, given in before.inputs.items():
        if role in now.inputs and now.inputs[role].sha256 != given.sha256:
            yield f"input {role} changed: {now.inputs[role].uri} has another content"
    for part, sha256 in before.weights_sha256.items():
        if now.weights_sha256.get(part) != sha256:
            yield f"weights of {part} changed"
    for name, number in before.versions.items():
        if now.versions.get(name) != number:
            yield f"the code of {name} changed: version {number} then, {now.versions.get(name)} now"
    for stage in ("features", "motion", "render"):
        old, new = before.workers.get(stage), now.workers.get(stage)
        if old and new and (old.gpu, old.node) != (new.gpu, new.node):
            then, there = (f"{worker.node}, {worker.gpu or 'without GPU'}" for worker in (old, new))
            yield f"{stage} ran on another machine: {then} then, {there} now"
            return


def rerun_text(found: Rerun) -> str:
    """For people."""
    lines = [f"{found.id}: {'the same frames' if found.same else 'OTHER frames'}"]
    lines.append(f"{'recorded':<10}sha256 {found.frames_sha256}")
    lines.append(f"{'rendered':<10}" + (f"sha256 {found.found_sha256}" if found.found_sha256 else "nothing"))
    if found.decoded_sha256 is not None and found.found_decoded_sha256 is not None:
        agree = "as" if found.decoded_sha256 == found.found_decoded_sha256 else "NOT as"
        lines.append(f"{'decoded':<10}{agree} the video in the output")
    lines += [f"{'why':<10}{reason}" for reason in found.reasons]
    lines += [f"{'note':<10}{note}" for note in found.notes]
    return "\n".join(lines)

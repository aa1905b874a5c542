"""The end of an item's way, however its frames were made: sound, tags, what is said of the video, and its commit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.config import RunSettings
from pipeline.errors import ItemError
from pipeline.inputs.fetch import LocalInput, fetched, file_sha256
from pipeline.locks.lease import confirm
from pipeline.provenance.certificate import Signing
from pipeline.provenance.manifest import sign
from pipeline.provenance.origin import Origin
from pipeline.storage import Store
from pipeline.talker import TalkerInfo
from pipeline.tasks import ItemTask


@contextmanager
def sound_of(task: ItemTask, settings: RunSettings) -> Iterator[LocalInput | None]:
    """The file whose sound the video gets: the item's recording, else the driver if it has a sound track."""
    if task.audio is not None:
        with fetched(task.audio.uri, settings) as source:
            yield source
    elif task.driver is not None and task.driver.facts.get("has_audio"):
        with fetched(task.driver.uri, settings) as source:
            yield source
    else:
        yield None


def video_facts(
    task: ItemTask, info: TalkerInfo, made: Mapping[str, Any], frames_sha256: str, *, has_audio: bool
) -> dict[str, Any]:
    """What a record says of a video that is not stored yet.

    ``made`` is what the rendering says of itself: ``frames``, ``precision``, ``render_s``, ``encode_s``,
    ``peak_memory_bytes``. Raises an ItemError if frames are missing.
    """
    count = made["frames"]
    if count != task.frames:
        raise ItemError("bug", f"{count} frames were rendered where {task.frames} were due", hint="please report it")
    return {
        "frames": count,
        "frames_sha256": frames_sha256,
        "width": info.resolution,
        "height": info.resolution,
        "duration_s": count / info.fps,
        "has_audio": has_audio,
        "precision": made["precision"],
        "render_s": made["render_s"],
        "encode_s": made["encode_s"],
        "peak_memory_bytes": made["peak_memory_bytes"],
    }


def commit_video(
    task: ItemTask, store: Store, path: Path, facts: Mapping[str, Any], origin: Origin, signing: Signing | None
) -> None:
    """Sign the finished file and store it under its final name; the record makes the item done, after this.

    Raises `LeaseLost` if another run has the output by now.
    """
    key = f"videos/{task.key}.mp4"
    video = dict(facts)
    if signing is not None and origin.signed:
        sign(path, origin, signing, frames_sha256=video["frames_sha256"])
        video["signature"] = signing.facts()
    video |= {"uri": store.url(key), "size": path.stat().st_size, "sha256": file_sha256(path)}
    if task.fence is not None:
        confirm(store, task.fence)
    store.put_file(path, key)
    task.video = video

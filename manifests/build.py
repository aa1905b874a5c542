"""Building a manifest: from folders of portraits, audio and drivers, or from a CSV or JSON lines file."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from manifests.errors import ManifestError
from manifests.pairing import Pairing, Source, pair
from manifests.row import MotionFrom
from manifests.schema import BY_NAME, check_schema
from manifests.table import read_table, write_table
from manifests.uri import (
    StorageOptions,
    absolute,
    filesystem,
    parent,
    relative,
    resolve,
    storage_errors,
)

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
VIDEO_ENDINGS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")
AUDIO_ENDINGS = (".wav", ".mp3", ".m4a", ".flac", ".ogg", ".oga", ".opus", ".aac", ".aif", ".aiff", *VIDEO_ENDINGS)


@dataclass(frozen=True)
class Built:
    """A manifest that was written: where, how many rows, and which files of the folders are in none of them.

    ``unpaired`` are paths that found no partner; ``unread`` are files whose ending says they are something else.
    """

    uri: str
    rows: int
    unpaired: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()


@dataclass(frozen=True)
class Folders:
    """What to pair. ``sample`` draws that many pairs at random (``seed``) instead of taking all of them.

    ``takes`` writes every pair that many times, each with a seed of its own and its number in the column ``take``.
    ``motion_from`` is required when there are audio and drivers: `driver` alone makes sense then, because `audio`
    needs pose or gaze files, which folders don't give.
    """

    images: str
    audio: str | None = None
    drivers: str | None = None
    pairing: Pairing = "cross"
    motion_from: MotionFrom | None = None
    sample: int | None = None
    takes: int = 1
    seed: int = 42


def build_from_folders(folders: Folders, output: str, storage_options: StorageOptions | None = None) -> Built:
    """Pair the files of folders (any fsspec URI, searched with their subfolders) and write the manifest.

    Files beneath the manifest's own folder are named relative to it, others by their absolute URI. ``language`` is
    read from ``<language>/<stem>`` folders of the audio, else of the drivers.

    Raises:
        ManifestError: a folder is missing or holds no file of its kind, the files can't be paired, or ``output``
            can't be written.
    """
    _check(folders)
    base = parent(absolute(output))
    listed = {"image": list_files(folders.images, IMAGE_ENDINGS, storage_options)}
    if folders.audio:
        listed["audio"] = list_files(folders.audio, AUDIO_ENDINGS, storage_options)
    if folders.drivers:
        listed["driver"] = list_files(folders.drivers, VIDEO_ENDINGS, storage_options)
    pairs = pair([found for found, _ in listed.values()], folders.pairing)
    chosen = pairs.drawn(folders.sample, folders.seed)
    table = _with_takes(_table(list(listed), chosen, base, folders.motion_from), folders)
    write_table(table, output, storage_options)
    unread = tuple(path for _, others in listed.values() for path in others)
    return Built(absolute(output), table.num_rows, pairs.unpaired, unread)


def build_from_file(source: str, output: str, storage_options: StorageOptions | None = None) -> Built:
    """Write the rows of a ``.csv``, ``.jsonl`` or ``.ndjson`` file as a manifest, columns as they are.

    Relative URIs of the file stand in the file's folder; if the manifest lies elsewhere they are rewritten so that
    they still name the same files.

    Raises:
        ManifestError: the file can't be read, its columns can't be used, or ``output`` can't be written.
    """
    table = read_table(source, storage_options)
    try:
        check_schema(table.schema, ())
    except ManifestError as exc:
        raise ManifestError(f"{source}: {exc}") from exc
    before, after = parent(absolute(source)), parent(absolute(output))
    if before != after:
        table = _moved(table, before, after)
    write_table(table, output, storage_options)
    return Built(absolute(output), table.num_rows)


def _check(folders: Folders) -> None:
    if not folders.audio and not folders.drivers:
        raise ManifestError("expected a folder of audio, of drivers, or both, found neither")
    if folders.audio and folders.drivers and folders.motion_from != "driver":
        raise ManifestError(
            "audio and drivers together need motion_from=driver (lips and head from the driver, sound from the "
            "audio); motion_from=audio needs pose or gaze files, which a table can name but folders can't"
        )
    if folders.takes < 1 or (folders.sample is not None and folders.sample < 1):
        raise ManifestError(f"expected sample and takes from 1 up, found {folders.sample} and {folders.takes}")


def list_files(
    folder: str, endings: Sequence[str], storage_options: StorageOptions | None
) -> tuple[list[Source], list[str]]:
    """Files of a folder that have one of the endings, in the order of their paths, and the paths of all others."""
    folder = absolute(folder).rstrip("/")
    try:
        filesystem_, root = filesystem(folder, storage_options)
        filesystem_.invalidate_cache()
        if not filesystem_.isdir(root):
            raise ManifestError(f"folder {folder}: no such folder")
        paths = sorted(name[len(root) :].lstrip("/") for name in filesystem_.find(root.rstrip("/")))
    except storage_errors() as exc:
        raise ManifestError(f"folder {folder}: can't be listed: {type(exc).__name__}: {exc}") from exc
    visible = [path for path in paths if path and not any(part.startswith(".") for part in path.split("/"))]
    found = [Source(f"{folder}/{path}", path) for path in visible if path.lower().endswith(tuple(endings))]
    if not found:
        raise ManifestError(f"folder {folder}: expected {', '.join(endings)} files, found none")
    return found, [path for path in visible if not path.lower().endswith(tuple(endings))]


def _table(
    names: Sequence[str], chosen: Sequence[tuple[Source, ...]], base: str, motion_from: MotionFrom | None
) -> pa.Table:
    columns: dict[str, pa.Array] = {
        name: pa.array([relative(sources[place].uri, base) for sources in chosen], pa.string())
        for place, name in enumerate(names)
    }
    if motion_from and len(names) == 3:
        columns["motion_from"] = pa.array([motion_from] * len(chosen), pa.string())
    languages = [next((source.language for source in sources[1:] if source.language), None) for sources in chosen]
    if any(languages):
        columns["language"] = pa.array(languages, pa.string())
    return pa.table(columns)


def _with_takes(table: pa.Table, folders: Folders) -> pa.Table:
    if folders.takes == 1:
        return table
    draw = random.Random(folders.seed)
    repeated = table.take([row for row in range(table.num_rows) for _ in range(folders.takes)])
    seeds = pa.array([draw.getrandbits(63) for _ in range(repeated.num_rows)], pa.int64())
    takes = pa.array(list(range(1, folders.takes + 1)) * table.num_rows, pa.int64())
    return repeated.append_column("seed", seeds).append_column("take", takes)


def _moved(table: pa.Table, before: str, after: str) -> pa.Table:
    for place, name in enumerate(table.schema.names):
        if name in BY_NAME and BY_NAME[name].kind == "uri":
            try:
                uris = [relative(resolve(uri, before), after) if uri else None for uri in table[name].to_pylist()]
            except ValueError as exc:
                raise ManifestError(f"column {name!r}: {exc}") from exc
            table = table.set_column(place, name, pa.array(uris, pa.string()))
    return table

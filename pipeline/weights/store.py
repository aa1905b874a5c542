"""The store of published weights: listing, fetching, checking and finding the files of a model."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from imtalker.files import file_sha256
from imtalker.presets import PRESETS, find_preset, pretrained_files
from pipeline.errors import CannotRun
from pipeline.weights.catalogue import PARTS, Part, default_store, parts_of
from pipeline.weights.hub import fetch, find
from pipeline.weights.lock import Lock, locked_file, read_lock, write_lock

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class ModelFiles:
    """Where a run finds its weights. None: the preset makes that part itself, or another file holds it."""

    renderer: Path | None = None
    generator: Path | None = None
    wav2vec2: Path | None = None
    """Folder of the audio encoder."""


@dataclass(frozen=True)
class ModelRow:
    """One file of a preset as it stands in the store."""

    preset: str
    part: str
    source: str
    """Hub repository; ``package`` for weights that come with the program, ``seeded`` for those made on the spot."""
    licence: str
    file: str
    path: Path | None
    status: Literal["ready", "missing", "unverified", "corrupt", "built in"]
    """``unverified``: put there by other means than a pull, so there is nothing to compare it with."""
    commit: str = ""
    size: int | None = None
    """Bytes on disk."""


def list_models(*, store: Path | None = None) -> list[ModelRow]:
    """One row for each file of each preset; a checksum is read only where the file's time is not the lock's."""
    store = store or default_store()
    return [row for preset in PRESETS for row in _rows(preset, store, recompute=False)]


def verify(preset: str, *, store: Path | None = None, load: bool = False) -> list[ModelRow]:
    """The rows of ``preset`` after every file has been read and its checksum compared with the lock's.

    ``load``: also build both networks from the files. Raises CannotRun for an unknown preset, and with ``load`` when
    files are missing or a network can't be built from them.
    """
    store = store or default_store()
    rows = _rows(preset, store, recompute=True)
    if load:
        _load(locate(preset, {}, store=store))
    return rows


def pull(
    preset: str,
    *,
    revisions: Mapping[str, str] | None = None,
    store: Path | None = None,
    parts: Collection[str] = PARTS,
) -> list[ModelRow]:
    """Fetch what ``store`` lacks of ``preset`` and record commit, size and checksum of each file in its lock.

    ``revisions``: repository -> branch, tag or commit; by default the locked commit, else ``main`` as it is now.
    Nothing is asked of the hub for files that stand in the lock at the wanted commit. Raises CannotRun for an
    unknown preset or repository and when the hub, the disk or a checksum fails; what has arrived is kept.
    """
    from huggingface_hub.utils import WeakFileLock

    store, revisions = store or default_store(), revisions or {}
    wanted = [part for part in parts_of(preset) if part.name in parts]
    if unknown := revisions.keys() - {part.repository for part in parts_of(preset)}:
        raise CannotRun(f"{preset} takes nothing from {', '.join(sorted(unknown))}, for which a revision was given")
    store.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(store / ".lock"):
        pinned = dict(revisions)
        for part in wanted:
            for names in part.files:
                lock = read_lock(store)
                revision = pinned.get(part.repository) or lock.commit(part.repository) or "main"
                pinned[part.repository] = _pull_file(store, lock, part, names, revision)
    return _rows(preset, store, recompute=False)


def locate(
    preset: str, overrides: Mapping[str, str], *, store: Path | None = None, parts: Collection[str] = PARTS
) -> ModelFiles:
    """The files a run of ``preset`` loads: those named in ``overrides`` (part -> path), else the store's ``parts``.

    The audio encoder comes with the store's generator; beside another generator it is used if it is there, except
    that a safetensors generator holds its own. Raises CannotRun, in one line, for an unknown preset or part, for a
    missing file, and for ``overrides`` of a preset that makes its own weights.
    """
    store = store or default_store()
    files, missing = _locate(preset, overrides, store, parts)
    if missing:
        raise CannotRun(
            f"weights of {preset} are missing in {store}: "
            f"{', '.join(file for part in missing for file in _absent(part, store))}; "
            f"run `imtalker models pull {preset}`, or name files with --weights"
        )
    return files


def ensure(
    preset: str,
    overrides: Mapping[str, str],
    *,
    download: bool,
    store: Path | None = None,
    parts: Collection[str] = PARTS,
) -> ModelFiles:
    """As `locate`, after pulling what is missing if ``download``. Raises CannotRun as `locate` and `pull` do."""
    _, missing = _locate(preset, overrides, store or default_store(), parts)
    if missing and download:
        pull(preset, store=store, parts=[part.name for part in missing])
    return locate(preset, overrides, store=store, parts=parts)


def sha256_of(files: ModelFiles, *, store: Path | None = None) -> dict[str, str]:
    """Part -> SHA-256 of its file of weights. The lock's word is taken for a file whose size and time are its."""
    store = store or default_store()
    known = {
        store / repository.replace("/", "--") / name: locked
        for repository, names in read_lock(store).repositories.items()
        for name, locked in names.items()
    }
    paths = {name: path for name in PARTS if (path := getattr(files, name)) is not None}
    hashes = {}
    for name, path in paths.items():
        file = _encoder_file(path) if path.is_dir() else path
        locked = known.get(file)
        hashes[name] = locked.sha256 if locked and locked.is_at(file) else file_sha256(file)
    return hashes


def convert(
    source: Path,
    target: Path,
    *,
    kind: Literal["auto", "renderer", "generator"] = "auto",
    audio_encoder: Path | None = None,
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
) -> None:
    """Write a published checkpoint as safetensors, a generator together with its audio encoder.

    ``audio_encoder``: hub folder, for a generator whose checkpoint holds none. Raises CannotRun if ``target`` isn't
    a ``.safetensors`` path or the checkpoint can't be used.
    """
    import torch

    from imtalker.checkpoints import (
        CheckpointError,
        checkpoint_kind,
        load_generator,
        load_renderer,
        save_generator,
        save_renderer,
    )

    if target.suffix != ".safetensors":
        raise CannotRun(f"the target must end in .safetensors, got {target}")
    precision = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[dtype]
    try:
        if (checkpoint_kind(source) if kind == "auto" else kind) == "renderer":
            save_renderer(load_renderer(source), target, dtype=precision)
        else:
            save_generator(load_generator(source, audio_encoder), target, dtype=precision)
    except CheckpointError as error:
        raise CannotRun(str(error)) from error


def _pull_file(store: Path, lock: Lock, part: Part, names: tuple[str, ...], revision: str) -> str:
    """Make sure of one needed file at ``revision``; returns the commit that this turned out to be."""
    folder = part.folder(store)
    if _COMMIT.fullmatch(revision):
        for name in names:
            locked = lock.find(part.repository, name)
            if locked and locked.commit == revision and locked.is_at(folder / name):
                return revision
    remote = find(part.repository, revision, names)
    path = folder / remote.name
    if path.is_file() and remote.sha256 is not None and file_sha256(path) == remote.sha256:
        sha256 = remote.sha256
    else:
        sha256 = fetch(remote, path)
    # Another name for the same need would be loaded in its place.
    others = tuple(name for name in names if name != remote.name)
    for other in others:
        (folder / other).unlink(missing_ok=True)
    entry = locked_file(path, remote.commit, sha256)
    write_lock(store, lock.adding(part.repository, remote.name, entry, instead_of=others))
    return remote.commit


def _rows(preset: str, store: Path, *, recompute: bool) -> list[ModelRow]:
    lock = read_lock(store)
    parts = parts_of(preset)
    if not parts:
        return _built_in(preset)
    rows = []
    for part in parts:
        for names, path in zip(part.files, part.present(store), strict=True):
            fixed = (preset, part.name, part.repository, part.licence)
            if path is None:
                rows.append(ModelRow(*fixed, " or ".join(names), None, "missing"))
                continue
            size = path.stat().st_size
            locked = lock.find(part.repository, path.name)
            if locked is None:
                rows.append(ModelRow(*fixed, path.name, path, "unverified", size=size))
                continue
            good = file_sha256(path) == locked.sha256 if recompute else locked.is_at(path)
            status: Literal["ready", "corrupt"] = "ready" if good else "corrupt"
            rows.append(ModelRow(*fixed, path.name, path, status, locked.commit, size))
    return rows


def _built_in(preset: str) -> list[ModelRow]:
    files = pretrained_files(find_preset(preset))
    if not files:
        return [ModelRow(preset, "all", "seeded", "Apache-2.0", "", None, "built in")]
    rows = []
    for part, path in files.items():
        fixed = (preset, part, "package", "Apache-2.0", path.name)
        if path.is_file():
            rows.append(ModelRow(*fixed, path, "built in", size=path.stat().st_size))
        else:
            rows.append(ModelRow(*fixed, None, "missing"))
    return rows


def _locate(
    preset: str, overrides: Mapping[str, str], store: Path, wanted: Collection[str]
) -> tuple[ModelFiles, list[Part]]:
    """The files that are there, and the parts that are needed but not whole."""
    parts = parts_of(preset)
    packaged = pretrained_files(find_preset(preset))
    if overrides and not parts and not packaged:
        raise CannotRun(f"{preset} makes its own weights; it takes none for {', '.join(sorted(overrides))}")
    named = _named(overrides)
    if "generator" not in wanted and "wav2vec2" in named:
        # An encoder that is named would stay behind that of the package's generator.
        packaged.pop("generator", None)
    found = packaged | named
    if absent := [str(path) for part, path in packaged.items() if part not in named and not path.is_file()]:
        raise CannotRun(f"this copy of the program lacks the weights of {preset}: {', '.join(absent)}; install it anew")
    missing = []
    for part in (part for part in parts if part.name in wanted):
        own_generator = part.name == "wav2vec2" and "generator" in named
        if part.name in named or (own_generator and named["generator"].suffix == ".safetensors"):
            continue
        if not _absent(part, store):
            found[part.name] = part.path(store)
        elif not own_generator:
            missing.append(part)
    return ModelFiles(**found), missing


def _named(overrides: Mapping[str, str]) -> dict[str, Path]:
    if unknown := overrides.keys() - set(PARTS):
        raise CannotRun(f"there are no weights called {', '.join(sorted(unknown))}; the parts are {', '.join(PARTS)}")
    named = {name: Path(path).expanduser() for name, path in overrides.items()}
    for name, path in named.items():
        if not (path.is_dir() if name == "wav2vec2" else path.is_file()):
            expected = "a folder of a hub model" if name == "wav2vec2" else "a .ckpt or .safetensors file"
            raise CannotRun(f"the weights named for {name} are missing: expected {expected} at {path}")
    return named


def _absent(part: Part, store: Path) -> list[str]:
    """The names of the part's files that the store lacks."""
    return [names[0] for names, path in zip(part.files, part.present(store), strict=True) if path is None]


def _encoder_file(folder: Path) -> Path:
    from imtalker.checkpoints import CheckpointError, encoder_file

    try:
        return encoder_file(folder)
    except CheckpointError as error:
        raise CannotRun(str(error)) from error


def _load(files: ModelFiles) -> None:
    from imtalker.checkpoints import CheckpointError, load_generator, load_renderer

    try:
        if files.renderer is not None:
            load_renderer(files.renderer)
        if files.generator is not None:
            load_generator(files.generator, files.wav2vec2)
    except CheckpointError as error:
        raise CannotRun(str(error)) from error

"""What each published preset is made of: hub repositories, their files and licences."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from imtalker.presets import find_preset
from pipeline.errors import CannotRun

PARTS = ("renderer", "generator", "wav2vec2")
"""The parts of a model whose files a run can be given (``weights`` in its settings)."""

FEATURE_PARTS = ("renderer", "wav2vec2")
"""The parts that features of portraits, recordings and drivers need; a generator may bring the second."""


@dataclass(frozen=True)
class Part:
    """One part of a published model: a file, or a folder of files, of one hub repository."""

    name: str
    repository: str
    licence: str
    files: tuple[tuple[str, ...], ...]
    """What is needed; where an entry has several names, the first that the repository has."""
    is_folder: bool = False
    """Whether the part is used as the folder, not as its only file."""

    def folder(self, store: Path) -> Path:
        return store / self.repository.replace("/", "--")

    def path(self, store: Path) -> Path:
        """What a loader is given."""
        return self.folder(store) if self.is_folder else self.folder(store) / self.files[0][0]

    def present(self, store: Path) -> list[Path | None]:
        """For each needed file its path, or None where it is missing."""
        folder = self.folder(store)
        return [next((folder / n for n in names if (folder / n).is_file()), None) for names in self.files]


_IMTALKER = "cbsjtu01/IMTalker"
_IMTALKER_LICENCE = "Apache-2.0 (the code's; see the repository)"

_PUBLISHED = {
    "imtalker": (
        Part("renderer", _IMTALKER, _IMTALKER_LICENCE, (("renderer.ckpt",),)),
        Part("generator", _IMTALKER, _IMTALKER_LICENCE, (("generator.ckpt",),)),
        Part(
            "wav2vec2",
            "facebook/wav2vec2-base-960h",
            "Apache-2.0",
            (("config.json",), ("preprocessor_config.json",), ("model.safetensors", "pytorch_model.bin")),
            is_folder=True,
        ),
    ),
}


def parts_of(preset: str) -> tuple[Part, ...]:
    """The parts to fetch for ``preset``, none if its weights are made on the spot; raises CannotRun if unknown."""
    try:
        found = find_preset(preset)
    except ValueError as error:
        raise CannotRun(str(error)) from error
    return _PUBLISHED[preset] if found.weights == "published" else ()


def default_store() -> Path:
    """``$IMTALKER_MODELS``, else ``imtalker/models`` in ``$XDG_CACHE_HOME`` or ``~/.cache``. Nothing is created."""
    if own := os.environ.get("IMTALKER_MODELS"):
        return Path(own).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "imtalker" / "models"


def parse_weights(texts: Iterable[str]) -> dict[str, str]:
    """``PART=PATH`` texts as part -> path; raises CannotRun for any other form."""
    return _pairs(texts, "=", "--weights {}: expected PART=PATH, e.g. renderer=renderer.safetensors")


def parse_revisions(texts: Iterable[str]) -> dict[str, str]:
    """``REPOSITORY@REVISION`` texts as repository -> revision; raises CannotRun for any other form."""
    return _pairs(texts, "@", "--revision {}: expected REPOSITORY@REVISION, the latter a branch, tag or commit")


def _pairs(texts: Iterable[str], separator: str, otherwise: str) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, _, value = text.partition(separator)
        if not name or not value:
            raise CannotRun(otherwise.format(text))
        pairs[name] = value
    return pairs

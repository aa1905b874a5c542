"""Pairing of files: which portrait goes with which audio and driver."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from manifests.errors import ManifestError

Pairing = Literal["cross", "zip", "stem"]

_LANGUAGE = re.compile(r"[a-z]{2,3}([-_][a-z0-9]{2,8})*", re.IGNORECASE)


@dataclass(frozen=True)
class Source:
    """One file of a folder: its absolute URI and its path beneath the folder (POSIX)."""

    uri: str
    path: str

    @property
    def stem(self) -> str:
        return PurePosixPath(self.path).stem

    @property
    def language(self) -> str | None:
        """The first folder of ``<language>/<stem>`` if it looks like a language tag (``de``, ``pt-BR``)."""
        folder, slash, _ = self.path.partition("/")
        return folder if slash and _LANGUAGE.fullmatch(folder) else None


@dataclass(frozen=True)
class Pairs:
    """Combinations of files, one of each folder, made on demand: a cross of folders can be very large.

    ``unpaired`` lists files that are in no combination.
    """

    size: int
    pick: Callable[[int], tuple[Source, ...]]
    unpaired: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.size

    def drawn(self, count: int | None, seed: int) -> list[tuple[Source, ...]]:
        """All combinations in order, or ``count`` different ones drawn at random.

        Raises:
            ManifestError: there are fewer than ``count``.
        """
        if count is None:
            return [self.pick(index) for index in range(self.size)]
        if count > self.size:
            raise ManifestError(f"expected at least {count} pairs to draw from, found {self.size}")
        return [self.pick(index) for index in random.Random(seed).sample(range(self.size), count)]


def pair(folders: Sequence[Sequence[Source]], how: Pairing) -> Pairs:
    """Combine the files of two or three folders; the first holds the portraits.

    Args:
        how: ``cross``: everything with everything. ``zip``: the first with the first and so on, in the order of
            their paths. ``stem``: files of the same name without extension; one portrait may have many partners.

    Raises:
        ManifestError: folders of unequal length for ``zip``; for ``stem``, two portraits of one stem, or no pair.
    """
    if how == "cross":
        return _cross(folders)
    if how == "zip":
        return _zip(folders)
    return _by_stem(folders)


def _cross(folders: Sequence[Sequence[Source]]) -> Pairs:
    def pick(index: int) -> tuple[Source, ...]:
        chosen: list[Source] = []
        for folder in reversed(folders):
            index, place = divmod(index, len(folder))
            chosen.append(folder[place])
        return tuple(reversed(chosen))

    return Pairs(math.prod(len(folder) for folder in folders), pick)


def _zip(folders: Sequence[Sequence[Source]]) -> Pairs:
    sizes = [len(folder) for folder in folders]
    if len(set(sizes)) > 1:
        surplus = [source.path for folder in folders for source in folder[min(sizes) :]]
        raise ManifestError(
            f"zip needs folders of the same length, found {' and '.join(map(str, sizes))} files; without a partner: "
            f"{shortened(surplus)}"
        )
    return Pairs(sizes[0], lambda index: tuple(folder[index] for folder in folders))


def _by_stem(folders: Sequence[Sequence[Source]]) -> Pairs:
    counts = Counter(source.stem for source in folders[0])
    ambiguous = [source.path for source in folders[0] if counts[source.stem] > 1]
    if ambiguous:
        raise ManifestError(f"stem needs portraits of different names, found {shortened(ambiguous)}")
    grouped = [_grouped(folder) for folder in folders]
    stems = [source.stem for source in folders[0] if all(source.stem in group for group in grouped)]
    pairs = [chosen for stem in stems for chosen in _combined([group[stem] for group in grouped])]
    if not pairs:
        raise ManifestError("stem needs files of the same name without extension, found none")
    used = {source for chosen in pairs for source in chosen}
    unpaired = tuple(source.path for folder in folders for source in folder if source not in used)
    return Pairs(len(pairs), pairs.__getitem__, unpaired)


def _grouped(folder: Sequence[Source]) -> dict[str, list[Source]]:
    groups: dict[str, list[Source]] = {}
    for source in folder:
        groups.setdefault(source.stem, []).append(source)
    return groups


def _combined(groups: Sequence[Sequence[Source]]) -> list[tuple[Source, ...]]:
    """Every combination of one stem's files; audio and driver of a language go together where both name one."""
    combinations = _cross(groups)
    chosen = [combinations.pick(index) for index in range(len(combinations))]
    return [sources for sources in chosen if len({source.language for source in sources[1:]} - {None}) < 2]


def shortened(names: Sequence[str], limit: int = 10) -> str:
    """The first names of a list and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more

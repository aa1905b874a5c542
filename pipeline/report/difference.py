"""What is different in another run: items that fare otherwise, numbers that moved, settings and versions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from pipeline.report.columns import Column, numeric_columns
from pipeline.report.source import Source

_IDS_SHOWN = 12


@dataclass(frozen=True)
class Move:
    """Items that went from one status to another."""

    before: str
    now: str
    count: int
    ids: list[str]
    """The first ones."""


@dataclass(frozen=True)
class Shift:
    """A column of numbers in the items that both runs have a value for."""

    column: Column
    pairs: int
    before: float
    """Median."""
    now: float
    change: float
    """Median of the items' own changes."""
    higher: int
    lower: int
    farthest: str
    """Id of the item that changed most."""
    farthest_change: float

    @property
    def verdict(self) -> str:
        """``better`` or ``worse`` where the median of the changes is not 0 and the column has a direction."""
        if not self.change or self.column.better is None:
            return ""
        return "better" if (self.change > 0) == (self.column.better == "higher") else "worse"

    def as_dict(self) -> dict[str, Any]:
        facts = {name: value for name, value in asdict(self).items() if name != "column"}
        return {"column": self.column.name, **facts, "verdict": self.verdict}


@dataclass(frozen=True)
class Difference:
    """From another run, the earlier one, to this one; items are the same if their ids are."""

    against: str
    both: int
    only_now: int
    only_before: int
    same_frames: int
    """Items in both whose frames are the same before encoding (`frames_sha256`)."""
    other_frames: int
    moves: list[Move]
    shifts: list[Shift]
    settings: list[tuple[str, Any, Any]] = field(default_factory=list)
    """Settings, model, weights and versions that differ: name, before, now."""

    def as_dict(self) -> dict[str, Any]:
        facts = {name: getattr(self, name) for name in ("against", "both", "only_now", "only_before")}
        facts |= {"same_frames": self.same_frames, "other_frames": self.other_frames}
        return {
            **facts,
            "moves": [asdict(move) for move in self.moves],
            "shifts": [shift.as_dict() for shift in self.shifts],
            "settings": [{"name": name, "before": before, "now": now} for name, before, now in self.settings],
        }


def difference(now: Source, before: Source) -> Difference:
    """Compare two outputs."""
    here = {id: row for row, id in enumerate(now.ids)}
    there = {id: row for row, id in enumerate(before.ids)}
    ids = [id for id in here if id in there]
    rows = np.array([here[id] for id in ids], dtype=np.int64)
    other_rows = np.array([there[id] for id in ids], dtype=np.int64)
    hashes, other_hashes = now.column("frames_sha256"), before.column("frames_sha256")
    pairs = [(hashes[a], other_hashes[b]) for a, b in zip(rows, other_rows, strict=True)]
    known = [a == b for a, b in pairs if a and b]
    return Difference(
        against=before.name,
        both=len(ids),
        only_now=len(here) - len(ids),
        only_before=len(there) - len(ids),
        same_frames=sum(known),
        other_frames=len(known) - sum(known),
        moves=_moves(now, before, ids, rows, other_rows),
        shifts=list(_shifts(now, before, ids, rows, other_rows)),
        settings=list(_settings(now.run, before.run)),
    )


def _moves(now: Source, before: Source, ids: list[str], rows: np.ndarray, other_rows: np.ndarray) -> list[Move]:
    status, was = now.column("status"), before.column("status")
    counts: Counter[tuple[str, str]] = Counter()
    some: dict[tuple[str, str], list[str]] = {}
    for id, a, b in zip(ids, rows, other_rows, strict=True):
        move = (str(was[b]), str(status[a]))
        if move[0] != move[1]:
            counts[move] += 1
            if len(some.setdefault(move, [])) < _IDS_SHOWN:
                some[move].append(id)
    return [Move(*move, count, some[move]) for move, count in counts.most_common()]


def _shifts(now: Source, before: Source, ids: list[str], rows: np.ndarray, other_rows: np.ndarray) -> Iterator[Shift]:
    others = {column.name: values for column, values in numeric_columns(before)}
    for column, values in numeric_columns(now):
        if column.name not in others or column.group == "yours":
            continue
        a, b = values[rows], others[column.name][other_rows]
        paired = np.flatnonzero(np.isfinite(a) & np.isfinite(b))
        if not len(paired):
            continue
        changes = a[paired] - b[paired]
        farthest = int(np.abs(changes).argmax())
        yield Shift(
            column=column,
            pairs=len(paired),
            before=float(np.median(b[paired])),
            now=float(np.median(a[paired])),
            change=float(np.median(changes)),
            higher=int((changes > 0).sum()),
            lower=int((changes < 0).sum()),
            farthest=ids[paired[farthest]],
            farthest_change=float(changes[farthest]),
        )


def _settings(now: Mapping[str, Any], before: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for part in ("manifest", "settings", "model", "versions"):
        here, there = dict(_flat(now.get(part), part)), dict(_flat(before.get(part), part))
        for name in sorted(here.keys() | there.keys()):
            if here.get(name) != there.get(name):
                yield name, there.get(name), here.get(name)


def _flat(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}")
    else:
        yield name, value

"""A short look at a manifest: how many rows of which kind, which columns, the first rows."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from manifests.reader import Manifest
from manifests.row import Row
from manifests.schema import BY_NAME, misspellings
from manifests.uri import relative


@dataclass(frozen=True)
class Summary:
    """What `summarise` found. ``columns`` and ``languages`` map names to types and to numbers of rows."""

    uri: str
    rows: int
    audio_driven: int
    driver_driven: int
    undecided: int
    with_problems: int
    portraits: int
    audios: int
    drivers: int
    columns: dict[str, str]
    user_columns: dict[str, str]
    languages: dict[str, int]
    head: list[dict[str, Any]]
    warnings: list[str]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        """The summary for people, one fact a line, without a trailing newline."""
        lines = [
            self.uri,
            f"rows       {self.rows} ({self.audio_driven} audio-driven, {self.driver_driven} driver-driven, "
            f"{self.undecided} undecided; {self.with_problems} with problems)",
            f"inputs     {self.portraits} portraits, {self.audios} audios, {self.drivers} drivers",
            f"columns    {_pairs(self.columns)}",
            f"own        {_pairs(self.user_columns) or 'none'}",
        ]
        if self.languages:
            lines.append(f"languages  {_pairs(self.languages)}")
        lines += [f"warning    {warning}" for warning in self.warnings]
        lines += ["first rows"]
        lines += ["  " + "  ".join(f"{name}={value}" for name, value in row.items()) for row in self.head]
        return "\n".join(lines)


def summarise(manifest: Manifest, *, head: int = 5) -> Summary:
    """Count and describe a manifest without opening any of its media.

    Args:
        head: how many of the first rows are shown.
    """
    rows = manifest.rows
    sources = Counter(row.motion_source(None) for row in rows)
    types = {field.name: str(field.type) for field in manifest.schema}
    return Summary(
        uri=manifest.uri,
        rows=len(rows),
        audio_driven=sources["audio"],
        driver_driven=sources["driver"],
        undecided=sources[None],
        with_problems=sum(bool(row.problems) for row in rows),
        portraits=len({row.image for row in rows if row.image}),
        audios=len({row.audio for row in rows if row.audio}),
        drivers=len({row.driver for row in rows if row.driver}),
        columns={name: dtype for name, dtype in types.items() if name in BY_NAME},
        user_columns={name: dtype for name, dtype in types.items() if name not in BY_NAME},
        languages=dict(sorted(Counter(row.language for row in rows if row.language).items())),
        head=[_shown(row, manifest.base) for row in rows[:head]],
        warnings=warnings(manifest),
    )


def warnings(manifest: Manifest) -> list[str]:
    """What is allowed but probably not meant: misspelt columns, and files that a row's mode doesn't use."""
    found = [
        f"column {name!r} is carried along as your own; did you mean {known!r}?"
        for name, known in misspellings(manifest.schema).items()
    ]
    unused = sum(
        row.motion_source(None) == "driver" and bool(row.pose or row.camera or row.gaze) for row in manifest.rows
    )
    if unused:
        found.append(f"{unused} driver-driven rows name pose, camera or gaze, which shape audio-driven motion only")
    return found


def _shown(row: Row, base: str) -> dict[str, Any]:
    uris = {name: relative(uri, base) for name in ("image", "audio", "driver") if (uri := getattr(row, name))}
    problem = {"problem": row.problem.message} if row.problem else {}
    return {"id": row.id, **uris, **problem}


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())

"""Checking a manifest before a run: its rows, whether its inputs can be reached, and what they hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from manifests.reader import read_manifest
from manifests.row import Row
from manifests.summary import warnings
from manifests.uri import filesystem, storage_errors
from pipeline.config import RunSettings
from pipeline.errors import InputError, ItemError
from pipeline.inputs.controls import WIDTHS, read_controls
from pipeline.inputs.fetch import fetched, redacted
from pipeline.media.reader import MediaReader

ROLES = ("image", "audio", "driver", *WIDTHS)
"""Columns of a manifest that name files."""


@dataclass(frozen=True)
class RowProblem:
    """Why a row would fail: its number from 0, the column at fault, and what to do; free of credentials."""

    row: int
    id: str
    column: str
    message: str
    hint: str


@dataclass(frozen=True)
class ValidationReport:
    """What `validate_manifest` found.

    ``inputs`` counts distinct files by column. ``seconds`` sums the length of the videos to make by where their motion
    comes from, from the headers of rows without problems; ``rows_without_length`` of them state none. Both are empty
    unless the media were ``probed``.
    """

    uri: str
    rows: int
    probed: bool
    inputs: dict[str, int]
    seconds: dict[str, float]
    rows_without_length: int
    problems: tuple[RowProblem, ...]
    warnings: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        return {"ok": self.ok, **asdict(self)}

    def text(self, limit: int = 20) -> str:
        """The report for people, one fact a line, with at most ``limit`` problems."""
        wrong = len({problem.row for problem in self.problems})
        lines = [
            f"{self.uri}: {self.rows} rows, {wrong} of them with problems",
            "inputs     " + ", ".join(f"{count} {role}" for role, count in self.inputs.items()),
        ]
        if self.probed:
            total = ", ".join(f"{seconds:.1f} s {mode}-driven" for mode, seconds in self.seconds.items())
            unknown = f"; {self.rows_without_length} rows of unknown length" if self.rows_without_length else ""
            lines.append(f"to make    {total or '0 s'}{unknown}")
        lines += [f"warning    {warning}" for warning in self.warnings]
        for problem in self.problems[:limit]:
            lines.append(f"row {problem.row}  {problem.id}: {problem.message} ({problem.hint})")
        if len(self.problems) > limit:
            lines.append(f"... and {len(self.problems) - limit} more problems")
        return "\n".join(lines)


@dataclass(frozen=True)
class _Checked:
    """One input: its length by the header, in seconds, or what is wrong with it."""

    seconds: float | None = None
    error: ItemError | None = None


def validate_manifest(
    uri: str,
    settings: RunSettings,
    *,
    probe_media: bool = True,
    workers: int = 8,
    results_columns: Collection[str] = (),
) -> ValidationReport:
    """Check every row and every distinct input of a manifest.

    Args:
        probe_media: copy each input and open it (portraits are decoded, of media the header is read), instead of only
            asking the storage whether it is there. Faces are not looked for.
        workers: inputs checked at once.
        results_columns: names the results use, which the user's own columns may not have.

    Raises:
        ManifestError: the manifest as a whole can't be used.
    """
    manifest = read_manifest(
        uri,
        settings.storage_options,
        results_columns=results_columns,
        motion_from=settings.motion_from,
        require_consent=settings.require_consent,
    )
    named = list(dict.fromkeys(pair for row in manifest.rows for pair in _inputs(row)))
    check = partial(_probed if probe_media else _reached, settings=settings)
    with ThreadPoolExecutor(workers) as pool:
        checked = dict(zip(named, pool.map(check, named), strict=True))
    problems = [problem for row in manifest.rows for problem in _problems(row, checked)]
    wrong = {problem.row for problem in problems}
    lengths = [
        (row.motion_source(settings.motion_from), _length(row, checked, settings.max_seconds))
        for row in manifest.rows
        if probe_media and row.index not in wrong
    ]
    seconds: dict[str, float] = {}
    for mode, length in lengths:
        if mode and length is not None:
            seconds[mode] = seconds.get(mode, 0.0) + length
    return ValidationReport(
        uri=redacted(manifest.uri),
        rows=len(manifest.rows),
        probed=probe_media,
        inputs=dict(Counter(role for role, _ in named)),
        seconds=seconds,
        rows_without_length=sum(length is None for _, length in lengths),
        problems=tuple(problems),
        warnings=tuple(warnings(manifest)),
    )


def _inputs(row: Row) -> list[tuple[str, str]]:
    return [(role, uri) for role in ROLES if (uri := getattr(row, role))]


def _problems(row: Row, checked: dict[tuple[str, str], _Checked]) -> list[RowProblem]:
    found = [RowProblem(row.index, row.id, p.column, redacted(p.message), p.hint) for p in row.problems]
    for role, uri in _inputs(row):
        if error := checked[role, uri].error:
            named, message = redacted(uri), redacted(error.message)
            found.append(
                RowProblem(row.index, row.id, role, message if named in message else f"{named}: {message}", error.hint)
            )
    return found


def _length(row: Row, checked: dict[tuple[str, str], _Checked], max_seconds: float | None) -> float | None:
    """Seconds of the video that the row asks for: of its audio or driver, the shorter of both; None if unknown."""
    media = [checked[role, uri].seconds for role, uri in _inputs(row) if role in ("audio", "driver")]
    known = [seconds for seconds in media if seconds is not None]
    if len(known) < len(media):
        return None
    return min([*known, *([max_seconds] if max_seconds else [])])


def _reached(named: tuple[str, str], settings: RunSettings) -> _Checked:
    """Ask the storage about one input without reading it."""
    _, uri = named
    try:
        filesystem_, path = filesystem(uri, settings.storage_options)
        if filesystem_.info(path)["type"] == "directory":
            return _Checked(error=InputError("expected a file, found a folder", hint="give the URI of one file"))
        return _Checked()
    except FileNotFoundError:
        return _Checked(error=InputError("does not exist", hint="check the manifest's path and the storage"))
    except storage_errors() as exc:
        return _Checked(error=_unreachable(exc))


def _probed(named: tuple[str, str], settings: RunSettings) -> _Checked:
    """Copy one input and open it as what its column says it is."""
    role, uri = named
    media = MediaReader(settings.limits)
    try:
        with fetched(uri, settings) as local:
            if role == "image":
                media.image(local.path)
                return _Checked()
            if role in WIDTHS:
                read_controls(role, local.path, uri)
                return _Checked()
            facts = media.facts(local.path)
            if role == "audio" and facts.audio is None:
                raise InputError("expected sound, found none in the file", hint="name a file that has a sound track")
            if role == "driver" and facts.video is None:
                raise InputError("expected moving pictures, found none", hint="name a video as the driver")
            return _Checked(facts.seconds)
    except ItemError as exc:
        return _Checked(error=exc)
    except storage_errors() as exc:
        return _Checked(error=_unreachable(exc))


def _unreachable(exc: Exception) -> ItemError:
    return ItemError(
        "infrastructure",
        f"can't be reached: {type(exc).__name__}: {exc}",
        hint="check the address, the credentials and storage_options",
    )

"""Rows: what each line of a manifest asks for, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from manifests import ids
from manifests.schema import BY_NAME, COLUMNS, user_columns
from manifests.uri import resolve

MotionFrom = Literal["audio", "driver"]

_REFUSALS = frozenset({"false", "no", "n", "0", "none", "refused", "withdrawn"})

_URI_COLUMNS = tuple(column.name for column in COLUMNS if column.kind == "uri")


@dataclass(frozen=True)
class Problem:
    """Why a row can't be done: the column at fault, what was expected and found, and what to do."""

    column: str
    message: str
    hint: str


@dataclass(frozen=True)
class Row:
    """One row of a manifest; URIs are absolute, absent values are None.

    ``id`` is the given or derived one, also where it can't be used (``id_usable`` is False then: it is malformed,
    or an earlier row has it). ``extra`` holds the user's own columns as Python values.
    """

    index: int
    id: str
    id_usable: bool
    image: str | None
    audio: str | None
    driver: str | None
    pose: str | None
    camera: str | None
    gaze: str | None
    seed: int | None
    cfg_scale: float | None
    nfe: int | None
    crop: bool | None
    motion_from: MotionFrom | None
    language: str | None
    consent: str | None
    same_identity: bool | None
    extra: Mapping[str, Any]
    problems: tuple[Problem, ...] = ()

    @property
    def problem(self) -> Problem | None:
        """The first problem, None for a row that can be done."""
        return self.problems[0] if self.problems else None

    @property
    def key(self) -> str:
        """Unique name of the row's record: its id, or ``_invalid/<index>`` where the id can't be used."""
        return self.id if self.id_usable else f"_invalid/{self.index}"

    def motion_source(self, default: MotionFrom | None) -> MotionFrom | None:
        """Which file the motion comes from; ``default`` is the run's choice for rows with both files."""
        if self.audio and self.driver:
            return self.motion_from or default
        if self.audio:
            return "audio"
        return "driver" if self.driver else None


def parse_rows(
    table: pa.Table, base: str, motion_from: MotionFrom | None, *, require_consent: bool = False
) -> Iterator[Row]:
    """Read every row of a table whose schema was checked; a row that is wrong carries its problems.

    Args:
        base: folder that relative URIs stand in.
        motion_from: the run's choice for rows that have both audio and driver and don't say themselves.
        require_consent: whether a row without consent is wrong.
    """
    extra_names = user_columns(table.schema)
    taken: dict[str, int] = {}
    for index, record in enumerate(_records(table)):
        extra = {name: record[name] for name in extra_names}
        row = _parse(index, record, extra, base, motion_from)
        if require_consent and not is_consent(row["consent"]):
            row["problems"].append(_no_consent(row["consent"]))
        repeated = taken.setdefault(ids.fold(row["id"]), index) if ids.is_valid(row["id"]) else index
        if repeated != index:
            row["problems"].append(_repeated_id(row["id"], repeated, derived=_blank(record.get("id"))))
        row["id_usable"] = ids.is_valid(row["id"]) and repeated == index
        row["problems"] = tuple(row["problems"])
        yield Row(**row)


def _records(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=10_000):
        yield from batch.to_pylist()


def _parse(
    index: int, record: dict[str, Any], extra: dict[str, Any], base: str, motion_from: MotionFrom | None
) -> dict[str, Any]:
    given: dict[str, Any] = {}
    unreadable: dict[str, Any] = {}
    problems: list[Problem] = []
    for name, column in BY_NAME.items():
        try:
            given[name] = column.parse(record.get(name))
        except ValueError as exc:
            given[name] = None
            unreadable[name] = record[name]
            problems.append(Problem(name, f"{name}: {exc}", f"correct {name} in row {index} of the manifest"))
    identifier = given.pop("id")
    if identifier is None:
        # What can't be read still tells rows apart.
        columns = {**extra, **given, **unreadable}
        identifier = ids.derive(given["image"], given["audio"] or given["driver"], columns)
    elif not ids.is_valid(identifier):
        problems.append(
            Problem(
                "id",
                f"id: expected {ids.PATTERN}, found {identifier[:200]!r}",
                "ids name files: use 1 to 128 ASCII letters, digits, '.', '_' and '-', starting with a letter "
                "or digit, or leave the id out",
            )
        )
    problems += [problem for problem in _missing(given, motion_from) if problem.column not in unreadable]
    for name in _URI_COLUMNS:
        try:
            given[name] = resolve(given[name], base) if given[name] else None
        except ValueError as exc:
            given[name] = None
            problems.append(Problem(name, f"{name}: {exc}", "give a path inside the bucket, or a full URI"))
    return {"index": index, "id": identifier, "extra": extra, "problems": problems, **given}


def _missing(given: Mapping[str, Any], default: MotionFrom | None) -> Iterator[Problem]:
    """What a row's files and mode lack, in the order in which a reader would fill it in."""
    if not given["image"]:
        yield Problem("image", "image: expected a URI, found nothing", "name the portrait in column image")
    audio, driver, chosen = given["audio"], given["driver"], given["motion_from"]
    if not audio and not driver:
        yield Problem("audio", "expected audio or driver, found neither", "name an audio file or a driver video")
    elif chosen and not given[chosen]:
        yield Problem(
            "motion_from",
            f"motion_from={chosen}, but the row has no {chosen}",
            f"name the {chosen} or clear motion_from",
        )
    elif audio and driver and not (chosen or default):
        yield Problem(
            "motion_from",
            "the row has both audio and driver, and nothing says where the motion comes from",
            "set motion_from to driver (lips and head from the driver, sound from the audio) or to audio, in the "
            "row or for the whole run",
        )
    elif audio and driver and (chosen or default) == "audio" and not (given["pose"] or given["gaze"]):
        yield Problem(
            "pose",
            "motion_from=audio with a driver takes head pose and gaze from files, and the row names neither",
            "give pose or gaze, set motion_from=driver, or leave the driver out",
        )


def is_consent(statement: str | None) -> bool:
    """Whether a row's ``consent`` says that there is one: anything but nothing, or a no."""
    return statement is not None and statement.strip().casefold() not in _REFUSALS


def _no_consent(found: str | None) -> Problem:
    return Problem(
        "consent",
        f"consent: required by this run, found {'nothing' if found is None else repr(found[:200])}",
        "name the consent of the people who are shown and heard (a contract, a form, a date) in column consent, or "
        "leave the row out",
    )


def _blank(value: object) -> bool:
    return BY_NAME["id"].parse(value) is None


def _repeated_id(identifier: str, earlier: int, *, derived: bool) -> Problem:
    hint = (
        "the id was derived from the row: give both rows ids of their own or other seeds, or remove one"
        if derived
        else "ids are file names and must differ by more than upper and lower case: change one of the two"
    )
    return Problem("id", f"id {identifier!r} is already taken by row {earlier}", hint)

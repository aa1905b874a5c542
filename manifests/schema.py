"""The columns of a manifest: names, types, ranges, and how one value is read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches
from typing import Any, Literal

import pyarrow as pa
import pyarrow.types as pat

from manifests.errors import ManifestError

Kind = Literal["uri", "text", "integer", "number", "flag", "statement"]


@dataclass(frozen=True)
class Column:
    """A column that the program reads. Every other column is the user's own.

    ``minimum`` and ``maximum`` bound numbers, inclusive; ``choices``, if any, are the only texts allowed.
    """

    name: str
    kind: Kind
    help: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()

    def parse(self, value: Any) -> Any:
        """``value`` in the column's Python type; None for null, NaN and blank text.

        Raises:
            ValueError: wrong type or out of range; the text says what was expected and found.
        """
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return None
        if isinstance(value, str) and not value.strip():
            return None
        parsed = _PARSERS[self.kind](value)
        if parsed is None:
            raise ValueError(f"expected {self.expected()}, found {value!r}")
        if self.minimum is not None and not self.minimum <= parsed <= (self.maximum or math.inf):
            raise ValueError(f"expected {self.expected()}, found {value!r}")
        if self.choices and parsed not in self.choices:
            raise ValueError(f"expected {self.expected()}, found {value!r}")
        return parsed

    def expected(self) -> str:
        """What a value must be, in words."""
        if self.choices:
            return " or ".join(self.choices)
        words = {
            "uri": "a URI",
            "text": "text",
            "integer": "a whole number",
            "number": "a number",
            "statement": "text, true or false",
        }
        if self.kind == "flag":
            return "true or false"
        bounds = "" if self.minimum is None else f" from {self.minimum} to {self.maximum}"
        return words[self.kind] + bounds

    def accepts(self, dtype: pa.DataType) -> bool:
        """Whether values of an Arrow type can be read as this column."""
        if pat.is_dictionary(dtype):
            dtype = dtype.value_type
        if pat.is_null(dtype) or _is_text(dtype):
            return True
        if self.kind in ("integer", "number"):
            return pat.is_integer(dtype) or pat.is_floating(dtype) or pat.is_decimal(dtype)
        if self.kind == "flag":
            return pat.is_boolean(dtype) or pat.is_integer(dtype) or pat.is_floating(dtype)
        if self.kind == "statement":
            return pat.is_boolean(dtype)
        return self.name == "id" and pat.is_integer(dtype)


COLUMNS: tuple[Column, ...] = (
    Column("image", "uri", "portrait; required"),
    Column("audio", "uri", "speech; audio, driver or both are required"),
    Column("driver", "uri", "video whose motion is taken over"),
    Column("id", "text", "name of the item and of its files; derived from the row when absent"),
    Column("pose", "uri", "head pose for audio-driven motion"),
    Column("camera", "uri", "camera for audio-driven motion"),
    Column("gaze", "uri", "gaze for audio-driven motion"),
    Column("seed", "integer", "the item's own seed", minimum=0, maximum=2**63 - 1),
    Column("cfg_scale", "number", "guidance on the audio", minimum=0, maximum=20),
    Column("nfe", "integer", "steps of the motion solver", minimum=1, maximum=200),
    Column("crop", "flag", "find and crop the face, or take the image as it is"),
    Column("motion_from", "text", "required with both audio and driver", choices=("audio", "driver")),
    Column("language", "text", "groups the report and the metrics; no effect on the video"),
    Column("consent", "statement", "consent of the people who are shown and heard: a reference to it, or true"),
    Column("same_identity", "flag", "portrait and driver show the same person: the video is compared with the driver"),
)

BY_NAME: dict[str, Column] = {column.name: column for column in COLUMNS}


def user_columns(schema: pa.Schema) -> list[str]:
    """Names of the columns that are carried to the results untouched, in the order of the manifest."""
    return [name for name in schema.names if name not in BY_NAME]


def check_schema(schema: pa.Schema, results_columns: Collection[str]) -> None:
    """Refuse a manifest whose columns can't be used.

    Raises:
        ManifestError: ``image`` is missing, a name occurs twice, a type can't be read, or one of the user's
            columns has the name of a results column.
    """
    repeated = sorted(name for name, count in Counter(schema.names).items() if count > 1)
    if repeated:
        raise ManifestError(f"every column needs its own name; repeated: {', '.join(repeated)}")
    if "image" not in schema.names:
        close = get_close_matches("image", [name.lower() for name in schema.names], n=1)
        found = next((name for name in schema.names if close and name.lower() == close[0]), None)
        rename = f"; rename {found!r}?" if found else ""
        raise ManifestError(f"expected a column 'image', found: {', '.join(schema.names) or 'none'}{rename}")
    for name in schema.names:
        column = BY_NAME.get(name)
        if column and not column.accepts(schema.field(name).type):
            raise ManifestError(
                f"column {name!r}: expected {column.expected()}, found the type {schema.field(name).type}"
            )
    collisions = sorted(set(user_columns(schema)) & set(results_columns))
    if collisions:
        raise ManifestError(
            f"these columns have names of results columns: {', '.join(collisions)}; rename them in the manifest"
        )


def misspellings(schema: pa.Schema) -> dict[str, str]:
    """User columns named almost like a known column that is absent: ``{"cfgscale": "cfg_scale"}``."""
    absent = [name for name in BY_NAME if name not in schema.names]
    near = {name: get_close_matches(name.lower(), absent, n=1, cutoff=0.8) for name in user_columns(schema)}
    return {name: match[0] for name, match in near.items() if match}


def _is_text(dtype: pa.DataType) -> bool:
    return pat.is_string(dtype) or pat.is_large_string(dtype) or pat.is_string_view(dtype)


def _text(value: Any) -> str | None:
    if isinstance(value, bool):
        return None
    return str(value) if isinstance(value, str | int) else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _integer(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    try:
        # Decimal, because a float can't hold every 63-bit seed that a text or an integer can.
        number = Decimal(value.strip() if isinstance(value, str) else value)
        # The bound comes first: int() of a text like 1e999999999 would fill the memory.
        return int(number) if abs(number) < 2**64 and number == number.to_integral_value() else None
    except (ArithmeticError, TypeError, ValueError):
        return None


def _flag(value: Any) -> bool | None:
    words = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
    return words.get(str(value).strip().lower())


def _statement(value: Any) -> str | None:
    return str(value).lower() if isinstance(value, bool) else _text(value)


_PARSERS: dict[Kind, Callable[[Any], Any]] = {
    "uri": _text,
    "text": _text,
    "integer": _integer,
    "number": _number,
    "flag": _flag,
    "statement": _statement,
}

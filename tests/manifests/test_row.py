"""A row that is wrong says what is wrong and leaves its neighbours alone."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from manifests.row import MotionFrom, Row, parse_rows
from manifests.schema import BY_NAME
from pipeline.config import RunSettings

GOOD = {"image": "a.png", "audio": "b.wav"}


def parse(*records: dict[str, Any], motion_from: MotionFrom | None = None) -> list[Row]:
    names = dict.fromkeys(name for record in records for name in record)
    table = pa.table({name: [record.get(name) for record in records] for name in names})
    return list(parse_rows(table, "/set", motion_from))


def problem_of(**columns: Any) -> tuple[str, str]:
    before, row, after = parse(GOOD, columns, {**GOOD, "audio": "c.wav"})
    assert before.problem is None
    assert after.problem is None
    assert row.problem is not None
    assert row.problem.hint
    assert row.id_usable is (row.problem.column != "id")
    return row.problem.column, row.problem.message


def test_a_full_row() -> None:
    (row,) = parse(
        {
            "id": "ana.de-1",
            "image": "a.png",
            "audio": "s3://b/c.wav",
            "pose": "p.npy",
            "camera": "c.npy",
            "gaze": "/g.npy",
            "seed": 2**63 - 1,
            "cfg_scale": 2,
            "nfe": 5.0,
            "crop": False,
            "language": "de",
            "consent": "form 7",
            "same_identity": "true",
            "speaker": "Ana",
        }
    )
    assert row == Row(
        index=0,
        id="ana.de-1",
        id_usable=True,
        image="/set/a.png",
        audio="s3://b/c.wav",
        driver=None,
        pose="/set/p.npy",
        camera="/set/c.npy",
        gaze="/g.npy",
        seed=2**63 - 1,
        cfg_scale=2.0,
        nfe=5,
        crop=False,
        motion_from=None,
        language="de",
        consent="form 7",
        same_identity=True,
        extra={"speaker": "Ana"},
    )
    assert row.key == "ana.de-1"


@pytest.mark.parametrize(
    ("columns", "column", "message"),
    [
        ({"audio": "b.wav"}, "image", "image: expected a URI, found nothing"),
        ({"image": " ", "audio": "b.wav"}, "image", "image: expected a URI, found nothing"),
        ({"image": "a.png"}, "audio", "expected audio or driver, found neither"),
        ({**GOOD, "audio": "a\x00b"}, "audio", r"audio: 'a\x00b' holds control characters"),
        ({**GOOD, "seed": "abc"}, "seed", "found 'abc'"),
        ({**GOOD, "seed": "1.5"}, "seed", "found '1.5'"),
        ({**GOOD, "seed": "-1"}, "seed", "expected a whole number from 0 to 9223372036854775807"),
        ({**GOOD, "seed": str(2**63)}, "seed", "found '9223372036854775808'"),
        ({**GOOD, "seed": "1e999999999"}, "seed", "found '1e999999999'"),
        ({**GOOD, "cfg_scale": "inf"}, "cfg_scale", "found 'inf'"),
        ({**GOOD, "cfg_scale": "20.5"}, "cfg_scale", "expected a number from 0 to 20, found '20.5'"),
        ({**GOOD, "nfe": "0"}, "nfe", "expected a whole number from 1 to 200, found '0'"),
        ({**GOOD, "crop": "perhaps"}, "crop", "expected true or false, found 'perhaps'"),
        ({**GOOD, "same_identity": "Ana"}, "same_identity", "expected true or false, found 'Ana'"),
        ({**GOOD, "motion_from": "video"}, "motion_from", "expected audio or driver, found 'video'"),
        ({**GOOD, "motion_from": "driver"}, "motion_from", "motion_from=driver, but the row has no driver"),
        ({**GOOD, "driver": "d.mp4"}, "motion_from", "nothing says where the motion comes from"),
        ({**GOOD, "driver": "d.mp4", "motion_from": "audio"}, "pose", "the row names neither"),
        ({**GOOD, "id": "../x"}, "id", "found '../x'"),
        ({**GOOD, "id": "x" * 129}, "id", "expected [A-Za-z0-9]"),
    ],
)
def test_a_wrong_row_says_what_is_wrong(columns: dict[str, Any], column: str, message: str) -> None:
    found_column, found = problem_of(**columns)
    assert found_column == column
    assert message in found


def test_a_row_lists_all_its_problems() -> None:
    (row,) = parse({"image": None, "audio": "b.wav", "seed": "x", "nfe": "900"})
    assert [problem.column for problem in row.problems] == ["seed", "nfe", "image"]
    assert row.seed is None
    assert row.nfe is None


def test_an_unreadable_mode_is_one_problem_not_two() -> None:
    (row,) = parse({**GOOD, "driver": "d.mp4", "motion_from": "both"})
    assert [problem.column for problem in row.problems] == ["motion_from"]


def test_the_runs_choice_decides_only_where_a_row_has_both_and_is_silent() -> None:
    both = {**GOOD, "driver": "d.mp4", "motion_from": None, "pose": None}
    by_run, by_row, audio_only = parse(
        both, {**both, "motion_from": "audio", "pose": "p.npy"}, {**both, "driver": None}, motion_from="driver"
    )
    assert (by_run.problem, by_row.problem, audio_only.problem) == (None, None, None)
    assert by_run.motion_from is None
    assert [row.motion_source("driver") for row in (by_run, by_row, audio_only)] == ["driver", "audio", "audio"]


def test_the_first_of_two_equal_ids_has_it_and_case_makes_no_difference() -> None:
    rows = parse(*({**GOOD, "id": identifier} for identifier in ("a", "b", "A", "a")))
    assert [row.key for row in rows] == ["a", "b", "_invalid/2", "_invalid/3"]
    assert rows[2].problem is not None
    assert rows[2].problem.message == "id 'A' is already taken by row 0"
    assert "upper and lower case" in rows[2].problem.hint


def test_equal_rows_without_ids_collide_and_are_told_how_to_differ() -> None:
    first, second, third = parse(
        {**GOOD, "take": 1, "id": None}, {**GOOD, "take": 1, "id": None}, {**GOOD, "take": 2, "id": None}
    )
    assert first.id == second.id != third.id
    assert first.problem is None
    assert third.problem is None
    assert second.problem is not None
    assert "derived from the row" in second.problem.hint


def test_a_derived_id_depends_on_nothing_but_its_row() -> None:
    records = [{**GOOD, "audio": f"{letter}.wav", "seed": 1, "score": 0.5} for letter in "abc"]
    alone = [parse(record)[0].id for record in records]
    assert [row.id for row in parse(*records)] == alone
    assert [row.id for row in parse(*reversed(records))] == alone[::-1]
    assert [row.id for row in parse(*records, {"image": None, "seed": None, "score": None})][:3] == alone
    moved = list(parse_rows(pa.Table.from_pylist(records), "s3://bucket/other", None))
    assert [row.id for row in moved] == alone


def test_the_driving_stem_is_the_audios_else_the_drivers() -> None:
    rows = parse(
        {"image": "a.png", "audio": "b.wav", "driver": "d.mp4", "motion_from": "driver"},
        {"image": "a.png", "audio": None, "driver": "d.mp4", "motion_from": None},
        {"image": None, "audio": "b.wav"},
    )
    assert [row.id.rpartition("-")[0] for row in rows] == ["a-b", "a-d", "none-b"]


@pytest.mark.parametrize("given", ["form 7", "true", True, 20240917, "s3://consents/ana.pdf"])
def test_consent_that_is_given(given: Any) -> None:
    table = pa.Table.from_pylist([{"image": "a.png", "audio": "b.wav", "consent": given}])
    (row,) = parse_rows(table, "/set", None, require_consent=True)
    assert (row.problem, row.consent) == (None, "true" if given is True else str(given))


@pytest.mark.parametrize("given", [None, " ", False, "false", "No", "0", " withdrawn "])
def test_consent_that_is_not_given_is_a_problem_where_it_is_required(given: Any) -> None:
    table = pa.Table.from_pylist([{"image": "a.png", "audio": "b.wav", "consent": given}])
    (row,) = parse_rows(table, "/set", None, require_consent=True)
    assert row.problem is not None and row.problem.column == "consent"
    assert row.problem.message.startswith("consent: required by this run, found ")
    assert row.id_usable
    (free,) = parse_rows(table, "/set", None)
    assert free.problem is None


def test_ranges_are_those_of_the_run_settings() -> None:
    for name in ("cfg_scale", "nfe"):
        limits = RunSettings.model_fields[name].metadata
        assert BY_NAME[name].minimum == next(limit.ge for limit in limits if hasattr(limit, "ge"))
        assert BY_NAME[name].maximum == next(limit.le for limit in limits if hasattr(limit, "le"))

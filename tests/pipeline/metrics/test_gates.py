"""Bounds on metrics, and what they make of an item."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from pipeline.config import RunSettings
from pipeline.metrics.gates import LIPS_NOT_FROM_AUDIO, Gate, gates_of, judge, rejudged


def test_lips_are_not_held_against_another_sound_unless_asked_for() -> None:
    values = {"lip_lag_frames": 9, "lip_correlation": 0.1, "mouth_silence_ratio": 2.0, "black_frames": 1}
    expected = judge(values, gates_of({}, "trained")).flags
    assert expected == ("gate:black_frames", "gate:mouth_silence_ratio", "gate:lip_lag_frames", "gate:lip_correlation")
    assert judge(values, gates_of({}, "trained", [LIPS_NOT_FROM_AUDIO])).flags == ("gate:black_frames",)
    own = {"lip_lag_frames": Gate(max=3)}
    assert judge(values, gates_of(own, "trained", [LIPS_NOT_FROM_AUDIO])).flags == (
        "gate:black_frames",
        "gate:lip_lag_frames",
    )


def test_the_defaults_only_flag_and_leave_stand_ins_for_weights_alone() -> None:
    values = {"black_frames": 3, "flicker": 9.0, "frames_missing": 0}
    trained, random = (judge(values, gates_of({}, weights)) for weights in ("published", "random"))
    assert trained.flags == ("gate:black_frames", "gate:flicker")
    assert random.flags == ("gate:black_frames",)
    assert trained.error is None


def test_a_jobs_gate_takes_the_place_of_the_default_and_may_fail_the_item() -> None:
    own = {"flicker": Gate(max=1, action="fail"), "black_frames": Gate(action="off"), "head_range": Gate(min=0.01)}
    found = judge({"black_frames": 3, "flicker": 9.0, "head_range": 0.0}, gates_of(own, "random"))
    assert found.flags == ("gate:flicker", "gate:head_range")
    assert found.error is not None
    assert (found.error.kind, found.error.stage) == ("quality", "render")
    assert found.error.message == "flicker is 9, expected at most 1"


@pytest.mark.parametrize(("value", "inside"), [(-3, False), (-2, True), (0, True), (2, True), (2.1, False)])
def test_bounds_are_allowed_values(value: float, inside: bool) -> None:
    assert Gate(min=-2, max=2).holds(value) is inside


def test_what_was_not_measured_passes_and_says_so_where_it_could_fail() -> None:
    gates = {"flicker": Gate(max=1, action="fail"), "seam_step": Gate(max=1)}
    found = judge({"flicker": None}, gates)
    assert (found.flags, found.error) == (("unjudged:flicker",), None)


def test_an_earlier_verdict_is_replaced() -> None:
    verdict = judge({"flicker": 5.0}, {"flicker": Gate(max=1)})
    assert rejudged(["limit", "gate:black_frames", "unjudged:flicker"], verdict) == ["limit", "gate:flicker"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gates": {"fliker": {"max": 1}}}, "did you mean 'flicker'"),
        ({"gates": {"mouth_from": {"max": 1}}}, "is a word"),
        ({"gates": {"flicker": {}}}, "needs min, max or both"),
        ({"gates": {"flicker": {"max": 1, "action": "fail"}}, "metrics": "off"}, "metrics is off"),
    ],
)
def test_gates_that_can_not_work_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RunSettings.model_validate(settings)

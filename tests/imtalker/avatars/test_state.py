"""The state over time: columns, ranges, refusals."""

from __future__ import annotations

import pytest
import torch

from imtalker.avatars import NEUTRAL, STATE_FIELDS, STATE_RANGES, AvatarState


def test_columns_have_the_published_order() -> None:
    assert STATE_FIELDS == (
        "yaw", "pitch", "roll", "x", "y", "scale", "gaze_x", "gaze_y", "blink", "brows",
        "mouth_open", "mouth_width", "mouth_round", "jaw",
    )  # fmt: skip
    assert all(low <= value <= high for value, (low, high) in zip(NEUTRAL, STATE_RANGES.values(), strict=True))


def test_replace_sets_its_column_only() -> None:
    ramp = torch.linspace(0, 1, 5)
    state = AvatarState.neutral(5).replace(jaw=ramp, scale=1.5)
    assert len(state) == 5
    assert state.values.dtype == torch.float32
    assert torch.equal(state["jaw"], ramp)
    assert torch.equal(state["scale"], torch.full((5,), 1.5))
    others = [i for i, name in enumerate(STATE_FIELDS) if name not in ("jaw", "scale")]
    assert torch.equal(state.values[:, others], AvatarState.neutral(5).values[:, others])


def test_rounding_beyond_a_range_is_cut() -> None:
    assert float(AvatarState.neutral().replace(blink=1.00001)["blink"]) == 1.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (torch.zeros(14), r"shape \[T, 14\], found \[14\]"),
        (torch.zeros(3, 13), r"found \[3, 13\]"),
        (torch.zeros(3, 14), r"scale must lie in 0.5..2, found 0 in frame 0"),
        (torch.tensor([NEUTRAL, [0.9, *NEUTRAL[1:]]]), r"yaw must lie in -0.8..0.8, found 0.9 in frame 1"),
        (torch.tensor([[float("nan"), *NEUTRAL[1:]]]), r"yaw must lie in .* found nan"),
    ],
)
def test_wrong_states_are_refused(values: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AvatarState(values)


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(ValueError, match=r"has the fields yaw, .*; found 'smile'"):
        AvatarState.neutral().replace(smile=1.0)
    with pytest.raises(ValueError, match="found 'smile'"):
        AvatarState.neutral()["smile"]

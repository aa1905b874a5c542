"""Motion codes of known states."""

from __future__ import annotations

import pytest
import torch

from imtalker.avatars import NEUTRAL, STATE_FIELDS
from imtalker.training.avatar_pictures import draw_states
from imtalker.training.state_codes import StateCodes


def states() -> torch.Tensor:
    return torch.cat([draw_states(12, torch.Generator().manual_seed(seed)) for seed in range(60)])


def test_a_neutral_state_is_the_code_of_zeros() -> None:
    assert torch.equal(StateCodes(32)(torch.tensor([NEUTRAL])), torch.zeros(1, 32))


@pytest.mark.parametrize("width", [15, 32])
def test_codes_tell_their_states(width: int) -> None:
    codes = StateCodes(width)
    torch.testing.assert_close(codes.read(codes(states())), states(), atol=1e-5, rtol=1e-5)


def test_what_no_state_has_in_its_code_is_not_read() -> None:
    codes = StateCodes(32)
    beside = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    beside = beside - codes(codes.read(beside))
    assert beside.abs().mean() > 0.1
    torch.testing.assert_close(codes.read(beside), torch.tensor([NEUTRAL]).expand(3, -1), atol=1e-5, rtol=1e-5)


def test_their_numbers_vary_by_about_one() -> None:
    deviations = StateCodes(32)(states()).std(0)
    assert deviations.min() > 0.7 and deviations.max() < 1.6


def test_every_field_counts_alike() -> None:
    codes = StateCodes(32)
    neutral = torch.tensor([NEUTRAL])
    for name, unit in (("yaw", 0.13), ("blink", 0.35)):
        turned = neutral.clone()
        turned[0, STATE_FIELDS.index(name)] += unit
        assert codes(turned).square().mean().item() == pytest.approx(1 / len(STATE_FIELDS), rel=1e-4)
        assert codes.error(codes(turned), turned) == 0 < codes.error(codes(turned), neutral)


def test_codes_too_short_for_a_state_are_refused() -> None:
    with pytest.raises(ValueError, match=r"15 or more.*found 14"):
        StateCodes(14)

"""Money, in closed form."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from pipeline.accounting.price import Price, cost, cost_line
from pipeline.accounting.usage import Usage

PRICE = Price(gpu_hour=3.6, cpu_hour=0.36, currency="EUR")


def test_an_hour_costs_its_price() -> None:
    assert PRICE.of(cpu_s=0, gpu_s=3600) == pytest.approx(3.6)
    assert PRICE.of(cpu_s=3600, gpu_s=1800) == pytest.approx(0.36 + 1.8)


def test_a_minute_of_video_bears_what_was_reserved() -> None:
    facts = cost(PRICE, Usage(gpu_s=500), Usage(gpu_s=1000, cpu_s=1000), video_s=120)
    assert facts == {"currency": "EUR", "used": 0.5, "reserved": 1.1, "per_video_minute": 0.55}
    assert cost_line(facts) == "0.50 EUR used, 1.10 EUR reserved, 0.5500 EUR a minute of video"


def test_of_records_only_the_use_is_known() -> None:
    assert cost(PRICE, Usage(gpu_s=500), None, video_s=0) == {"currency": "EUR", "used": 0.5}


@pytest.mark.parametrize("given", [{}, {"gpu_hour": 0}, {"gpu_hour": -1}, {"gpu_hour": 1, "currency": ""}])
def test_a_price_says_something(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Price.model_validate(given)

"""Money: what an hour of a GPU and of a CPU costs, and what that makes of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from pipeline.accounting.usage import Usage
from pipeline.config import Settings

HOUR_S = 3600.0


class Price(Settings):
    """What an hour costs. Where a machine is billed as a whole, put all of it on its GPUs."""

    gpu_hour: float = Field(0.0, ge=0, description="of one GPU")
    cpu_hour: float = Field(0.0, ge=0, description="of one CPU")
    currency: str = Field("USD", min_length=1, max_length=8)

    @model_validator(mode="after")
    def _something(self) -> Price:
        if not self.gpu_hour and not self.cpu_hour:
            raise ValueError("price: give gpu_hour, cpu_hour or both")
        return self

    def of(self, cpu_s: float, gpu_s: float) -> float:
        """Money for so many seconds of one CPU and of one GPU."""
        return (cpu_s * self.cpu_hour + gpu_s * self.gpu_hour) / HOUR_S


def cost(price: Price, spent: Usage, reserved: Usage | None, video_s: float) -> dict[str, Any]:
    """Money: for what was used, for what was reserved (None: not known), and for each minute of video."""
    parts: dict[str, Any] = {
        "currency": price.currency,
        "used": round(price.of(spent.cpu_s, spent.gpu_s), 4),
    }
    if reserved is not None:
        parts["reserved"] = round(price.of(reserved.cpu_s, reserved.gpu_s), 4)
    if video_s:
        parts["per_video_minute"] = round(parts.get("reserved", parts["used"]) / video_s * 60, 4)
    return parts


def cost_line(facts: Mapping[str, Any]) -> str:
    """A cost for people."""
    money = facts["currency"]
    parts = [f"{facts['used']:.2f} {money} used"]
    if "reserved" in facts:
        parts.append(f"{facts['reserved']:.2f} {money} reserved")
    if "per_video_minute" in facts:
        parts.append(f"{facts['per_video_minute']:.4f} {money} a minute of video")
    return ", ".join(parts)

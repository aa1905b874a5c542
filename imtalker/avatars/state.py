"""What an avatar does from frame to frame: 14 numbers a frame."""

from __future__ import annotations

from dataclasses import dataclass

import torch

STATE_RANGES: dict[str, tuple[float, float]] = {
    "yaw": (-0.8, 0.8),
    "pitch": (-0.6, 0.6),
    "roll": (-0.8, 0.8),
    "x": (-0.5, 0.5),
    "y": (-0.5, 0.5),
    "scale": (0.5, 2.0),
    "gaze_x": (-1.0, 1.0),
    "gaze_y": (-1.0, 1.0),
    "blink": (0.0, 1.0),
    "brows": (-1.0, 1.0),
    "mouth_open": (0.0, 1.0),
    "mouth_width": (-1.0, 1.0),
    "mouth_round": (0.0, 1.0),
    "jaw": (0.0, 1.0),
}
"""The least and greatest value of each field; see :class:`AvatarState` for units and signs."""

STATE_FIELDS: tuple[str, ...] = tuple(STATE_RANGES)
"""The columns of a state, in order."""

NEUTRAL: tuple[float, ...] = tuple(1.0 if name == "scale" else 0.0 for name in STATE_FIELDS)
"""Looking straight ahead, eyes open, mouth closed, in the middle of the picture."""

_ROUNDING = 1e-4


@dataclass(frozen=True)
class AvatarState:
    """The state of an avatar over T frames.

    ``values`` is float32 [T, 14], its columns in the order of :data:`STATE_FIELDS`:

    ==============  =================================================================================
    yaw             radians, -0.8..0.8 (natural up to 0.5); + turns the face to picture right
    pitch           radians, -0.6..0.6; + looks down
    roll            radians, -0.8..0.8; + tilts the head clockwise as seen
    x, y            shift of the person in picture widths, -0.5..0.5; + is right, down
    scale           size of the person, 0.5..2; 1 is neutral
    gaze_x, gaze_y  -1..1 of what the eye's opening allows; + looks to picture right, down
    blink           0 open .. 1 closed
    brows           -1 lowered .. 1 raised
    mouth_open      0 lips touch .. 1 wide open
    mouth_width     -1 narrow .. 1 wide (a smile)
    mouth_round     0 .. 1 rounded as for "oo"
    jaw             0 .. 1 chin dropped
    ==============  =================================================================================

    Raises ValueError for another shape, numbers that are not finite, or numbers outside the ranges.
    """

    values: torch.Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", validate_states(self.values))

    def __len__(self) -> int:
        return self.values.shape[0]

    def __getitem__(self, name: str) -> torch.Tensor:
        """One field over time, [T]. Raises ValueError for an unknown name."""
        return self.values[:, column(name)]

    @classmethod
    def neutral(cls, frames: int = 1) -> AvatarState:
        """``frames`` neutral frames."""
        return cls(torch.tensor(NEUTRAL).repeat(frames, 1))

    def replace(self, **fields: torch.Tensor | float) -> AvatarState:
        """The same state with some fields set: a number, or a tensor [T]. Raises ValueError for unknown names."""
        values = self.values.clone()
        for name, value in fields.items():
            values[:, column(name)] = torch.as_tensor(value, dtype=values.dtype, device=values.device)
        return type(self)(values)


def column(name: str) -> int:
    """The column of a field. Raises ValueError for an unknown name."""
    if name not in STATE_RANGES:
        raise ValueError(f"an avatar's state has the fields {', '.join(STATE_FIELDS)}; found {name!r}")
    return STATE_FIELDS.index(name)


def validate_states(values: torch.Tensor) -> torch.Tensor:
    """``values`` as float32 [T, 14], checked and cut to the ranges (which it may leave by rounding only).

    Raises ValueError with the field, the frame and the value for anything else.
    """
    if values.ndim != 2 or values.shape[1] != len(STATE_FIELDS):
        raise ValueError(f"expected avatar states of shape [T, {len(STATE_FIELDS)}], found {list(values.shape)}")
    values = values.to(torch.float32)
    low, high = values.new_tensor(list(STATE_RANGES.values())).unbind(1)
    good = (values >= low - _ROUNDING) & (values <= high + _ROUNDING)
    if not bool(good.all()):
        frame, field = (~good).nonzero()[0].tolist()
        least, greatest = STATE_RANGES[STATE_FIELDS[field]]
        raise ValueError(
            f"{STATE_FIELDS[field]} must lie in {least:g}..{greatest:g}, found {float(values[frame, field]):g} "
            f"in frame {frame}"
        )
    return values.clamp(low, high)

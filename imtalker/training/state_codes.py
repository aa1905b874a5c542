"""Motion codes that tell an avatar's state: what a motion encoder learns where states are known.

Codes that are free to become anything are learnt together with all that reads them; codes that are agreed on beforehand
let the encoder, the renderer and the generator learn apart, each from the truth.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from imtalker.avatars import NEUTRAL, STATE_FIELDS

# Of a state around neutral, what counts as one: about the deviations of `avatar_pictures.draw_states`, so that a head's
# turns, which are easily seen, don't keep lids, gaze and lips from being learnt.
_UNIT = {
    **{"yaw": 0.13, "pitch": 0.06, "roll": 0.05, "x": 0.012, "y": 0.009, "scale": 0.016},
    **{"gaze_x": 0.2, "gaze_y": 0.11, "blink": 0.35, "brows": 0.47},
    **{"mouth_open": 0.32, "mouth_width": 0.53, "mouth_round": 0.32, "jaw": 0.27},
}


class StateCodes(nn.Module):
    """A fixed linear map from states [B, 14] to motion codes [B, dim_motion], and back; nothing of it is trained.

    Each field, in its own unit around neutral, goes along a direction of its own; directions are at right angles (a
    discrete cosine basis) and as long as makes a code's numbers vary by about one, which suits flow matching.
    """

    SHORTEST = len(STATE_FIELDS) + 1

    neutral: Tensor
    unit: Tensor
    directions: Tensor

    def __init__(self, dim_motion: int) -> None:
        """Raises ValueError for codes that are too short to tell a state."""
        super().__init__()
        fields = len(STATE_FIELDS)
        if dim_motion < self.SHORTEST:
            raise ValueError(f"expected dim_motion {self.SHORTEST} or more to tell a state, found {dim_motion}")
        place = torch.arange(dim_motion, dtype=torch.float64) + 0.5
        wave = torch.arange(1, fields + 1, dtype=torch.float64)
        directions = torch.cos(math.pi / dim_motion * wave[:, None] * place) * math.sqrt(2 / fields)
        self.register_buffer("neutral", torch.tensor(NEUTRAL), persistent=False)
        self.register_buffer("unit", torch.tensor([_UNIT[name] for name in STATE_FIELDS]), persistent=False)
        self.register_buffer("directions", directions.float(), persistent=False)

    def forward(self, states: Tensor) -> Tensor:
        """The codes of states."""
        return (states - self.neutral) / self.unit @ self.directions

    def read(self, codes: Tensor) -> Tensor:
        """The states that codes tell; what no state has in its code is left out."""
        length = self.directions.square().sum(1)
        return (codes @ self.directions.T) / length * self.unit + self.neutral

    def error(self, codes: Tensor, states: Tensor) -> Tensor:
        """Mean absolute difference of codes from those of the true states."""
        return (codes - self(states)).abs().mean()

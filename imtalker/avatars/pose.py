"""Where things are when the head moves: from the picture back to the canonical plane, and forward for landmarks.

Every part of an avatar is drawn on the canonical plane: x to the right, y down, the head's middle near 0, its half
width near 0.5. The picture, -1..1 in x and y, shows it a little larger. A pose maps the picture's pixels back to the
plane, one way for each depth:

* ``body``: shift and scale only;
* ``head``: roll about the neck as well, both exact;
* ``sheet``: a flat layer of the head whose depth grows linearly downwards, which slides as the head turns (outlines);
* ``ball``: the surface of an ellipsoid that turns with the head, so that features foreshorten. Rotations are made in
  the ellipsoid's own units, where it is a sphere, hence the map has an exact inverse. A larger radius is a part that
  stands out of the face and moves further, such as the nose.
"""

from __future__ import annotations

import torch

from imtalker.avatars.shapes import Field, Number
from imtalker.avatars.state import NEUTRAL, STATE_FIELDS

Point = tuple[Field, Field]

NECK = 0.45
"""Height of the point about which the head rolls."""

MIDDLE = -0.06
"""Height of the middle of the head's ellipsoid."""

HALF_WIDTH, HALF_HEIGHT = 0.56, 0.62
"""Half-sizes of the head's ellipsoid."""

ZOOM, RISE = 1.10, 0.03
"""How much larger than the plane the neutral picture shows the avatar, and how much lower."""

JAW_DROP = 0.10
"""How far the chin falls when ``jaw`` is 1."""


class Pose:
    """The poses of a batch of states [B, 14]; ``pose[field]`` is one field of the state, [B, 1, 1]."""

    def __init__(self, states: torch.Tensor) -> None:
        columns = states[:, :, None, None].unbind(1)
        self._fields = dict(zip(STATE_FIELDS, columns, strict=True))
        self._sin_roll, self._cos_roll = self["roll"].sin(), self["roll"].cos()
        self.sin_yaw, self.cos_yaw = self["yaw"].sin(), self["yaw"].cos()
        self._sin_pitch, self._cos_pitch = self["pitch"].sin(), self["pitch"].cos()

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._fields[name]

    def rest(self) -> Pose:
        """As many neutral poses."""
        batch = self["yaw"].shape[0]
        return Pose(torch.tensor(NEUTRAL, device=self["yaw"].device).expand(batch, -1))

    def to_body(self, x: Field, y: Field) -> Point:
        """Picture to body."""
        zoom = ZOOM * self["scale"]
        return (x - 2 * self["x"]) / zoom, (y - 2 * self["y"]) / zoom - RISE

    def to_head(self, x: Field, y: Field) -> Point:
        """Body to head."""
        y = y - NECK
        return self._cos_roll * x + self._sin_roll * y, self._cos_roll * y - self._sin_roll * x + NECK

    def to_sheet(self, x: Field, y: Field, depth: float, slope: float) -> Point:
        """Head to the canonical plane, for a sheet of depth ``depth + slope * y``."""
        y = (y - depth * self._sin_pitch) / (1 + slope * self._sin_pitch)
        return x - (depth + slope * y) * self.sin_yaw, y

    def to_ball(self, x: Field, y: Field, radius: Number) -> Point:
        """Head to the canonical plane, for the head's ellipsoid enlarged ``radius`` times.

        Beyond the rim, and where the far side would show, the rim's own place is given.
        """
        x, y = x / HALF_WIDTH, (y - MIDDLE) / HALF_HEIGHT
        z = (radius * radius - x * x - y * y).clamp(min=0).sqrt()
        y, z = self._cos_pitch * y - self._sin_pitch * z, self._cos_pitch * z + self._sin_pitch * y
        x, z = self.cos_yaw * x - self.sin_yaw * z, self.cos_yaw * z + self.sin_yaw * x
        behind = z < 0
        rim = radius * torch.rsqrt(x * x + y * y + 1e-6)
        x, y = torch.where(behind, x * rim, x), torch.where(behind, y * rim, y)
        return x * HALF_WIDTH, y * HALF_HEIGHT + MIDDLE

    def close_jaw(self, y: Field, top: Field, bottom: Field) -> Field:
        """Undo the falling of the chin: skin between the mouth (``top``) and the chin (``bottom``) is stretched."""
        drop = JAW_DROP * self["jaw"]
        length = bottom - top
        return torch.where(y > top, torch.maximum(top + (y - top) * length / (length + drop), y - drop), y)

    def from_body(self, x: Field, y: Field) -> Point:
        """Body to picture."""
        zoom = ZOOM * self["scale"]
        return x * zoom + 2 * self["x"], (y + RISE) * zoom + 2 * self["y"]

    def from_head(self, x: Field, y: Field) -> Point:
        """Head to body."""
        y = y - NECK
        return self._cos_roll * x - self._sin_roll * y, self._cos_roll * y + self._sin_roll * x + NECK

    def from_sheet(self, x: Field, y: Field, depth: float, slope: float) -> Point:
        """The inverse of :meth:`to_sheet`."""
        depths = depth + slope * y
        return x + depths * self.sin_yaw, y + depths * self._sin_pitch

    def from_ball(self, x: Field, y: Field, radius: Number) -> Point:
        """The inverse of :meth:`to_ball` for points inside the rim."""
        x, y = x / HALF_WIDTH, (y - MIDDLE) / HALF_HEIGHT
        z = (radius * radius - x * x - y * y).clamp(min=0).sqrt()
        x, z = self.cos_yaw * x + self.sin_yaw * z, self.cos_yaw * z - self.sin_yaw * x
        y = self._cos_pitch * y + self._sin_pitch * z
        return x * HALF_WIDTH, y * HALF_HEIGHT + MIDDLE

    def open_jaw(self, y: Field, top: Field, bottom: Field) -> Field:
        """The inverse of :meth:`close_jaw`."""
        return y + JAW_DROP * self["jaw"] * ((y - top) / (bottom - top)).clamp(0, 1)

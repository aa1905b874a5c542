"""The geometry of a head: its outline and the coordinates in which its parts are painted."""

from __future__ import annotations

from functools import cached_property

import torch

from imtalker.avatars.identity import Looks
from imtalker.avatars.pose import Point, Pose
from imtalker.avatars.shapes import Field, smoothstep, superellipse

EYE_LINE = -0.03
FOREHEAD = 0.57
"""From the eyes' line to the top of the face."""

OUTLINE = (0.16, 0.34)
"""Depth of the face's outline at height 0, and its growth downwards: the chin stands further forward."""

SKULL = (-0.05, 0.0)
"""Depth of the back of the head, whose outline hair follows."""

EARS = (0.06, 0.0)
NOSE = 0.20
"""How much further out than the face's ellipsoid the tip of the nose is."""

LIPS = 1.04
"""The ellipsoid of the mouth."""


class Face:
    """What the parts of an avatar share, for the pixels ``grid`` of a batch; computed when first asked for.

    ``body`` and ``head`` are coordinates that move with these, not yet turned by yaw and pitch.
    """

    def __init__(self, looks: Looks, pose: Pose, grid: Point) -> None:
        self.looks, self.pose = looks, pose
        self.body = pose.to_body(*grid)
        self.head = pose.to_head(*self.body)
        self.mouth_line = looks.mouth_height
        self.chin = EYE_LINE + looks.face_length

    @cached_property
    def front(self) -> Point:
        """Canonical coordinates on the face."""
        return self.pose.to_ball(*self.head, 1.0)

    @cached_property
    def skin(self) -> Point:
        """Canonical coordinates on the face, the chin's falling undone."""
        return self.front[0], self.pose.close_jaw(self.front[1], self.mouth_line, self.chin)

    @cached_property
    def skull(self) -> Point:
        """Canonical coordinates of the back of the head."""
        return self.pose.to_sheet(*self.head, *SKULL)

    @cached_property
    def outline(self) -> Point:
        """Canonical coordinates of the face's outline."""
        x, y = self.pose.to_sheet(*self.head, *OUTLINE)
        return x, self.pose.close_jaw(y, self.mouth_line, self.chin)

    @cached_property
    def edge(self) -> Field:
        """The distance from the face's outline."""
        looks = self.looks
        x, y = self.outline
        y = y - EYE_LINE
        lower = y > 0
        height = torch.where(lower, looks.face_length, FOREHEAD)
        power = torch.where(lower, looks.face_square, 2.1)
        return superellipse(x / taper(looks, y / looks.face_length), y, looks.face_width, height, power)


def taper(looks: Looks, t: Field) -> Field:
    """The width of the face at ``t`` (0 at the eyes' line, 1 at the chin) over its width at the eyes."""
    return 1 - looks.face_taper * smoothstep(t, 0.1, 1.0)


def outline_point(looks: Looks, angle: torch.Tensor) -> Point:
    """Points of the lower outline, ``angle`` from 0 (picture right, the eyes' line) over pi/2 (the chin) to pi."""
    power = 2 / looks.face_square
    across, down = angle.cos(), angle.sin().clamp(min=0)
    t = down**power
    x = looks.face_width * across.sign() * across.abs() ** power * taper(looks, t)
    return x, EYE_LINE + looks.face_length * t

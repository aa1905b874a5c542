"""The 68 landmarks of an avatar, computed from the same curves that it is painted with."""

from __future__ import annotations

from math import pi

import torch

from imtalker.avatars.face import EYE_LINE, LIPS, OUTLINE, outline_point
from imtalker.avatars.identity import Looks
from imtalker.avatars.parts.brows import brow_point
from imtalker.avatars.parts.eyes import eye_point, lid_curves
from imtalker.avatars.parts.mouth import Lips
from imtalker.avatars.parts.nose import nose_radius
from imtalker.avatars.pose import Point, Pose

_EYE = (-1.0, -0.36, 0.36, 1.0)
"""Corners and the two points on each lid, from the inner to the outer corner."""

_OUTER_LIP = (-1.0, -0.60, -0.24, 0.0, 0.24, 0.60, 1.0)
_INNER_LIP = (-0.92, -0.42, 0.0, 0.42, 0.92)


def landmarks(looks: Looks, pose: Pose, size: int) -> torch.Tensor:
    """Landmarks [B, 68, 2] in pixels (x, y; the first pixel's middle is 0, 0), in the order of iBUG 300-W.

    Jaw 0-16, brows 17-26, nose 27-35, eyes 36-47, outer lips 48-59, inner lips 60-67; left and right as seen.
    """
    groups = (_jaw, _brows, _nose, _eyes, _mouth)
    points = [torch.cat(torch.broadcast_tensors(*group(looks, pose)), 1) for group in groups]
    x, y = torch.cat(points, 2).unbind(1)
    x, y = pose.from_body(*pose.from_head(x[:, None], y[:, None]))
    return (torch.stack([x[:, 0], y[:, 0]], -1) + 1) * (size / 2) - 0.5


def _row(looks: Looks, values: tuple[float, ...]) -> torch.Tensor:
    """[1, 1, N] on the looks' device."""
    return looks.skin.new_tensor(values)[None, None]


def _jaw(looks: Looks, pose: Pose) -> Point:
    x, y = outline_point(looks, torch.linspace(pi, 0, 17, device=looks.skin.device)[None, None])
    y = pose.open_jaw(y, looks.mouth_height, EYE_LINE + looks.face_length)
    return pose.from_sheet(x, y, *OUTLINE)


def _brows(looks: Looks, pose: Pose) -> Point:
    x, y = brow_point(looks, pose, _row(looks, (1.0, 0.5, 0.0, -0.5, -1.0)))
    return pose.from_ball(torch.cat([-x, x.flip(2)], 2), torch.cat([y, y.flip(2)], 2), 1.0)


def _nose(looks: Looks, pose: Pose) -> Point:
    tip = EYE_LINE + looks.nose_length
    part = _row(looks, (0.0, 1 / 3, 2 / 3, 1.0))
    ridge_y = EYE_LINE + 0.01 + part * (looks.nose_length - 0.015)
    base = _row(looks, (-1.0, -0.5, 0.0, 0.5, 1.0))
    base_y = tip + 0.036 - 0.016 * base * base
    x = torch.cat([torch.zeros_like(ridge_y), base * 0.85 * looks.nose_width], 2)
    y = torch.cat([ridge_y, base_y], 2)
    return pose.from_ball(x, y, nose_radius(looks, y))


def _eyes(looks: Looks, pose: Pose) -> Point:
    s = _row(looks, _EYE)
    upper, lower = lid_curves(looks, pose["blink"], s)
    # From the inner corner over the upper lid to the outer corner, then back along the lower lid.
    around = torch.cat([s, s[:, :, 2:3], s[:, :, 1:2]], 2)
    height = torch.cat([upper, lower[:, :, 2:3], lower[:, :, 1:2]], 2)
    x, y = eye_point(looks, around, height)
    # The left eye starts at its outer corner.
    mirror = [3, 2, 1, 0, 5, 4]
    return pose.from_ball(torch.cat([-x[:, :, mirror], x], 2), torch.cat([y[:, :, mirror], y], 2), 1.0)


def _mouth(looks: Looks, pose: Pose) -> Point:
    lips = Lips(looks, pose)
    outer, inner = _row(looks, _OUTER_LIP), _row(looks, _INNER_LIP)
    s = torch.cat([outer, outer[:, :, 1:6].flip(2), inner, inner[:, :, 1:4].flip(2)], 2)
    top, bottom = lips.outer(outer)
    inner_top, inner_bottom = lips.inner(inner)
    y = torch.cat([top, bottom[:, :, 1:6].flip(2), inner_top, inner_bottom[:, :, 1:4].flip(2)], 2)
    return pose.from_ball(s * lips.half_width, y + looks.mouth_height + lips.drop, LIPS)

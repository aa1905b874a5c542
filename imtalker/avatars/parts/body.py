"""Neck, shoulders and clothes. They shift and scale with the head but do not turn with it; the neck joins the two."""

from __future__ import annotations

import torch

from imtalker.avatars.canvas import Canvas, mix, shaded
from imtalker.avatars.face import Face
from imtalker.avatars.identity import CLOTHES
from imtalker.avatars.pose import Point
from imtalker.avatars.shapes import Field, box, common, cover, ellipse, segment, smoothstep, superellipse, union

BODY_TOP = 0.05
"""Nothing of the body lies above this height."""

_SHOULDERS = 1.38
"""Height of the middle of the shoulders' shape; below it the sides run straight down."""

_THROAT = 0.70
"""Height of the middle of a neckline."""


def paint_body(canvas: Canvas, face: Face) -> None:
    """Neck and clothes."""
    looks, pixel = face.looks, canvas.pixel
    x, y = face.body
    neck = _neck_point(face)
    width = 0.36 * looks.face_width + 0.1 * (looks.shoulders - 0.6)
    throat = box(neck[0], neck[1] - 0.55, width, 0.40, 0.05)
    bare = union(throat, ellipse(x, y - 0.89, 0.50, 0.24), 0.16)
    shadow = smoothstep(face.edge, 0.16, -0.02) * (0.4 + 0.1 * looks.blush)
    light = 0.97 - shadow - 0.10 * smoothstep(neck[0].abs(), 0.5 * width, 1.1 * width)
    canvas.paint(cover(bare, pixel), shaded(looks.skin, light), neck)

    cloth = superellipse(x, torch.minimum(y, x.new_tensor(_SHOULDERS)) - _SHOULDERS, looks.shoulders, 0.68, 2.5)
    colour = torch.zeros_like(looks.skin) + torch.zeros_like(x)[:, None]
    alpha = torch.zeros_like(x)
    for kind in looks.kinds("clothes"):
        own = looks.is_kind("clothes", kind)
        hole, second = _garment(CLOTHES[kind], x, y, neck, width, pixel)
        alpha = alpha + own * torch.maximum(cover(torch.maximum(cloth, -hole), pixel), second[1])
        fabric = mix(looks.clothes_colour, looks.clothes_second, second[0][:, None])
        rim = 0.16 * smoothstep(hole, 0.05, 0.0)
        colour = colour + own[:, None] * shaded(fabric, 1.02 - rim - 0.25 * second[2])
    light = 1.04 - 0.10 * smoothstep(cloth, -0.12, 0.0) - 0.12 * smoothstep(face.edge, 0.22, 0.0) - 0.05 * x
    canvas.paint(alpha, shaded(colour, light), (x, y))


def _neck_point(face: Face) -> Point:
    """The neck follows the head at its top and the body at its foot."""
    (hx, hy), (bx, by) = face.pose.to_sheet(*face.head, 0.05, 0.0), face.body
    part = smoothstep(by, 0.40, 0.80)
    return hx + (bx - hx) * part, hy + (by - hy) * part


def _garment(
    name: str, x: Field, y: Field, neck: Point, neck_width: Field, pixel: Field
) -> tuple[Field, tuple[Field, Field, Field]]:
    """The distance from the neckline's hole, and (part of the second colour, cloth beyond the shoulders, seams)."""
    none = torch.zeros_like(x)
    y = y - _THROAT
    hole = ellipse(x, y, neck_width + 0.06, 0.13)
    if name == "v-neck":
        hole = union(hole, torch.maximum(y - 0.34, (x.abs() * 0.87 + (y - 0.34) * 0.5)) + 0.0, 0.05)
        return hole, (cover(hole - 0.035, pixel), none, none)
    if name == "shirt":
        placket = cover(x.abs() - 0.012, pixel) * smoothstep(y, 0.1, 0.12)
        hole = torch.maximum(y - 0.16, x.abs() * 0.8 + (y - 0.16) * 0.6)
        flap = torch.maximum(segment(x.abs(), y, (neck_width, -0.035), (0.12, 0.17)) - 0.06, -hole)
        collar = cover(flap, pixel)
        seam = torch.maximum(placket * (1 - collar), cover(flap.abs() - 0.006, pixel))
        return torch.minimum(hole, none + 9), (0.0 * collar, collar, seam)
    if name == "turtleneck":
        tube = box(neck[0], neck[1] - 0.67, neck_width + 0.025, 0.115, 0.03)
        fold = cover((neck[1] - 0.63).abs() - 0.004, pixel) * cover(tube, pixel)
        return none + 9, (none, cover(tube, pixel), 0.4 * fold)
    if name == "stripes":
        return hole, (cover((torch.remainder(y, 0.17) - 0.085).abs() - 0.034, pixel), none, none)
    if name == "hoodie":
        hood = common(torch.maximum(ellipse(x, y - 0.02, neck_width + 0.16, 0.19), -hole), -0.05 - y, 0.08)
        string = cover(segment(x.abs(), y, (0.12, 0.15), (0.13, 0.42)) - 0.011, pixel)
        return hole, (string, cover(hood, pixel), 0.5 * cover((hood).abs() - 0.008, pixel))
    return hole, (none, none, 0.5 * cover((hole - 0.045).abs() - 0.004, pixel))

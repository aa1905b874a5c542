"""Neck, shoulders and clothes. They shift and scale with the head but do not turn with it; the neck joins the two."""

from __future__ import annotations

from typing import NamedTuple

import torch

from imtalker.avatars.canvas import Canvas, Layer, mix, shaded
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
    canvas.paint(cover(bare, pixel), shaded(looks.skin, light), neck, Layer.NECK)

    cloth = superellipse(x, torch.minimum(y, x.new_tensor(_SHOULDERS)) - _SHOULDERS, looks.shoulders, 0.68, 2.5)
    colour = torch.zeros_like(x)[:, None]
    alpha = torch.zeros_like(x)
    for kind in looks.kinds("clothes"):
        own = looks.is_kind("clothes", kind)
        garment = _cut(CLOTHES[kind], x, y - _THROAT, neck, width, pixel)
        alpha = alpha + own * torch.maximum(cover(torch.maximum(cloth, -garment.hole), pixel), garment.collar)
        fabric = mix(looks.clothes_colour, looks.clothes_second, garment.second[:, None])
        light = 1.02 - 0.16 * smoothstep(garment.hole, 0.05, 0.0) - 0.25 * garment.seams
        colour = colour + own[:, None] * shaded(fabric, light)
    light = 1.04 - 0.10 * smoothstep(cloth, -0.12, 0.0) - 0.12 * smoothstep(face.edge, 0.22, 0.0) - 0.05 * x
    canvas.paint(alpha, shaded(colour, light), (x, y), Layer.CLOTHES)


def _neck_point(face: Face) -> Point:
    """The neck follows the head at its top and the body at its foot."""
    (hx, hy), (bx, by) = face.pose.to_sheet(*face.head, 0.05, 0.0), face.body
    part = smoothstep(by, 0.40, 0.80)
    return hx + (bx - hx) * part, hy + (by - hy) * part


class _Garment(NamedTuple):
    hole: Field
    """The distance from the hole for the neck."""
    second: Field
    """How much of the second colour shows."""
    collar: Field
    """What covers the neck."""
    seams: Field


def _cut(name: str, x: Field, y: Field, neck: Point, neck_width: Field, pixel: Field) -> _Garment:
    """The kinds of clothes; ``x, y`` from the middle of the neckline."""
    none = torch.zeros_like(x)
    hole = ellipse(x, y, neck_width + 0.06, 0.13)
    if name == "v-neck":
        hole = union(hole, torch.maximum(y - 0.34, x.abs() * 0.87 + (y - 0.34) * 0.5), 0.05)
        return _Garment(hole, cover(hole - 0.035, pixel), none, none)
    if name == "shirt":
        hole = torch.maximum(y - 0.16, x.abs() * 0.8 + (y - 0.16) * 0.6)
        flap = torch.maximum(segment(x.abs(), y, (neck_width, -0.035), (0.12, 0.17)) - 0.06, -hole)
        collar = cover(flap, pixel)
        placket = cover(x.abs() - 0.012, pixel) * smoothstep(y, 0.1, 0.12) * (1 - collar)
        return _Garment(hole, none, collar, torch.maximum(placket, cover(flap.abs() - 0.006, pixel)))
    if name == "turtleneck":
        tube = cover(box(neck[0], neck[1] - 0.67, neck_width + 0.025, 0.115, 0.03), pixel)
        fold = cover((neck[1] - 0.63).abs() - 0.004, pixel)
        return _Garment(none + 1, none, tube, 0.4 * fold * tube)
    if name == "stripes":
        return _Garment(hole, cover((torch.remainder(y, 0.17) - 0.085).abs() - 0.034, pixel), none, none)
    if name == "hoodie":
        hood = torch.maximum(ellipse(x, y - 0.02, neck_width + 0.16, 0.19), -hole)
        hood = common(hood, -0.05 - y, 0.08)
        string = cover(segment(x.abs(), y, (0.12, 0.15), (0.13, 0.42)) - 0.011, pixel)
        return _Garment(hole, string, cover(hood, pixel), 0.5 * cover(hood.abs() - 0.008, pixel))
    return _Garment(hole, none, none, 0.5 * cover((hole - 0.045).abs() - 0.004, pixel))

"""Stubble, moustaches and beards; they follow the chin."""

from __future__ import annotations

import torch

from imtalker.avatars.canvas import Canvas, shaded
from imtalker.avatars.face import EYE_LINE, Face
from imtalker.avatars.identity import FACIAL_HAIR
from imtalker.avatars.parts.mouth import Mouth
from imtalker.avatars.shapes import Field, cover, ellipse, smoothstep, union


def paint_beard(canvas: Canvas, face: Face) -> None:
    """Paint before the lips."""
    looks, pixel = face.looks, canvas.pixel
    if looks.kinds("facial_hair") == {FACIAL_HAIR.index("none")}:
        return
    mouth = Mouth(face)
    for kind in sorted(looks.kinds("facial_hair") - {FACIAL_HAIR.index("none")}):
        name = FACIAL_HAIR[kind]
        own = looks.is_kind("facial_hair", kind)
        x, y = face.skin
        grain = (41 * x + 2 * (23 * y).sin()).sin() * (37 * y + 2 * (29 * x).sin()).sin()
        if name == "stubble":
            area = smoothstep(_jaw_area(face), 0.05, -0.03) * cover(face.edge, pixel)
            canvas.paint(own * area * (0.24 + 0.05 * grain), looks.hair_colour * 0.5)
            continue
        shape = _moustache(face, mouth)
        if name == "goatee":
            chin = ellipse(x, y - face.chin + 0.075, 0.16, 0.10)
            shape = torch.minimum(shape, chin)
        if name == "beard":
            shape = union(shape, torch.maximum(_jaw_area(face), face.edge - 0.03), 0.03)
        light = 0.92 + 0.10 * grain - 0.12 * smoothstep(shape, -0.03, 0.0) + 0.06 * (0.3 - y)
        canvas.paint(own * cover(shape, pixel + 0.008), shaded(looks.hair_colour, light), face.skin)


def _jaw_area(face: Face) -> Field:
    """Below a line from the ears to the moustache."""
    x, y = face.skin
    line = EYE_LINE + 0.245 - 0.85 * (x.abs() - 0.24).clamp(min=0) + 0.02 * (9 * x).cos()
    return line - y


def _moustache(face: Face, mouth: Mouth) -> Field:
    looks = face.looks
    width = 0.9 * looks.mouth_size + 0.05
    t = (mouth.x / width).abs()
    upper = mouth.lips.outer(torch.zeros_like(looks.skin[:, 0]))[0]
    middle = upper - 0.026 + 0.06 * t * t
    return torch.maximum((mouth.y - middle).abs() - 0.030 * (1 - 0.55 * t * t), mouth.x.abs() - width)

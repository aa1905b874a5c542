"""Glasses, which sit before the face."""

from __future__ import annotations

import torch

from imtalker.avatars.canvas import Canvas, Layer
from imtalker.avatars.face import EYE_LINE, Face
from imtalker.avatars.identity import GLASSES, Looks
from imtalker.avatars.shapes import Field, Number, box, circle, cover, segment, smoothstep

GLASSES_BALL = 1.08
_THICKNESS = 0.0105


def has_glasses(looks: Looks) -> bool:
    """Whether any of the batch wears some."""
    return looks.kinds("glasses") != {GLASSES.index("none")}


def glasses_box(looks: Looks) -> tuple[Number, Number, Number, Number]:
    """Left, top, right and bottom of the glasses and their shadow."""
    reach = looks.face_width + 0.05
    return -reach, EYE_LINE - 0.26, reach, EYE_LINE + 0.28


def paint_glasses(canvas: Canvas, face: Face) -> None:
    """Frames, bridge, temples and a faint reflection."""
    looks, pixel = face.looks, canvas.pixel
    x, y = source = face.pose.to_ball(*face.head, GLASSES_BALL)
    worn = 1 - looks.is_kind("glasses", GLASSES.index("none"))
    across, down = x.abs() - looks.eye_spacing - 0.005, y - EYE_LINE - 0.012
    radius = looks.eye_size + 0.045
    rings: dict[str, Field] = {
        "round": circle(across, down, radius),
        "square": box(across, down, radius + 0.005, 0.80 * radius, 0.05),
    }
    ring = torch.full_like(x, 9.0)
    for name, distance in rings.items():
        ring = torch.where(looks.is_kind("glasses", GLASSES.index(name)) > 0, distance, ring)
    inner, outer = looks.eye_spacing + 0.005 - radius, looks.eye_spacing + 0.005 + radius
    arch = y - EYE_LINE + 0.02 - 0.25 * (x * x - inner * inner)
    bridge = torch.maximum(arch.abs() - _THICKNESS, x.abs() - inner)
    temple = segment(x.abs(), y, (outer, EYE_LINE - 0.02), (looks.face_width + 0.015, EYE_LINE - 0.03)) - _THICKNESS
    temple = torch.maximum(temple, face.edge)
    frame = torch.minimum(torch.minimum(ring.abs() - _THICKNESS, bridge), temple)

    lens = cover(ring, pixel) * worn
    stripe = smoothstep((across + 0.9 * down + 0.045).abs(), 0.026, 0.016)
    canvas.paint((0.05 + 0.09 * stripe) * lens, torch.ones_like(looks.skin))
    canvas.darken(0.16 * worn * cover(ring.abs() - 0.02, 0.05) * cover(face.edge, pixel))
    light = 1.0 + 0.35 * smoothstep(down, 0.0, -radius)
    canvas.paint(cover(frame, pixel) * worn, looks.glasses_colour * light[:, None], source, Layer.GLASSES)

"""The wall behind the avatar; it never moves."""

from __future__ import annotations

import torch

from imtalker.avatars.canvas import Canvas, mix
from imtalker.avatars.identity import BACKGROUNDS, Looks
from imtalker.avatars.pose import Point
from imtalker.avatars.shapes import Field, circle, cover, smoothstep

_SPOTS = ((-0.75, -0.6, 0.22), (0.72, -0.72, 0.3), (0.85, 0.05, 0.18), (-0.9, 0.2, 0.26), (-0.2, -0.95, 0.2))


def paint_background(canvas: Canvas, looks: Looks, grid: Point) -> None:
    """Fill the picture."""
    x, y = grid
    part = 0.12 * smoothstep(torch.hypot(x, y + 0.2), 0.3, 1.5) + torch.zeros_like(looks.background)
    for kind in looks.kinds("background"):
        part = part + looks.is_kind("background", kind) * _pattern(BACKGROUNDS[kind], x, y, canvas.pixel)
    canvas.paint(torch.ones_like(part), mix(looks.background_colour, looks.background_second * 0.92, part[:, None]))


def _pattern(name: str, x: Field, y: Field, pixel: Field) -> Field:
    """How much of the second colour shows, 0..1."""
    if name == "gradient":
        return 0.8 * smoothstep(y, -1.0, 1.0)
    if name == "halo":
        return 0.75 * smoothstep(torch.hypot(x, y + 0.1), 0.6, 0.75 + pixel)
    if name == "diagonal":
        return 0.65 * cover(x * 0.8 + y * 0.6 + 0.1, pixel)
    if name == "bokeh":
        spots = [0.45 * cover(circle(x - cx, y - cy, r), 0.06) for cx, cy, r in _SPOTS]
        return torch.stack([s.expand_as(spots[0]) for s in spots]).amax(0) + 0.25 * smoothstep(y, -1.0, 1.0)
    return torch.zeros_like(x)

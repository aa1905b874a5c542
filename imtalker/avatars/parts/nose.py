"""The nose, which stands out of the face: its tip moves furthest when the head turns."""

from __future__ import annotations

from imtalker.avatars.canvas import Canvas, shaded
from imtalker.avatars.face import EYE_LINE, NOSE, Face
from imtalker.avatars.identity import Looks
from imtalker.avatars.shapes import Field, Number, circle, cover, ellipse, glow, smoothstep


def nose_radius(looks: Looks, y: Field) -> Field:
    """The ellipsoid on which the nose's ridge lies at height ``y``."""
    return 1 + NOSE * smoothstep(y, EYE_LINE - 0.03, EYE_LINE + looks.nose_length)


def nose_box(looks: Looks) -> tuple[Number, Number, Number, Number]:
    """Left, top, right and bottom of all that is painted of a nose."""
    tip = EYE_LINE + looks.nose_length
    return -2 * looks.nose_width, tip - 0.27, 2 * looks.nose_width, tip + 0.10


def paint_nose(canvas: Canvas, face: Face) -> None:
    """Ridge, tip, wings and nostrils, as light and shadow on the face."""
    looks, pixel = face.looks, canvas.pixel
    x, y = source = face.pose.to_ball(*face.head, nose_radius(looks, face.front[1]))
    y = y - EYE_LINE - looks.nose_length
    width = looks.nose_width
    ridge = glow(x - 0.045, y + 0.10, 0.030, 0.075)
    below = glow(x, y - 0.040, 0.85 * width, 0.020)
    wing = circle(x.abs() - 0.60 * width, y - 0.004, 0.40 * width)
    crease = cover(wing.abs() - 0.004, 0.014) * smoothstep(x.abs(), 0.62 * width, 0.95 * width)
    canvas.darken(0.11 * ridge + 0.22 * below + 0.20 * crease)
    ball = cover(ellipse(x, y, 0.62 * width, 0.042), 0.05)
    shine = 0.5 * glow(x + 0.012, y + 0.012, 0.026, 0.020) + 0.22 * glow(x + 0.008, y + 0.11, 0.016, 0.06)
    canvas.paint(0.30 * ball, shaded(looks.skin, 1.03), source)
    canvas.paint(shine, shaded(looks.skin, 1.22).clamp(max=1))
    hole = ellipse(x.abs() - 0.40 * width, y - 0.024, 0.020, 0.011)
    canvas.paint(0.62 * cover(hole, pixel.clamp(min=0.012)), looks.skin * 0.42)
    # The nose covers what lies behind it, so its own place counts, soft as its edges are.
    body = ellipse(x, y + 0.05, 0.95 * width, 0.095)
    canvas.mark(cover(body, pixel), source)

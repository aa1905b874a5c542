"""Eyes, lids and lashes."""

from __future__ import annotations

import torch

from imtalker.avatars.canvas import Canvas, Layer, mix, shaded, solid
from imtalker.avatars.face import EYE_LINE, Face
from imtalker.avatars.identity import Looks
from imtalker.avatars.pose import Point, Pose
from imtalker.avatars.shapes import Field, Number, circle, cover, ellipse, glow, segment, smoothstep, span

_GAZE_ACROSS, _GAZE_DOWN = 0.40, 0.30
"""How far the iris moves at a gaze of 1, in half-sizes of the open eye."""


def lid_curves(looks: Looks, blink: torch.Tensor, s: Field) -> tuple[Field, Field]:
    """Heights of the upper and lower lid at ``s`` (-1 inner corner .. 1 outer corner), relative to the corners.

    The upper lid makes most of the way; closed, both lie a little below the corners.
    """
    tall = looks.eye_size * looks.eye_open
    rest = (1 - s * s).clamp(min=0)
    bulge = 0.6 * rest + 0.4 * rest.sqrt()
    upper, lower, closed = -1.18 * tall, 0.72 * tall, 0.42 * tall
    return bulge * (upper + (closed - upper) * blink), bulge * (lower + (closed - lower) * blink)


def eye_point(looks: Looks, s: Field, height: Field) -> Point:
    """An eye's own coordinates to the canonical plane, for the eye at picture right."""
    x = s * looks.eye_size
    cos, sin = looks.eye_tilt.cos(), looks.eye_tilt.sin()
    return looks.eye_spacing + x * cos + height * sin, EYE_LINE + height * cos - x * sin


def gaze_offset(looks: Looks, pose: Pose) -> Point:
    """How far the irises are from the middle of the eyes."""
    across = _GAZE_ACROSS * looks.eye_size * pose["gaze_x"]
    return across, _GAZE_DOWN * looks.eye_size * looks.eye_open * 2 * pose["gaze_y"]


def eye_box(looks: Looks) -> tuple[Number, Number, Number, Number]:
    """Left, top, right and bottom of both eyes with the brows, however raised."""
    reach = looks.eye_spacing + 1.5 * looks.eye_size
    return -reach, EYE_LINE - 0.32, reach, EYE_LINE + 1.2 * looks.eye_size


class Eyes:
    """Both eyes at once: ``side`` is -1 left of the nose's line and 1 right; ``x, y`` an eye's own coordinates."""

    def __init__(self, face: Face) -> None:
        self.face = face
        u, v = face.front
        looks = face.looks
        self.side = torch.where(u < 0, -1.0, 1.0)
        across, down = u.abs() - looks.eye_spacing, v - EYE_LINE
        cos, sin = looks.eye_tilt.cos(), looks.eye_tilt.sin()
        self.x, self.y = across * cos - down * sin, down * cos + across * sin
        self.region = ellipse(self.x, self.y, 1.42 * looks.eye_size, 1.12 * looks.eye_size)

    def mask(self, pixel: Field) -> Field:
        """The eyes with their lids and lashes, open or closed, 0..1."""
        return cover(self.region, pixel)

    def paint(self, canvas: Canvas) -> None:
        """Eyeball, iris, lids and lashes."""
        looks, pose, pixel = self.face.looks, self.face.pose, canvas.pixel
        x, y = self.x, self.y
        s = x / looks.eye_size
        blink = pose["blink"]
        top, bottom = lid_curves(looks, blink, s)
        open_top, _ = lid_curves(looks, torch.zeros_like(blink), s)
        # Steep curves at the corners need a wider edge to stay smooth.
        soft = pixel * (1 + 0.8 * looks.eye_open * s * s)
        opening = span(y, top, bottom, soft)

        lid = span(y, open_top, torch.minimum(top, bottom), soft)
        u, v = self.face.front
        canvas.paint(0.30 * lid, shaded(looks.skin, 0.80))
        canvas.mark(lid, (u, v - (y - open_top)))

        white = 0.985 - 0.30 * smoothstep(y - top, 0.045, 0.0) - 0.10 * s * s
        canvas.paint(opening, white[:, None] * solid(white, 0.985, 0.985, 1.0), (u, v), Layer.EYE)
        self._paint_iris(canvas, opening)

        thick = 0.010 + 0.010 * looks.lashes
        inner = smoothstep(s, -1.12, -0.6)
        stroke = thick * (0.35 + 0.65 * inner)
        edge = torch.minimum(top, bottom)
        lash = span(y, edge - stroke, edge + 0.25 * stroke, soft) * smoothstep(s.abs(), 1.10, 0.96)
        flick = segment(
            x, y, (0.86 * looks.eye_size, -0.10 * looks.eye_size), (1.13 * looks.eye_size, -0.22 * looks.eye_size)
        )
        wing = cover(flick - 0.007 * (1.3 - s), pixel) * smoothstep(looks.lashes, 0.4, 0.6) * (1 - blink)
        lash = torch.maximum(lash, wing)
        canvas.paint(0.92 * lash, mix(looks.hair_colour * 0.35, solid(looks.skin, 0.10, 0.10, 0.10), 0.5))
        under = span(y, bottom, bottom + 0.007, soft) * smoothstep(s.abs(), 1.0, 0.8)
        canvas.paint(0.40 * under, looks.skin * 0.45)
        fold = open_top - 0.026 + 0.010 * s
        crease = span(y, fold - 0.004, fold + 0.004, 2 * soft) * smoothstep(s.abs(), 1.05, 0.6)
        canvas.darken(0.34 * crease * (1 - 0.6 * blink))

    def _paint_iris(self, canvas: Canvas, opening: Field) -> None:
        looks, pixel = self.face.looks, canvas.pixel
        gaze_x, gaze_y = gaze_offset(looks, self.face.pose)
        radius = 0.50 * looks.eye_size * (0.6 + 0.8 * looks.eye_open)
        dx = self.x * self.side - gaze_x
        dy = self.y + 0.16 * looks.eye_size * looks.eye_open - gaze_y
        iris = circle(dx, dy, radius)
        light = 0.95 + 0.75 * smoothstep(dy, -0.4 * radius, 1.2 * radius) - 0.55 * smoothstep(iris, -0.016, 0.0)
        light = light - 0.45 * smoothstep(dy, -0.1 * radius, -radius)
        u, v = self.face.front
        source = u - gaze_x, v - gaze_y
        canvas.paint(opening * cover(iris, pixel), shaded(looks.iris, light), source, Layer.EYE)
        canvas.paint(opening * cover(iris + 0.53 * radius, pixel), solid(looks.iris, 0.05, 0.05, 0.05))
        gleam = cover(circle(dx + 0.36 * radius, dy + 0.38 * radius, 0.27 * radius), pixel)
        gleam = torch.maximum(gleam, 0.55 * glow(dx - 0.36 * radius, dy - 0.40 * radius, 0.018, 0.014))
        canvas.paint(opening * gleam, solid(looks.iris, 1.0, 1.0, 1.0))

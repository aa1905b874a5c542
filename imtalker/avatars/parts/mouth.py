"""Lips, teeth and tongue."""

from __future__ import annotations

import torch

from imtalker.avatars.canvas import Canvas, Layer, mix, shaded, solid
from imtalker.avatars.face import LIPS, Face
from imtalker.avatars.identity import Looks
from imtalker.avatars.pose import JAW_DROP, Pose
from imtalker.avatars.shapes import Field, Number, cover, ellipse, glow, smoothstep, span

_OPENING = 0.205
"""Height of the wide open mouth."""

_UPPER_SHARE = 0.26
"""The part of the opening that the upper lip makes; the rest is the lower lip's."""


class Lips:
    """The curves of the lips in a pose; heights are relative to the mouth's line, ``s`` is -1..1 between corners."""

    def __init__(self, looks: Looks, pose: Pose) -> None:
        self.looks = looks
        self.open, self.wide, self.round = pose["mouth_open"], pose["mouth_width"], pose["mouth_round"]
        self.drop = 0.20 * JAW_DROP * pose["jaw"]
        """How far the mouth follows the chin."""
        self.half_width = looks.mouth_size * (1 + 0.24 * self.wide) * (1 - 0.42 * self.round) - 0.012 * self.open
        self.height = _OPENING * self.open * (1 - 0.12 * self.round)
        self._smile = looks.smile + 0.022 * self.wide.clamp(min=0) + 0.010 * self.wide.clamp(max=0)
        self._smile = self._smile * (1 - 0.85 * self.round)
        self._full = (1 - 0.16 * self.wide) * (1 + 0.30 * self.round) * (1 - 0.18 * self.open)

    def bell(self, s: Field) -> Field:
        """1 in the middle, 0 at the corners; a rounded mouth is an ellipse, else between that and a parabola."""
        rest = (1 - s * s).clamp(min=0)
        part = 0.35 + 0.65 * self.round
        return rest + (rest.sqrt() - rest) * part

    def line(self, s: Field) -> Field:
        """Where the lips meet: the corners lie higher."""
        return self._smile * (0.4 - (s * s).clamp(max=1.5))

    def inner(self, s: Field) -> tuple[Field, Field]:
        """The opening's upper and lower edge."""
        line, bell = self.line(s), self.bell(s / 0.94) * self.height
        return line - _UPPER_SHARE * bell, line + (1 - _UPPER_SHARE) * bell

    def outer(self, s: Field) -> tuple[Field, Field]:
        """The lips' upper and lower edge, with a cupid's bow."""
        top, bottom = self.inner(s)
        bell = self.bell(s)
        bow = 1 - 0.24 * glow(s, 0 * s, 0.17, 1.0) * (1 - 0.6 * self.round)
        return top - self.looks.upper_lip * self._full * bell * bow, bottom + self.looks.lower_lip * self._full * bell


def mouth_box(looks: Looks, pose: Pose) -> tuple[Number, Number, Number, Number]:
    """Left, top, right and bottom of the mouth, its corners' shadows and its mask."""
    lips = Lips(looks, pose)
    reach = 1.16 * lips.half_width + 0.05
    top, bottom = lips.outer(torch.zeros_like(lips.half_width))
    line = looks.mouth_height + lips.drop
    return -reach, line + top - 0.10, reach, line + bottom + 0.10


class Mouth:
    """The mouth of a face at every pixel."""

    def __init__(self, face: Face) -> None:
        self.face = face
        self.lips = Lips(face.looks, face.pose)
        self._rest = Lips(face.looks, face.pose.rest())
        x, y = face.pose.to_ball(*face.head, LIPS)
        self.x, self.y = x, y - face.mouth_line - self.lips.drop
        self.s = self.x / self.lips.half_width
        self.top, self.bottom = self.lips.outer(self.s)

    def mask(self) -> Field:
        """The lips and what is between them, with a soft margin, 0..1."""
        top, bottom = self.lips.outer(torch.zeros_like(self.lips.half_width))
        tall = 0.5 * (bottom - top) + 0.04
        return cover(ellipse(self.x, self.y - 0.5 * (top + bottom), self.lips.half_width + 0.045, tall), 0.04)

    def paint(self, canvas: Canvas) -> None:
        """Lips over the dark of the mouth, teeth and tongue."""
        looks, lips, pixel = self.face.looks, self.lips, canvas.pixel
        s, y = self.s, self.y
        inner_top, inner_bottom = lips.inner(s)
        within = smoothstep(s.abs(), 1.0 + pixel, 1.0 - pixel)
        steep = 1 + 2.0 * s * s * (lips.height + looks.lower_lip) / lips.half_width
        soft = pixel * steep

        rose = mix(looks.lips, looks.skin * solid(looks.skin, 0.92, 0.56, 0.60), 0.55)
        body = span(y, self.top, self.bottom, soft) * within
        upper = y < 0.5 * (inner_top + inner_bottom)
        light = torch.where(upper, 0.86 + 0.06 * smoothstep(y, inner_top, self.top), 1.03)
        gleam = glow(self.x + 0.02, y - inner_bottom - 0.42 * looks.lower_lip, 0.42 * lips.half_width, 0.010)
        light = light + 0.14 * gleam - 0.10 * smoothstep(y, self.bottom - 0.014, self.bottom)
        canvas.paint(body, shaded(rose, light), self._source(upper, inner_top, inner_bottom))

        gap = span(y, inner_top, inner_bottom, soft) * within
        self._paint_inside(canvas, gap, inner_top, inner_bottom)

        line = lips.line(s)
        closed = span(y, line - 0.005, line + 0.005, pixel) * smoothstep(s.abs(), 1.06, 0.92)
        canvas.paint(0.75 * closed * smoothstep(lips.height, 0.035, 0.0), rose * 0.42)
        corner = glow(s.abs() - 1.0, (y - line) / 0.016, 0.07, 1.0)
        canvas.darken(0.28 * corner)

    def _source(self, upper: Field, inner_top: Field, inner_bottom: Field) -> tuple[Field, Field]:
        """Where the lips' skin lies when the mouth is at rest."""
        rest = self._rest
        top, bottom = rest.outer(self.s)
        line, y = rest.line(self.s), self.y
        above = line + (y - inner_top) * (line - top) / (inner_top - self.top).clamp(min=1e-4)
        below = line + (y - inner_bottom) * (bottom - line) / (self.bottom - inner_bottom).clamp(min=1e-4)
        height = torch.where(upper, torch.minimum(above, line), torch.maximum(below, line))
        return self.s * rest.half_width, height + self.face.mouth_line

    def _paint_inside(self, canvas: Canvas, gap: Field, top: Field, bottom: Field) -> None:
        looks, lips, pixel = self.face.looks, self.lips, canvas.pixel
        x, y, s = self.x, self.y, self.s
        rest_line = self._rest.line(s) + self.face.mouth_line
        depth = 0.75 + 0.35 * smoothstep(y, top, bottom)
        source = s * looks.mouth_size, rest_line + 0 * y
        canvas.paint(gap, shaded(solid(looks.skin, 0.30, 0.09, 0.10), depth), source, Layer.MOUTH)

        tongue = ellipse(x, y - lips.height * 0.78, 0.62 * lips.half_width, 0.36 * lips.height + 1e-3)
        light = 1.0 - 0.22 * glow(x, y - lips.height * 0.5, 0.014, 0.2) - 0.25 * smoothstep(y, 0.09, 0.02)
        canvas.paint(gap * cover(tongue, pixel.clamp(min=0.01)), shaded(solid(looks.skin, 0.80, 0.38, 0.40), light))

        ivory = solid(looks.skin, 0.97, 0.955, 0.925)
        arch = 1 - 0.55 * s * s
        # The upper teeth stay with the skull; the lips uncover them. A rounded mouth hides them.
        edge = (
            lips.line(torch.zeros_like(lips.half_width))
            + looks.teeth * arch
            - 0.026
            - 0.024 * lips.round
            - 0.012 * s * s
        )
        upper = span(y, top - 0.05, edge, pixel) * smoothstep(s.abs(), 0.94, 0.80)
        gaps = cover((torch.remainder(x + 0.021, 0.042) - 0.021).abs() - 0.0015, pixel.clamp(min=0.006))
        light = 1.0 - 0.22 * smoothstep(y - top, 0.022, 0.0) - 0.16 * gaps - 0.25 * s * s
        canvas.paint(gap * upper, shaded(ivory, light))
        rim = bottom - 0.026 * arch - 0.006
        lower = span(y, rim, bottom + 0.05, pixel) * smoothstep(s.abs(), 0.78, 0.62) * smoothstep(lips.open, 0.4, 0.7)
        canvas.paint(gap * lower * 0.8, shaded(ivory, 0.82 - 0.12 * gaps))

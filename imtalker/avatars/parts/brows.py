"""Eyebrows."""

from __future__ import annotations

from imtalker.avatars.canvas import Canvas
from imtalker.avatars.face import EYE_LINE, Face
from imtalker.avatars.identity import Looks
from imtalker.avatars.pose import Point, Pose
from imtalker.avatars.shapes import Field, smoothstep, span

_HALF_LENGTH = 0.125


def brow_height(looks: Looks, pose: Pose, s: Field) -> Field:
    """Height of a brow's middle at ``s`` (-1 inner end .. 1 outer end) on the canonical plane."""
    up = pose["brows"]
    bend = s.clamp(min=0) + 0.45 * s.clamp(max=0)
    arch = looks.brow_arch * (1 - bend * bend) - looks.brow_tilt * _HALF_LENGTH * s
    # Raised brows go up as a whole, lowered ones mostly at their inner ends.
    move = 0.055 * up.clamp(min=0) + 0.040 * up.clamp(max=0) * (0.75 - 0.55 * s)
    return EYE_LINE - looks.brow_height - arch - move


def brow_point(looks: Looks, pose: Pose, s: Field) -> Point:
    """A brow's middle on the canonical plane, for the one at picture right."""
    return looks.eye_spacing + 0.012 + _HALF_LENGTH * s, brow_height(looks, pose, s)


def paint_brows(canvas: Canvas, face: Face) -> None:
    """Two strokes, thinner towards the temples."""
    looks = face.looks
    x, y = face.front
    s = (x.abs() - looks.eye_spacing - 0.012) / _HALF_LENGTH
    inside = s.clamp(-1.2, 1.2)
    middle = brow_height(looks, face.pose, inside)
    half = looks.brow_thickness * (0.92 - 0.40 * smoothstep(s, -0.2, 1.1)) * (1 - 0.4 * smoothstep(s, -0.7, -1.1))
    stroke = span(y, middle - half, middle + half, canvas.pixel * 1.4) * smoothstep(s.abs(), 1.1, 0.92)
    raised = middle - brow_height(looks, face.pose.rest(), inside)
    canvas.paint(0.88 * stroke, looks.hair_colour * 0.72, (x, y - raised))

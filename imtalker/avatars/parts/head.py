"""The head's skin: back of the head, ears, face, and the shading that makes it round."""

from __future__ import annotations

import torch

from imtalker.avatars.canvas import Canvas, mix, shaded, solid
from imtalker.avatars.face import EARS, Face
from imtalker.avatars.identity import HAIR_STYLES
from imtalker.avatars.pose import Point
from imtalker.avatars.shapes import Field, cover, ellipse, glow, smoothstep


def paint_head(canvas: Canvas, face: Face) -> None:
    """Skull, ears and face without features."""
    looks, pixel = face.looks, canvas.pixel
    x, y = face.skull
    skull = ellipse(x, y + 0.16, looks.face_width + 0.02, torch.where(y < -0.16, 0.535, 0.43))
    canvas.paint(cover(skull, pixel), shaded(looks.skin, 0.90 - 0.12 * smoothstep(skull, -0.1, 0.0)), face.skull)
    haired = (1 - looks.is_kind("hair_style", HAIR_STYLES.index("bald"))) * smoothstep(y, 0.17, 0.13)
    canvas.paint(cover(skull, pixel) * haired, looks.hair_colour * 0.78, face.skull)

    x, y = face.outline
    light = 1.03 - 0.13 * smoothstep(face.edge, -0.17, 0.02) - 0.05 * x - 0.05 * y
    light = light + 0.05 * glow(x + 0.10, y + 0.30, 0.25, 0.16)
    # Skin that turns into view at the rim comes from the rim.
    rim = smoothstep(face.edge, -0.10, 0.0)
    source = mix(face.skin[0], x, rim), mix(face.skin[1], y, rim)
    canvas.paint(cover(face.edge, pixel), shaded(looks.skin, light), source)
    _paint_complexion(canvas, face)
    _paint_ears(canvas, face)


def ear_point(face: Face) -> tuple[Field, Field, Point, Field]:
    """An ear's own coordinates, those of its plane, and 1 where the head's turning hides it behind the cheek."""
    looks, pose = face.looks, face.pose
    x, y = pose.to_sheet(*face.head, *EARS)
    x = x / pose.cos_yaw
    down = y - 0.045
    slanted = x.abs() - looks.face_width - 0.012 + 0.18 * down
    hidden = smoothstep(torch.where(x < 0, -pose.sin_yaw, pose.sin_yaw), 0.02, 0.22)
    return slanted, down, (x, y), hidden


def _paint_ears(canvas: Canvas, face: Face) -> None:
    looks, pixel = face.looks, canvas.pixel
    slanted, down, source, hidden = ear_point(face)
    ear = ellipse(slanted, down, 0.062, looks.ear_size)
    inner = ellipse(slanted - 0.004, down + 0.004, 0.036, 0.64 * looks.ear_size)
    light = 0.97 - 0.10 * smoothstep(ear, -0.03, 0.01) - 0.20 * cover(inner, 0.03 + pixel)
    # Towards the cheek an ear has no edge.
    seen = cover(ear, pixel) * smoothstep(slanted, -0.045, -0.015) * (1 - hidden)
    canvas.paint(seen, shaded(looks.skin, light), source)


def _paint_complexion(canvas: Canvas, face: Face) -> None:
    """Cheeks, freckles, the hollows of the eyes and the shadow under the lower lip."""
    looks = face.looks
    x, y = face.skin
    inside = cover(face.edge, canvas.pixel)
    cheek = glow(x.abs() - 0.255, y - 0.155, 0.105, 0.075)
    rosy = looks.skin * solid(looks.skin, 1.0, 0.66, 0.64)
    canvas.paint(looks.blush * cheek * inside, rosy)
    if bool((looks.freckles > 0).any()):
        waves = (61 * x + 17 * y).sin() * (23 * x - 67 * y + 1).sin() + 0.6 * (103 * x + 89 * y).sin()
        nose_and_cheeks = glow(x.abs() - 0.16, y - 0.11, 0.14, 0.06)
        canvas.darken(0.22 * looks.freckles * smoothstep(waves, 0.95, 1.2) * nose_and_cheeks * inside)
    hollow = glow(x.abs() - looks.eye_spacing, y + 0.06, 0.15, 0.085)
    under_lip = glow(x, y - face.mouth_line - 0.105, 0.10, 0.022)
    canvas.darken((0.10 * hollow + 0.10 * under_lip) * inside)

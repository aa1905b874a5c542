"""Hair: what hangs behind the head and neck, and what lies on the head.

Every style is a row of numbers for the same few shapes, so that a batch may mix styles.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields
from functools import cached_property

import torch

from imtalker.avatars.canvas import Canvas, Layer, shaded
from imtalker.avatars.face import Face
from imtalker.avatars.identity import HAIR_STYLES
from imtalker.avatars.parts.head import ear_point
from imtalker.avatars.pose import Point
from imtalker.avatars.shapes import Field, circle, common, cover, ellipse, glow, smoothstep

_CROWN = -0.16
"""Height of the middle of the head's hair."""

_BEHIND = (-0.03, 0.0)
"""Depth of what hangs behind the head: little, so that it still shows on the far side of a turned face."""

_BALL = 1.06
"""The ellipsoid of the hairline."""


@dataclass(frozen=True)
class _Style:
    """Lengths in half picture widths."""

    amount: float = 1.0
    top: float = 0.58
    """Height of the hair over the crown's middle."""
    side: float = 0.055
    """How far it stands out beyond the face's width."""
    hairline: float = -0.42
    """Height of the hairline in the middle of the forehead."""
    rise: float = 0.30
    """How much lower the hairline is at the temples (a curtain)."""
    parting: float = 0.0
    """Where the parting is, times the identity's side."""
    sweep: float = 0.0
    """Slope of the fringe away from the parting."""
    opening: float = 0.41
    """Half the width of the face that is left free."""
    length: float = 0.0
    """Height down to which hair hangs before the ears."""
    back: float = -0.2
    """Height down to which hair hangs behind the neck; -0.2 is none."""
    spread: float = 0.05
    """How far the hair behind stands out beyond the face's width."""
    wave: float = 0.0
    curl: float = 0.0
    tuft: float = 0.0
    """Height of spikes at the fringe."""
    bun: float = 0.0
    """Radius of a bun on top."""
    tail: float = 0.0
    """1: a tail at the side."""


_STYLES = {
    "bald": _Style(amount=0.0),
    "buzz": _Style(top=0.53, side=0.022, hairline=-0.44, rise=0.10, opening=0.420, length=-0.10),
    "short": _Style(top=0.585, side=0.04, hairline=-0.40, rise=0.10, parting=0.22, sweep=0.20, opening=0.415),
    "quiff": _Style(top=0.64, side=0.03, hairline=-0.46, rise=0.14, opening=0.415, length=-0.06, tuft=0.02),
    "curly": _Style(top=0.66, side=0.08, hairline=-0.40, rise=0.18, opening=0.410, length=0.10, curl=0.022),
    "afro": _Style(top=0.74, side=0.22, hairline=-0.43, rise=0.16, opening=0.415, length=0.18, curl=0.020),
    "fringe": _Style(top=0.595, side=0.05, hairline=-0.29, rise=0.02, opening=0.400, length=0.14, tuft=0.02),
    "bob": _Style(
        top=0.605, side=0.085, hairline=-0.29, rise=0.03, opening=0.385, length=0.40, back=0.44, spread=0.07
    ),
    "long": _Style(
        top=0.585, side=0.075, hairline=-0.50, rise=0.46, opening=0.410, length=0.92, back=1.0, spread=0.07
    ),
    "wavy": _Style(
        top=0.625, side=0.095, hairline=-0.46, rise=0.20, parting=0.16, sweep=0.22, opening=0.410, length=0.62,
        back=0.80, spread=0.10, wave=0.03,
    ),
    "bun": _Style(top=0.56, side=0.025, hairline=-0.46, rise=0.22, opening=0.425, length=-0.02, bun=0.19),
    "ponytail": _Style(
        top=0.575, side=0.03, hairline=-0.40, rise=0.16, parting=-0.2, sweep=0.16, opening=0.425, length=0.0, tail=1.0
    ),
}  # fmt: skip
_HANGING = {
    index
    for index, style in enumerate(_STYLES[name] for name in HAIR_STYLES)
    if style.back > -0.2 or style.bun or style.tail
}
_TABLE = torch.tensor([astuple(_STYLES[name]) for name in HAIR_STYLES])


class Hair:
    """The hair of a face at every pixel."""

    def __init__(self, face: Face, pixel: Field) -> None:
        self.face, self.pixel = face, pixel
        looks = face.looks
        table = _TABLE.to(looks.hair_style.device)[looks.hair_style.flatten().long()]
        columns = (column[:, None, None] for column in table.unbind(1))
        self._style = dict(zip((field.name for field in fields(_Style)), columns, strict=True))

    def paint_back(self, canvas: Canvas) -> None:
        """What lies behind neck and head: the far side of the head's hair, long hair, a bun, a tail."""
        style, looks, pose = self._style, self.face.looks, self.face.pose
        canvas.paint(
            cover(self._cap, self.pixel) * style["amount"], looks.hair_colour * 0.72, self.face.skull, Layer.BACK_HAIR
        )
        if not looks.kinds("hair_style") & _HANGING:
            return
        x, y = source = pose.to_sheet(*self.face.head, *_BEHIND)
        wavy = x + style["wave"] * (16 * y).sin() * smoothstep(y, -0.2, 0.4)
        low = style["back"]
        fall = ellipse(wavy, (y - _CROWN).clamp(max=0), looks.face_width + style["spread"], 0.95 * style["top"])
        fall = common(fall, y - low, 0.25)
        alpha = cover(fall, self.pixel) * (low > -0.2)
        bun = circle(x, y + 0.80, style["bun"] + 1e-3)
        alpha = torch.maximum(alpha, cover(bun, self.pixel) * (style["bun"] > 0))
        side = x * looks.hair_side
        bent = side - 0.53 - 0.15 * (2.6 * (y + 0.05)).sin()
        tail = ellipse(bent, y - 0.06, 0.15 - 0.03 * y, 0.52)
        alpha = torch.maximum(alpha, cover(tail, self.pixel) * style["tail"])
        light = 0.74 + 0.10 * self._strands(x, y) - 0.12 * smoothstep(y, 0.0, 0.9)
        light = light + 0.14 * (style["bun"] + style["tail"] > 0)
        canvas.paint(alpha, shaded(looks.hair_colour, light), source, Layer.BACK_HAIR)

    def paint_front(self, canvas: Canvas) -> None:
        """What lies on the head, and its shadow on the forehead."""
        style, looks = self._style, self.face.looks
        ball = self.face.pose.to_ball(*self.face.head, _BALL)
        hair = self._front(ball)
        below = smoothstep(hair, 0.075, -0.01) * cover(self.face.edge, self.pixel)
        canvas.darken(0.20 * below * style["amount"])
        x, y = self.face.skull
        strands = self._strands(*ball)
        height = (y - _CROWN) / style["top"]
        ring = torch.hypot(x * 1.25 + 0.10, height) - 0.74
        gloss = glow(ring, 0 * ring, 0.13, 1.0) * smoothstep(y, 0.0, -0.3)
        light = 0.98 + 0.11 * strands - 0.20 * smoothstep(hair, -0.05, 0.0) - 0.14 * smoothstep(y, -0.2, 0.7)
        light = light + gloss * (0.30 + 0.25 * strands) * (1 - 0.6 * (style["curl"] > 0)) - 0.05 * x
        alpha = cover(hair, self.pixel) * style["amount"]
        canvas.paint(alpha, shaded(looks.hair_colour, light), self._source(ball), Layer.HAIR)

    def _source(self, ball: Point) -> Point:
        """Where the hair's content comes from: what turns into view at the rim comes from the rim."""
        x, y = ball
        width, top = self._size
        ragged = 1.5 * (self._style["curl"] + self._style["wave"])
        height = (y - _CROWN).clamp(max=0)
        inward = 1 / torch.hypot(x / (width + ragged), height / (top + ragged)).clamp(min=1)
        return x * inward, y + height * (inward - 1)

    @cached_property
    def _size(self) -> Point:
        """Half the width of the hair on the head, and its height over the crown's middle."""
        style, looks = self._style, self.face.looks
        # The head itself is 0.54 high.
        return looks.face_width + style["side"] * looks.hair_volume, 0.54 + (style["top"] - 0.54) * looks.hair_volume

    @cached_property
    def _cap(self) -> Field:
        """The distance from the hair on the head, as if it covered the face too."""
        style = self._style
        x, y = self.face.skull
        width, top = self._size
        angle_x, angle_y = x * 30, (y - _CROWN) * 30
        bumps = style["curl"] * ((angle_x + 1.3 * angle_y.sin()).sin() + (angle_y + 1.3 * angle_x.sin()).sin()) * 0.7
        hanging = style["length"] > 0.2
        wavy = x + style["wave"] * (14 * y).sin() * smoothstep(y, -0.1, 0.3)
        height = y - _CROWN
        cap = ellipse(wavy, torch.where(hanging, height.clamp(max=0), height), width, top) + bumps
        return common(cap, y - style["length"], 0.05 + 0.13 * hanging + 0.10 * (style["curl"] > 0))

    def _front(self, ball: Point) -> Field:
        """The distance from the hair on the head, less the face that it leaves free."""
        style, looks = self._style, self.face.looks
        hanging = style["length"] > 0.2
        u, v = ball
        u = u * looks.hair_side
        off = u - style["parting"]
        spikes = style["tuft"] * (1 - (torch.remainder(u * 7 + 0.35, 1) - 0.5).abs() * 2)
        line = style["hairline"] + style["rise"] * (off.abs() / 0.4) ** 1.7 + spikes
        line = line - style["sweep"] * (off - off * off * 0.5) * 0.8
        widening = torch.where(hanging, 0.03 * smoothstep(v, 0.0, 0.5), 0.07 * smoothstep(v, -0.2, 0.12))
        # On the far side of a turned head the hair beside the face is behind it.
        far = (torch.where(ball[0] < 0, -1.0, 1.0) * self.face.pose.sin_yaw).clamp(min=0)
        widening = widening + 1.2 * far * hanging
        free = common(line - v, u.abs() - style["opening"] - widening, 0.10)
        hair = torch.maximum(self._cap, -free)
        # Short hair leaves the ears free, where they show.
        across, down, _, hidden = ear_point(self.face)
        ear = ellipse(across, down, 0.058, looks.ear_size - 0.004) + hidden
        return torch.where(hanging, hair, torch.maximum(hair, -ear))

    def _strands(self, x: Field, y: Field) -> Field:
        """Lines that fan out from the parting, or curls: -1..1."""
        style = self._style
        fan = (x * self.face.looks.hair_side - style["parting"]) / (y + 1.15).clamp(min=0.15)
        straight = 0.6 * (34 * fan + 1.5 * (7 * fan).sin()).sin() + 0.4 * (83 * fan + 3 * y).sin()
        curls = (26 * x + 2 * (19 * y).sin()).sin() * (27 * y + 2 * (21 * x).sin()).sin()
        return torch.where(style["curl"] > 0, curls, straight)

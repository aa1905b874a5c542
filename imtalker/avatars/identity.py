"""Who an avatar is: looks drawn from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

import torch

Colour = tuple[float, float, float]
"""Red, green, blue in 0..1."""

World = Literal["full", "narrow"]

HAIR_STYLES = (
    "bald", "buzz", "short", "quiff", "curly", "afro", "fringe", "bob", "long", "wavy", "bun", "ponytail",
)  # fmt: skip
GLASSES = ("none", "round", "square")
FACIAL_HAIR = ("none", "stubble", "moustache", "goatee", "beard")
CLOTHES = ("round neck", "v-neck", "shirt", "turtleneck", "stripes", "hoodie")
BACKGROUNDS = ("plain", "gradient", "halo", "diagonal", "bokeh")


def _rgb(code: str) -> Colour:
    red, green, blue = (int(code[i : i + 2], 16) / 255 for i in (0, 2, 4))
    return red, green, blue


_SKIN = [_rgb(c) for c in ("fbdcc8", "f5cdb0", "ecbd9c", "dfa680", "c98b62", "a9704b", "85543a", "6b412d")]
_HAIR = [_rgb(c) for c in ("241c1e", "3a2722", "5b3a29", "7d4f33", "a5522d", "c98d4b", "e0bd7d", "9a9794")]
_IRIS = [_rgb(c) for c in ("5b3a22", "7a5230", "4f7a4b", "4a86b8", "6fa8b5", "6d7681")]
_CLOTHES = [
    _rgb(c)
    for c in ("3d5a80", "98475b", "4a7c6f", "e0a458", "5f5b8c", "d9694f", "2f3e55", "e8e2d6", "7fa6a0", "b5838d")
]
_BACKGROUND = [
    _rgb(c) for c in ("cfe3ec", "f3dcc6", "d9e5d0", "e6d7ea", "f0d3d3", "c9d6e8", "efe7d3", "bcd8d3", "dfd9d0")
]
_LIPS = [_rgb(c) for c in ("d9727a", "c95f63", "b9505c", "d4806f")]
_FRAMES = [_rgb(c) for c in ("2b2b30", "6b3b2a", "8c2f39", "2f4a63", "b08d57")]


@dataclass(frozen=True)
class Identity:
    """The looks of one avatar. Lengths are in half picture widths, colours in 0..1; kinds index the tuples above."""

    skin: Colour
    face_width: float
    """Half the width at the cheekbones, 0.435..0.49."""
    face_length: float
    """From the eyes' line to the chin, 0.50..0.565."""
    face_taper: float
    """How much narrower the jaw is than the cheeks, 0.06..0.24."""
    face_square: float
    """The jaw's power: 2 is an ellipse, more is squarer, 2..2.5."""
    ear_size: float
    """Half an ear's height, 0.10..0.13."""
    freckles: float
    blush: float

    hair_style: int
    hair_colour: Colour
    hair_volume: float
    """0.9..1.15 of what the style has."""
    hair_side: float
    """-1 or 1: the side of the parting."""

    eye_size: float
    """Half the width of the opening, 0.112..0.138."""
    eye_open: float
    """Height of the opening over its width, 0.42..0.56."""
    eye_spacing: float
    """From the middle of the face to the middle of an eye, 0.205..0.228."""
    eye_tilt: float
    """Radians; + lifts the outer corners."""
    lashes: float
    iris: Colour

    brow_thickness: float
    brow_arch: float
    brow_tilt: float
    brow_height: float

    nose_width: float
    nose_length: float
    mouth_size: float
    """Half the width of the closed mouth, 0.178..0.212."""
    mouth_height: float
    """Height of the mouth's line on the plane, 0.262..0.28."""
    smile: float
    upper_lip: float
    lower_lip: float
    lips: Colour
    teeth: float
    """Length of the upper teeth, 0.035..0.05."""

    glasses: int
    glasses_colour: Colour
    facial_hair: int

    clothes: int
    clothes_colour: Colour
    clothes_second: Colour
    shoulders: float
    """Half their width, 0.72..0.9."""

    background: int
    background_colour: Colour
    background_second: Colour


class _Draw:
    """Draws from one CPU generator, in the order of the calls."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def number(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=self._generator, dtype=torch.float64))

    def choice(self, weights: Sequence[float]) -> int:
        rest = self.number(0, sum(weights))
        for index, weight in enumerate(weights):
            rest -= weight
            if rest < 0:
                return index
        return len(weights) - 1

    def colour(self, palette: Sequence[Colour], spread: float = 0.03) -> Colour:
        base = palette[self.choice([1] * len(palette))]
        light = self.number(-spread, spread)
        red, green, blue = (min(1.0, max(0.0, c + light + self.number(-spread, spread) / 2)) for c in base)
        return red, green, blue


# Weights of the kinds in each world, in the order of the tuples of names.
_KINDS: dict[str, dict[str, tuple[float, ...]]] = {
    "full": {
        "hair_style": (0.5, 0.6, 1.4, 1, 1, 0.6, 1, 1.2, 1.3, 1.2, 1, 0.9),
        "glasses": (4, 1, 1),
        "facial_hair": (5, 0.7, 0.5, 0.6, 1),
        "clothes": (2, 1.2, 1.5, 1, 1, 1),
        "background": (1, 2, 2, 1, 1),
    },
    "narrow": {
        "hair_style": (0, 0, 1, 0, 0, 0, 0, 1, 1, 0, 0, 0),
        "glasses": (1, 0, 0),
        "facial_hair": (1, 0, 0, 0, 0),
        "clothes": (1, 0, 0, 0, 0, 0),
        "background": (1, 0, 0, 0, 0),
    },
}
_LONG_HAIR = tuple(HAIR_STYLES.index(name) for name in ("fringe", "bob", "long", "wavy", "bun", "ponytail"))


def draw_identity(seed: int, world: World = "full") -> Identity:
    """The identity of a seed; the same on every machine.

    The narrow world has three hair styles, plain backgrounds and clothes, no glasses and no facial hair.
    Raises ValueError for an unknown world.
    """
    if world not in _KINDS:
        raise ValueError(f"expected the world to be one of {', '.join(_KINDS)}, found {world!r}")
    kinds = _KINDS[world]
    draw = _Draw(seed)
    tone = draw.number(0, len(_SKIN) - 1)
    hair_style = draw.choice(kinds["hair_style"])
    facial_hair = draw.choice(kinds["facial_hair"])
    if hair_style in _LONG_HAIR:
        facial_hair = 0
    soft = hair_style in _LONG_HAIR
    return Identity(
        skin=_between(_SKIN, tone),
        face_width=draw.number(0.435, 0.475) if soft else draw.number(0.445, 0.49),
        face_length=draw.number(0.50, 0.545) if soft else draw.number(0.515, 0.565),
        face_taper=draw.number(0.12, 0.24) if soft else draw.number(0.06, 0.18),
        face_square=draw.number(2.0, 2.15) if soft else draw.number(2.05, 2.5),
        ear_size=draw.number(0.10, 0.13),
        freckles=max(0.0, draw.number(-1.6, 0.8)) * (tone < 3),
        blush=draw.number(0.15, 0.6) if soft else draw.number(0.1, 0.35),
        hair_style=hair_style,
        hair_colour=draw.colour(_HAIR if tone < 3 else _HAIR[:3] if tone > 4.5 else _HAIR[:5], 0.02),
        hair_volume=draw.number(0.92, 1.1),
        hair_side=1.0 if draw.number(0, 1) < 0.5 else -1.0,
        eye_size=draw.number(0.122, 0.138) if soft else draw.number(0.112, 0.130),
        eye_open=draw.number(0.48, 0.58) if soft else draw.number(0.43, 0.53),
        eye_spacing=draw.number(0.205, 0.228),
        eye_tilt=draw.number(-0.05, 0.13),
        lashes=draw.number(0.6, 1.0) if soft else draw.number(0.1, 0.4),
        iris=draw.colour(_IRIS if tone < 3.5 else _IRIS[:3], 0.02),
        brow_thickness=draw.number(0.016, 0.024) if soft else draw.number(0.020, 0.031),
        brow_arch=draw.number(0.025, 0.045) if soft else draw.number(0.012, 0.034),
        brow_tilt=draw.number(-0.12, 0.10),
        brow_height=draw.number(0.128, 0.152),
        nose_width=draw.number(0.075, 0.105),
        nose_length=draw.number(0.17, 0.205),
        mouth_size=draw.number(0.178, 0.212),
        mouth_height=draw.number(0.262, 0.28),
        smile=draw.number(0.018, 0.042),
        upper_lip=draw.number(0.038, 0.052) if soft else draw.number(0.031, 0.043),
        lower_lip=draw.number(0.050, 0.063) if soft else draw.number(0.043, 0.055),
        lips=draw.colour(_LIPS),
        teeth=draw.number(0.036, 0.048),
        glasses=draw.choice(kinds["glasses"]),
        glasses_colour=draw.colour(_FRAMES, 0.02),
        facial_hair=facial_hair,
        clothes=draw.choice(kinds["clothes"]),
        clothes_colour=draw.colour(_CLOTHES),
        clothes_second=draw.colour(_CLOTHES),
        shoulders=draw.number(0.72, 0.80) if soft else draw.number(0.78, 0.90),
        background=draw.choice(kinds["background"]),
        background_colour=draw.colour(_BACKGROUND),
        background_second=draw.colour(_BACKGROUND),
    )


def _between(palette: Sequence[Colour], place: float) -> Colour:
    index = min(int(place), len(palette) - 2)
    part = place - index
    red, green, blue = (a + (b - a) * part for a, b in zip(palette[index], palette[index + 1], strict=True))
    return red, green, blue


class Looks:
    """A batch of identities as tensors: ``looks.<field>`` is float32 [B, 1, 1], colours are [B, 3, 1, 1]."""

    def __init__(self, identities: Sequence[Identity], device: torch.device | str) -> None:
        if not identities:
            raise ValueError("expected at least one identity, found none")
        self._kinds: dict[str, set[int]] = {}
        self._tensors: dict[str, torch.Tensor] = {}
        for field in fields(Identity):
            column = [getattr(identity, field.name) for identity in identities]
            if isinstance(column[0], int):
                self._kinds[field.name] = set(column)
            values = torch.tensor(column, dtype=torch.float32, device=device)
            self._tensors[field.name] = values[:, None, None] if values.ndim == 1 else values[:, :, None, None]

    def __getattr__(self, name: str) -> torch.Tensor:
        tensors: dict[str, torch.Tensor] = self.__dict__.get("_tensors", {})
        if name not in tensors:
            raise AttributeError(name)
        return tensors[name]

    def kinds(self, name: str) -> set[int]:
        """The kinds of ``name`` (a field such as ``hair_style``) that occur in the batch."""
        return self._kinds[name]

    def is_kind(self, name: str, *kinds: int) -> torch.Tensor:
        """1 where ``name`` is one of ``kinds``, else 0: float32 [B, 1, 1]."""
        return torch.isin(self._tensors[name], self._tensors[name].new_tensor(kinds)).float()

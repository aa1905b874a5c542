"""The drawn people of the demo: stylised portraits and frames from plain numpy, with no picture as a source.

A head is an ellipsoid with bumps (nose, sockets, cheeks, lips) lit by one lamp; shapes are signed distances, laid over
each other from back to front. What is painted on the face (eyes, brows, mouth) lives in face coordinates, which turn
with the head. The unit is about the distance from the head's centre to the chin: x to the right, y down, eyes at
y = -0.05, mouth at y = 0.61.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Frame = NDArray[np.uint8]
Colour = tuple[float, float, float]

SUPERSAMPLE = 2


@dataclass(frozen=True)
class Person:
    """One identity and how its portrait is framed. Colours are sRGB in 0..1."""

    size: tuple[int, int]  # width, height in pixels
    unit: float  # pixels to a unit
    skin: Colour
    hair: Colour
    iris: Colour
    lips: Colour
    cloth: Colour
    backdrop: tuple[Colour, Colour]  # top, bottom
    style: Literal["long", "short", "fringe"]
    cheeks: float  # half-width of the face at the cheekbones
    jaw: float  # half-width of the jaw
    nose: float  # breadth, 1 = average
    brow: float  # half-thickness
    lashes: float  # half-thickness
    beard: float = 0.0  # opacity


@dataclass(frozen=True)
class Pose:
    """Where the head looks (radians) and what eyes and mouth do (0 = shut, 1 = wide open)."""

    yaw: float = 0.0
    pitch: float = 0.0
    eyes: float = 1.0
    mouth: float = 0.0


@dataclass
class Canvas:
    """A picture in the head's units, painted back to front.

    Args:
        size: width and height in pixels, supersampled.
        unit: pixels to a unit, supersampled.
        backdrop: colours at the top and at the bottom.
    """

    size: tuple[int, int]
    unit: float
    backdrop: tuple[Colour, Colour]
    x: Array = field(init=False)
    y: Array = field(init=False)
    rgb: Array = field(init=False)

    def __post_init__(self) -> None:
        width, height = self.size
        rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
        self.x = (columns + 0.5 - width / 2) / self.unit
        self.y = (rows + 0.5 - height * 0.48) / self.unit
        glow = np.exp(-(self.x**2) / 3 - (self.y + 0.4) ** 2 / 2)[..., None]
        blend = (rows / height)[..., None]
        top, bottom = (np.array(colour, np.float32) for colour in self.backdrop)
        self.rgb = top * (1 - blend) + bottom * blend + 0.06 * glow

    def paint(self, distance: Array, colour: Colour | Array, soft: float = 0.0, opacity: float = 1.0) -> None:
        """Lay a colour over the region where ``distance`` (in units) is negative; ``soft`` widens its edge."""
        edge = np.clip(0.5 - distance / (soft + 1.5 / self.unit), 0, 1)
        cover = (opacity * edge * edge * (3 - 2 * edge))[..., None]
        self.rgb += cover * (np.asarray(colour, np.float32) - self.rgb)

    def lit(self, colour: Colour, height: Array, strength: float = 1.0) -> Array:
        """A colour shaded by a lamp from the upper left over a height field (in units): float32 [H, W, 3]."""
        slope_y, slope_x = np.gradient(height * self.unit)
        length = np.sqrt(slope_x**2 + slope_y**2 + 1)
        facing = np.clip((0.42 * slope_x + 0.45 * slope_y + 0.79) / length, 0, 1)
        light = 1 + strength * (0.62 * facing - 0.50)
        # Shadows keep more red than blue, as skin and cloth do under a warm lamp.
        return np.asarray(colour, np.float32) * np.stack([light, light**1.12, light**1.22], axis=-1)


def darker(colour: Colour, factor: float) -> Colour:
    return colour[0] * factor, colour[1] * factor, colour[2] * factor


def ellipse(x: Array, y: Array, centre: tuple[float, float], radii: tuple[float, float]) -> Array:
    """Approximate signed distance to an ellipse, negative inside."""
    u, v = (x - centre[0]) / radii[0], (y - centre[1]) / radii[1]
    level = np.sqrt(u**2 + v**2) + 1e-6
    return level * (level - 1) / np.sqrt((u / radii[0]) ** 2 + (v / radii[1]) ** 2 + 1e-6)


def merge(a: Array, b: Array, radius: float) -> Array:
    """Union of two distances with a rounded seam (polynomial smooth minimum)."""
    blend = np.clip(0.5 + 0.5 * (b - a) / radius, 0, 1)
    return b + (a - b) * blend - radius * blend * (1 - blend)


def bump(x: Array, y: Array, centre: tuple[float, float], spread: tuple[float, float]) -> Array:
    """A Gaussian of height 1."""
    return np.exp(-(((x - centre[0]) / spread[0]) ** 2) - ((y - centre[1]) / spread[1]) ** 2)


def lens(x: Array, y: Array, half_width: float, up: float, down: float) -> Array:
    """Distance to an eye-shaped region with corners at x = +-half_width that reaches from -up to down."""
    arch = 1 - (x / half_width) ** 2
    return np.maximum(-up * arch - y, y - down * arch)


def draw(person: Person, pose: Pose) -> Frame:
    """Draw a person in a pose: uint8 RGB [H, W, 3] of the person's own size."""
    width, height = person.size
    canvas = Canvas((width * SUPERSAMPLE, height * SUPERSAMPLE), person.unit * SUPERSAMPLE, person.backdrop)
    x, y = canvas.x - 0.10 * np.sin(pose.yaw), canvas.y + 0.08 * np.sin(pose.pitch)

    skull = ellipse(x, y, (0, -0.28), (person.cheeks, 0.80))
    chin = ellipse(x, y, (0, 0.36 + 0.07 * pose.mouth), (person.jaw, 0.64))
    head = merge(skull, chin, 0.25)
    dome = np.sqrt(np.clip(1 - (x / 0.95) ** 2 - (y / 1.3) ** 2, 0.02, 1)) * 0.95

    # Face coordinates: the pixel's point on the dome, turned back to the front.
    u = x * np.cos(pose.yaw) - dome * np.sin(pose.yaw)
    v = y * np.cos(pose.pitch) + (1.5 * dome - 0.95) * np.sin(pose.pitch)
    chin_v = v - 0.07 * pose.mouth * np.clip((v - 0.62) / 0.3, 0, 1)  # the chin falls with the jaw

    crown = np.sqrt(np.clip(1 - (x / 1.2) ** 2 - (y / 2.2) ** 2, 0.02, 1))
    hair_light = canvas.lit(person.hair, 0.7 * crown + 0.010 * strands(person, x - 0.6 * np.sin(pose.yaw), y), 1.2)
    shine = bump(u, y + 0.12 * np.cos(2 * u), (-0.1, -0.72), (0.55, 0.13)) * (0.6 + 0.4 * np.sin(40 * u))
    hair_light += (0.18 if person.style != "short" else 0.04) * shine[..., None]
    paint_body(canvas, person, hair_light)
    for side in (-1.0, 1.0) if person.style == "short" else ():
        ear = ellipse(x, y, (side * person.cheeks * np.cos(pose.yaw), 0.06), (0.10, 0.20))
        canvas.paint(ear, canvas.lit(person.skin, -0.6 * ear), 0.01)
        canvas.paint(ear + 0.06, darker(person.skin, 0.72), 0.08, 0.7)

    nose_x, wide = 0.16 * np.sin(pose.yaw), person.nose
    relief = (
        dome
        + 0.065 * bump(u, v, (nose_x * 0.6, 0.08), (0.085 * wide, 0.20))
        + 0.13 * bump(u, v, (nose_x, 0.31), (0.105 * wide, 0.11))
        + 0.04 * bump(np.abs(u - nose_x), v, (0.13 * wide, 0.345), (0.06, 0.06))
        - 0.09 * bump(np.abs(u), v, (0.31, -0.06), (0.17, 0.11))
        + 0.05 * bump(np.abs(u), v, (0.40, 0.28), (0.20, 0.17))
        + 0.05 * bump(u, v, (0, 0.62), (0.25, 0.13))
        + 0.06 * bump(u, chin_v, (0, 0.90), (0.18, 0.11))
        - 0.03 * bump(u, chin_v, (0, 0.77), (0.16, 0.04))
    )
    canvas.paint(head, canvas.lit(person.skin, relief - 2.2 * np.clip(head + 0.22, 0, 1) ** 2), 0.01)
    paint_cheeks(canvas, person, u, v, head)
    for side in (-1.0, 1.0):
        paint_eye(canvas, person, pose, side, (u - side * 0.315) * side / 1.1, (v + 0.05) / 1.1)
        paint_brow(canvas, person, u * side, v)
    paint_nose(canvas, person, u - nose_x, v)
    paint_mouth(canvas, person, pose, u, v)
    paint_hair(canvas, person, x, y, u, head, hair_light)

    small = canvas.rgb.reshape(height, SUPERSAMPLE, width, SUPERSAMPLE, 3).mean(axis=(1, 3))
    return (np.clip(small, 0, 1) * 255 + 0.5).astype(np.uint8)


def strands(person: Person, x: Array, y: Array) -> Array:
    """Relief of the hair: tight curls or combed strands."""
    if person.style == "short":
        curls = np.random.default_rng(5).uniform(-0.7, 0.7, (97, 97)).astype(np.float32)
        return curls[np.floor(60 * y).astype(int) % 97, np.floor(60 * x).astype(int) % 97]
    across = np.arctan2(x - 0.1, y + 1.9) * 2.4 + 0.05 * np.sin(5 * y)
    return np.sin(31 * across) + 0.6 * np.sin(73 * across + 2) + 0.3 * np.sin(131 * across)


def mane(person: Person, x: Array, y: Array) -> Array:
    """Distance to the outline of the hair, face included."""
    if person.style == "short":
        return np.maximum(ellipse(x, y, (0, -0.40), (person.cheeks + 0.06, 0.84)), y - 0.02)
    if person.style == "long":
        wave = x + 0.03 * np.sin(6 * y) * np.sign(x)
        return merge(ellipse(x, y, (0, -0.28), (0.90, 1.0)), ellipse(wave, y, (0, 0.75), (0.98, 0.95)), 0.4)
    bob = merge(ellipse(x, y, (0, -0.25), (0.86, 1.02)), ellipse(x, y, (0, 0.25), (0.90, 0.85)), 0.3)
    return np.maximum(bob, y - 0.72 - 0.10 * x**2)


def paint_body(canvas: Canvas, person: Person, hair_light: Array) -> None:
    """Hair behind the head, neck and shoulders."""
    x, y = canvas.x, canvas.y
    if person.style != "short":
        canvas.paint(mane(person, x, y), 0.55 * hair_light)
    width = 0.62 * person.jaw
    neck = np.maximum(np.abs(x) - width - 0.6 * np.clip(y - 1.0, 0, 1) ** 2, 0.3 - y)
    under_chin = np.clip(0.5 - ellipse(x, y, (0.05, 0.72), (0.60, 0.52)) / 0.25, 0, 1)[..., None]
    column = np.sqrt(np.clip(1 - (x / 0.62) ** 2, 0.02, 1)) * 0.5
    canvas.paint(neck, canvas.lit(person.skin, column) * (1 - 0.42 * under_chin))
    torso = np.maximum(ellipse(x, y, (0, 2.35), (3 * person.jaw, 1.12)), -ellipse(x, y, (0, 1.05), (0.46, 0.36)))
    folds = np.sqrt(np.clip(1 - (x / 1.8) ** 2 - ((y - 2.4) / 1.5) ** 2, 0.02, 1))
    canvas.paint(torso, canvas.lit(person.cloth, folds - 0.3 * np.clip(torso + 0.08, 0, 1)), 0.01)


def paint_cheeks(canvas: Canvas, person: Person, u: Array, v: Array, head: Array) -> None:
    """A blush and, where there is one, the beard."""
    blush = (0.86 * person.skin[0] + 0.10, 0.66 * person.skin[1], 0.66 * person.skin[2])
    for side in (-1.0, 1.0):
        canvas.paint(np.maximum(ellipse(u, v, (side * 0.42, 0.30), (0.10, 0.06)), head + 0.15), blush, 0.30, 0.35)
    if person.beard:
        bare = merge(ellipse(u, v, (0, 0.10), (0.62, 0.50)), ellipse(u, v, (0, 0.62), (0.27, 0.15)), 0.02)
        growth = np.maximum(np.maximum(head + 0.03, 0.12 - v), -bare)
        moustache = np.abs(v - 0.515 - 0.5 * u**2) - 0.035 + 0.4 * u**2
        canvas.paint(growth, person.hair, 0.12, person.beard)
        canvas.paint(moustache, person.hair, 0.05, person.beard)


def paint_brow(canvas: Canvas, person: Person, x: Array, y: Array) -> None:
    """One brow; x grows towards the temple."""
    along = (x - 0.31) / 0.22
    arch = y + 0.27 + 0.065 * (1 - along**2) - 0.015 * along
    thick = person.brow * 1.5 * np.sqrt(np.clip(1 - along**2, 0, 1)) * (1.0 - 0.4 * along) - 0.006
    stroke = np.maximum(np.abs(arch) - thick, 0.2 * (np.abs(along) - 1))
    canvas.paint(stroke, darker(person.hair, 0.9), 0.03, 0.85)


def paint_nose(canvas: Canvas, person: Person, x: Array, y: Array) -> None:
    """The nose's shadows and its gleam; x is measured from its tip."""
    dark, x = darker(person.skin, 0.42), x / person.nose
    canvas.paint(ellipse(x, y, (0, 0.425), (0.11, 0.012)), dark, 0.10, 0.50)
    canvas.paint(ellipse(np.abs(x), y, (0.066, 0.395), (0.034, 0.014)), dark, 0.03, 0.8)
    canvas.paint(ellipse(np.abs(x), y, (0.165, 0.35), (0.013, 0.04)), dark, 0.08, 0.22)
    canvas.paint(ellipse(x, y, (-0.02, 0.27), (0.02, 0.03)), (1, 0.96, 0.92), 0.09, 0.35)


def paint_mouth(canvas: Canvas, person: Person, pose: Pose, u: Array, v: Array) -> None:
    """Lips with a slight smile; open, they show the upper teeth and the tongue."""
    line = v - 0.61 + 0.07 * (u / 0.27) ** 2
    gap = 0.17 * pose.mouth
    half = 0.245 - 0.03 * pose.mouth
    bow = 0.018 * np.exp(-((u / 0.05) ** 2))
    mouth = lens(u, line, half, 0.012 + 0.15 * gap, 0.010 + gap)
    canvas.paint(lens(u, line - bow, half, 0.070, 0.004), darker(person.lips, 0.86), 0.02)
    canvas.paint(lens(u, line, half, 0.0, 0.090 + gap), person.lips, 0.02)
    canvas.paint(ellipse(u, line, (-0.03, 0.050 + gap), (0.07, 0.012)), (1, 0.88, 0.86), 0.05, 0.40)
    canvas.paint(mouth, (0.26, 0.08, 0.08), 0.012)
    if pose.mouth > 0.05:
        canvas.paint(np.maximum(mouth + 0.012, line - 0.30 * gap), (0.95, 0.93, 0.89), 0.012)
        canvas.paint(np.maximum(mouth + 0.015, 0.75 * gap - line), (0.72, 0.32, 0.32), 0.04, 0.8)
    canvas.paint(ellipse(u, line, (0, 0.15 + gap), (0.11, 0.010)), darker(person.skin, 0.42), 0.07, 0.35)


def paint_eye(canvas: Canvas, person: Person, pose: Pose, side: float, x: Array, y: Array) -> None:
    """One eye about its own centre; x grows towards the temple."""
    y = y + 0.03 * x / 0.16  # the outer corner is a little higher
    lid = 0.088 * pose.eyes - 0.035 * (1 - pose.eyes)
    white = lens(x, y, 0.165, lid, 0.052)
    canvas.paint(lens(x, y, 0.19, 0.135, 0.08), darker(person.skin, 0.62), 0.10, 0.55)
    canvas.paint(lens(x, y, 0.165, 0.120, 0.052), darker(person.skin, 0.90), 0.02, 0.8)
    canvas.paint(white, (0.95, 0.94, 0.92), 0.006)
    radius = np.hypot(x + 0.005, y + 0.012)
    shade = (0.75 + 5.0 * np.clip(y + 0.03, -0.05, 0.08))[..., None] * np.asarray(person.iris, np.float32)
    canvas.paint(np.maximum(white, radius - 0.080), darker(person.iris, 0.35), 0.008)
    canvas.paint(np.maximum(white, radius - 0.070), shade, 0.012)
    canvas.paint(np.maximum(white, radius - 0.034), (0.04, 0.03, 0.04), 0.008)
    canvas.paint(np.maximum(white, y + lid * 0.55 * (1 - (x / 0.165) ** 2)), (0.30, 0.22, 0.22), 0.05, 0.45)
    if pose.eyes > 0.4:
        canvas.paint(np.hypot(x * side + 0.024, y + 0.040) - 0.017, (1, 1, 1), 0.006, 0.95)
    lash = np.abs(y + lid * (1 - (x / 0.165) ** 2)) - person.lashes * np.clip(1 + x / 0.25, 0.3, 1.7)
    canvas.paint(np.maximum(lash, 0.2 * (np.abs(x) - 0.175)), (0.12, 0.08, 0.08), 0.012, 0.95)


def paint_hair(canvas: Canvas, person: Person, x: Array, y: Array, u: Array, head: Array, light: Array) -> None:
    """Hair in front of the head, with the shadow it throws on the forehead."""
    cap = mane(person, x, y)
    if person.style == "short":
        window = merge(ellipse(u, y, (0, -0.16), (0.60, 0.52)), ellipse(u, y, (0, 0.45), (1.0, 0.55)), 0.10)
        window = np.maximum(window, head + 0.01)
    elif person.style == "long":
        window = merge(ellipse(u, y, (-0.20, 0.40), (0.48, 1.06)), ellipse(u, y, (0.04, 0.50), (0.60, 1.12)), 0.25)
        window = merge(window, np.maximum(np.abs(x) - 0.50, 0.4 - y), 0.2)
    else:
        window = np.maximum(ellipse(u, y, (0, 0.35), (0.64, 0.95)), -0.36 - 0.04 * np.cos(4 * u) - y)
    front = np.maximum(cap, -window)
    canvas.paint(np.maximum(front - 0.06, head), darker(person.skin, 0.55), 0.12, 0.45)
    canvas.paint(front, light, 0.03 if person.style == "short" else 0.01)

"""The picture while it is being painted, from back to front."""

from __future__ import annotations

from enum import IntEnum

import torch

from imtalker.avatars.pose import Point
from imtalker.avatars.shapes import Field
from imtalker.avatars.window import Window


def mix(first: torch.Tensor, second: torch.Tensor, part: torch.Tensor | float) -> torch.Tensor:
    """``first`` where ``part`` is 0, ``second`` where it is 1."""
    return first + (second - first) * part


def solid(like: torch.Tensor, red: float, green: float, blue: float) -> torch.Tensor:
    """A colour [3, 1, 1] on the device of ``like``."""
    return like.new_tensor([red, green, blue])[:, None, None]


def shaded(colour: torch.Tensor, light: Field | float) -> torch.Tensor:
    """``colour`` [B, 3, 1, 1] under a ``light`` [B, H, W]: 1 leaves it, less is a warm shadow, more a highlight."""
    # Red falls least in the shadow: skin and hair turn warm, not grey.
    more = light - 1 if isinstance(light, float) else light[:, None] - 1
    return colour * (1 + solid(colour, 0.82, 1.06, 1.12) * more)


class Layer(IntEnum):
    """What can hide what, as it moves; from back to front."""

    BACKGROUND = 0
    BACK_HAIR = 1
    NECK = 2
    CLOTHES = 3
    HEAD = 4
    EYE = 5
    MOUTH = 6
    """What is between the lips."""
    GLASSES = 7
    HAIR = 8


class Canvas:
    """``image`` [B, 3, H, W] and, for every pixel, ``coordinates`` [B, 2, H, W] and ``layers`` [B, 1, H, W] of what was
    painted last."""

    def __init__(self, image: torch.Tensor, coordinates: torch.Tensor, layers: torch.Tensor, pixel: Field) -> None:
        self.image, self.coordinates, self.layers = image, coordinates, layers
        self.pixel = pixel
        """Width of a pixel on the canonical plane, [B, 1, 1]."""

    def paint(self, alpha: Field, colour: torch.Tensor, source: Point | None = None, layer: Layer = Layer.HEAD) -> None:
        """Lay a colour [B, 3, 1 or H, 1 or W] over what is there; ``source``: where its content comes from."""
        self.image = torch.lerp(self.image, colour, alpha[:, None])
        if source is not None:
            self.mark(alpha, source, layer)

    def mark(self, alpha: Field, source: Point, layer: Layer = Layer.HEAD) -> None:
        """Say where the content comes from without painting."""
        covered = (alpha > 0.5)[:, None]
        self.coordinates = torch.where(covered, torch.stack(source, 1), self.coordinates)
        self.layers = self.layers.masked_fill(covered, float(layer))

    def cut(self, window: Window) -> Canvas:
        """The part of the canvas in a window, to paint on and to :meth:`put` back."""
        return Canvas(window.cut(self.image), window.cut(self.coordinates), window.cut(self.layers), self.pixel)

    def put(self, window: Window, part: Canvas) -> None:
        """Put a part back."""
        self.image = window.put(part.image, self.image)
        self.coordinates = window.put(part.coordinates, self.coordinates)
        self.layers = window.put(part.layers, self.layers)

    def darken(self, amount: Field) -> None:
        """Lay a shadow over what is there; ``amount`` 0..1."""
        self.image = self.image * (1 - amount[:, None] * solid(self.image, 0.85, 1.0, 1.0))

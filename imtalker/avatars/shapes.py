"""Signed distances and soft edges, in the units of the avatar plane (the picture is 2 wide).

Distances are negative inside. Those of ellipses are the first-order estimates of Inigo Quilez ("Ellipse - distance",
"Smooth minimum"): exact on the outline, where alone they matter for an edge a pixel wide.
"""

from __future__ import annotations

import torch

Field = torch.Tensor
"""One number for every pixel: float32 [B, H, W], or [B, 1, 1] where it is the same for all."""

Number = torch.Tensor | float

_TINY = 1e-6


def cover(distance: Field, width: Number) -> Field:
    """How much of a pixel of this ``width`` lies inside, 0..1."""
    return (0.5 - distance / width).clamp(0, 1)


def span(y: Field, top: Field, bottom: Field, width: Number) -> Field:
    """How much of a pixel lies between two curves, 0..1: exact in y, and nothing where the curves have crossed."""
    half = 0.5 * width
    return ((torch.minimum(y + half, bottom) - torch.maximum(y - half, top)) / width).clamp(0, 1)


def smoothstep(x: Field, start: Number, end: Number) -> Field:
    """0 up to ``start``, 1 from ``end`` on, smooth between."""
    t = ((x - start) / (end - start)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def glow(x: Field, y: Field, width: Number, height: Number) -> Field:
    """A soft spot, 1 in its middle: nearly a Gaussian, and nothing from twice the half-sizes on."""
    x, y = x / (2 * width), y / (2 * height)
    near = (1 - x * x - y * y).clamp(min=0)
    near = near * near
    return near * near


def circle(x: Field, y: Field, radius: Number) -> Field:
    return torch.hypot(x, y) - radius


def ellipse(x: Field, y: Field, a: Number, b: Number) -> Field:
    u, v = x / a, y / b
    inside = torch.hypot(u, v)
    return inside * (inside - 1) / (torch.hypot(u / a, v / b) + _TINY)


def superellipse(x: Field, y: Field, a: Number, b: Number, power: Number) -> Field:
    """|x/a|^power + |y/b|^power = 1: an ellipse at 2, more and more of a box above."""
    u, v = (x / a).abs() + _TINY, (y / b).abs() + _TINY
    pu, pv = u**power, v**power
    total = pu + pv
    level = total ** (1 / power)
    slope = level / total * torch.hypot(pu / (u * a), pv / (v * b))
    return (level - 1) / slope


def box(x: Field, y: Field, a: Number, b: Number, corner: Number) -> Field:
    """A box of half-sizes a, b with rounded corners."""
    dx, dy = x.abs() - (a - corner), y.abs() - (b - corner)
    return torch.hypot(dx.clamp(min=0), dy.clamp(min=0)) + torch.maximum(dx, dy).clamp(max=0) - corner


def segment(x: Field, y: Field, start: tuple[Number, Number], end: tuple[Number, Number]) -> Field:
    """The distance from a line between two points (never negative: subtract half a thickness)."""
    along_x, along_y = end[0] - start[0], end[1] - start[1]
    dx, dy = x - start[0], y - start[1]
    t = ((dx * along_x + dy * along_y) / (along_x * along_x + along_y * along_y)).clamp(0, 1)
    return torch.hypot(dx - t * along_x, dy - t * along_y)


def union(first: Field, second: Field, blend: Number) -> Field:
    """Both shapes, melted together over ``blend``."""
    overlap = (blend - (first - second).abs()).clamp(min=0) / blend
    return torch.minimum(first, second) - overlap * overlap * blend * 0.25


def common(first: Field, second: Field, blend: Number) -> Field:
    """What lies in both shapes, its corners rounded over ``blend``."""
    return -union(-first, -second, blend)

"""Still pictures of avatars."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from imtalker.avatars import AvatarState, draw_identity, render
from imtalker.engine.bench.measure import threads
from imtalker.seeded import drawn_between
from pipeline.avatars.recipes import PortraitRecipe

_RECIPE = "recipe"
_POSE = {
    "yaw": (-0.16, 0.16),
    "pitch": (-0.05, 0.05),
    "roll": (-0.05, 0.05),
    "brows": (0.0, 0.25),
    "mouth_width": (0.05, 0.4),
}
"""How far a portrait may be from the neutral state: nearly frontal, awake, with a hint of a smile."""


def portrait_state(identity_seed: int) -> AvatarState:
    """The one state in which an identity is portrayed."""
    pose = dict(zip(_POSE, drawn_between("avatars/portrait", list(_POSE.values()), identity_seed), strict=True))
    return AvatarState.neutral().replace(**pose)


def draw_portrait(recipe: PortraitRecipe) -> np.ndarray:
    """uint8 [size, size, 3], RGB. Raises ValueError for a size below 16."""
    identity = draw_identity(recipe.identity_seed, recipe.world)
    # Another number of threads may round otherwise.
    with threads(1):
        return as_bytes(render(identity, portrait_state(recipe.identity_seed), recipe.size, device="cpu").image)[0]


def as_bytes(images: torch.Tensor) -> np.ndarray:
    """float [B, 3, H, W] in 0..1 -> uint8 [B, H, W, 3], contiguous."""
    return (images * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()


def save_portrait(path: Path, recipe: PortraitRecipe) -> None:
    """Draw the picture into the PNG file ``path``, with its recipe in a text chunk."""
    notes = PngInfo()
    notes.add_text(_RECIPE, recipe.as_json())
    Image.fromarray(draw_portrait(recipe)).save(path, format="PNG", pnginfo=notes)


def portrait_recipe(path: Path) -> str | None:
    """The recipe that a file of `save_portrait` holds; None for any other file, and for none."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return image.info.get(_RECIPE)
    except (OSError, SyntaxError):
        return None

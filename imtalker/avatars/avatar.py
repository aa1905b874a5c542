"""Pictures of avatars with their true geometry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from imtalker.avatars.canvas import Canvas
from imtalker.avatars.face import Face
from imtalker.avatars.identity import Identity, Looks
from imtalker.avatars.landmarks import landmarks
from imtalker.avatars.parts.background import paint_background
from imtalker.avatars.parts.beard import paint_beard
from imtalker.avatars.parts.body import paint_body
from imtalker.avatars.parts.brows import paint_brows
from imtalker.avatars.parts.eyes import Eyes
from imtalker.avatars.parts.glasses import paint_glasses
from imtalker.avatars.parts.hair import Hair
from imtalker.avatars.parts.head import paint_head
from imtalker.avatars.parts.mouth import Mouth
from imtalker.avatars.parts.nose import paint_nose
from imtalker.avatars.pose import ZOOM, Pose
from imtalker.avatars.state import AvatarState, validate_states

_LEAST_SIZE = 16


@dataclass(frozen=True)
class Rendering:
    """A batch of B pictures of H x W pixels and what is true of them; all float32."""

    image: torch.Tensor
    """[B, 3, H, W], 0..1."""

    eyes: torch.Tensor
    """[B, 1, H, W], 0..1: the eyes with lids and lashes, open or closed."""

    mouth: torch.Tensor
    """[B, 1, H, W], 0..1: the lips, what is between them, and a soft margin."""

    landmarks: torch.Tensor
    """[B, 68, 2]: x, y in pixels, in the order of iBUG 300-W; the first pixel's middle is 0, 0."""

    coordinates: torch.Tensor
    """[B, 2, H, W]: where each pixel's content lies in the picture of the neutral state, x and y in -1..1 (beyond it
    for content that the neutral picture cuts off), as ``grid_sample(align_corners=False)`` reads them. Content hidden
    in the neutral state has the place where it would come to light, e.g. teeth the line between the lips."""


def render(
    identity: Identity | Sequence[Identity],
    states: AvatarState | torch.Tensor,
    size: int,
    *,
    device: torch.device | str,
) -> Rendering:
    """Paint avatars: one identity in all states, or one identity a state.

    ``states`` is [B, 14] (see :class:`~imtalker.avatars.state.AvatarState`); ``size`` is the picture's width and height
    in pixels. The result is the same on every device up to rounding, and the same at every size up to resampling.
    Raises ValueError for states out of range, a number of identities other than 1 or B, or a size below 16.
    """
    if size < _LEAST_SIZE:
        raise ValueError(f"expected a picture of at least {_LEAST_SIZE} pixels, found {size}")
    values = states.values if isinstance(states, AvatarState) else validate_states(states)
    identities = [identity] if isinstance(identity, Identity) else list(identity)
    if len(identities) not in (1, len(values)):
        raise ValueError(f"expected 1 identity or one for each of {len(values)} states, found {len(identities)}")
    looks = Looks(identities, device)
    pose = Pose(values.to(device))
    axis = (torch.arange(size, device=device) * 2 + 1) / size - 1
    grid = axis[None, None, :].expand(1, size, size), axis[None, :, None].expand(1, size, size)

    canvas = Canvas(pose.rest().to_body(*grid), len(values), 2 / (size * ZOOM * pose["scale"]))
    face = Face(looks, pose, grid)
    hair, eyes, mouth = Hair(face, canvas.pixel), Eyes(face), Mouth(face)
    paint_background(canvas, looks, grid)
    hair.paint_back(canvas)
    paint_body(canvas, face)
    paint_head(canvas, face)
    eyes.paint(canvas)
    paint_nose(canvas, face)
    paint_beard(canvas, face, mouth)
    mouth.paint(canvas)
    paint_brows(canvas, face)
    hair.paint_front(canvas)
    paint_glasses(canvas, face)
    return Rendering(
        image=canvas.image.clamp(0, 1),
        eyes=eyes.mask(canvas.pixel)[:, None],
        mouth=mouth.mask()[:, None],
        landmarks=landmarks(looks, pose, size),
        coordinates=torch.stack(pose.rest().from_body(*canvas.coordinates.unbind(1)), 1),
    )

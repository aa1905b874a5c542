"""Pictures of avatars with their true geometry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch

from imtalker.avatars.canvas import Canvas
from imtalker.avatars.face import LIPS, Face
from imtalker.avatars.identity import Identity, Looks
from imtalker.avatars.landmarks import landmarks
from imtalker.avatars.parts.background import paint_background
from imtalker.avatars.parts.beard import paint_beard
from imtalker.avatars.parts.body import BODY_TOP, paint_body
from imtalker.avatars.parts.brows import paint_brows
from imtalker.avatars.parts.eyes import Eyes, eye_box
from imtalker.avatars.parts.glasses import GLASSES_BALL, glasses_box, has_glasses, paint_glasses
from imtalker.avatars.parts.hair import Hair
from imtalker.avatars.parts.head import paint_head
from imtalker.avatars.parts.mouth import Mouth, mouth_box
from imtalker.avatars.parts.nose import nose_box, nose_radius, paint_nose
from imtalker.avatars.pose import ZOOM, Pose
from imtalker.avatars.state import AvatarState, validate_states
from imtalker.avatars.window import Window

_LEAST_SIZE = 16

_CPU_PIXELS, _GPU_PIXELS = 1 << 16, 1 << 24
"""How many pixels are painted at a time: a CPU is fastest while they fit its caches."""


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

    layers: torch.Tensor
    """[B, 1, H, W]: the `imtalker.avatars.canvas.Layer` of each pixel. Pixels of one content have the same coordinates
    and the same layer: what moves may come before a background that has its place in the neutral picture."""


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
    pictures = max(1, (_CPU_PIXELS if torch.device(device).type == "cpu" else _GPU_PIXELS) // size**2)
    parts = []
    for start in range(0, len(values), pictures):
        some = identities if len(identities) == 1 else identities[start : start + pictures]
        parts.append(_paint(Looks(some, device), Pose(values[start : start + pictures].to(device)), size))
    names = [field.name for field in fields(Rendering)]
    return Rendering(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def _paint(looks: Looks, pose: Pose, size: int) -> Rendering:
    device = looks.skin.device
    batch = pose["yaw"].shape[0]
    rest = pose.rest()
    axis = (torch.arange(size, device=device) * 2 + 1) / size - 1
    grid = axis[None, None, :].expand(batch, size, size), axis[None, :, None].expand(batch, size, size)
    canvas = Canvas(
        torch.zeros(batch, 3, size, size, device=device),
        torch.stack(rest.to_body(*grid), 1),
        torch.zeros(batch, 1, size, size, device=device),
        2 / (size * ZOOM * pose["scale"]),
    )
    face = Face(looks, pose, grid)
    hair = Hair(face, canvas.pixel)
    paint_background(canvas, looks, grid)
    hair.paint_back(canvas)
    window = Window.below(pose, size, BODY_TOP)
    part = canvas.cut(window)
    paint_body(part, Face(looks, pose, window.grid))
    canvas.put(window, part)

    paint_head(canvas, face)

    window = Window.around(looks, pose, size, eye_box(looks), 1.0)
    part, near = canvas.cut(window), Face(looks, pose, window.grid)
    eyes = Eyes(near)
    eyes.paint(part)
    paint_brows(part, near)
    canvas.put(window, part)
    eyes_mask = window.alone(eyes.mask(canvas.pixel), size)

    window = Window.around(looks, pose, size, nose_box(looks), nose_radius(looks, looks.nose_length))
    part = canvas.cut(window)
    paint_nose(part, Face(looks, pose, window.grid))
    canvas.put(window, part)

    paint_beard(canvas, face)
    window = Window.around(looks, pose, size, mouth_box(looks, pose), LIPS)
    part = canvas.cut(window)
    mouth = Mouth(Face(looks, pose, window.grid))
    mouth.paint(part)
    canvas.put(window, part)
    mouth_mask = window.alone(mouth.mask(), size)

    if has_glasses(looks):
        window = Window.around(looks, pose, size, glasses_box(looks), GLASSES_BALL)
        part = canvas.cut(window)
        paint_glasses(part, Face(looks, pose, window.grid))
        canvas.put(window, part)
    hair.paint_front(canvas)
    return Rendering(
        image=canvas.image.clamp(0, 1),
        eyes=eyes_mask,
        mouth=mouth_mask,
        landmarks=landmarks(looks, pose, size),
        coordinates=torch.stack(rest.from_body(*canvas.coordinates.unbind(1)), 1),
        layers=canvas.layers,
    )

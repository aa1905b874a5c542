"""What a renderer can do, measured on avatars that it was never trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from imtalker.avatars import NEUTRAL, STATE_FIELDS, draw_identity, render
from imtalker.avatars.identity import Identity, World
from imtalker.renderer.renderer import Renderer
from imtalker.training.avatar_pictures import HELD_OUT_IDENTITIES, draw_states
from imtalker.training.contact_sheet import contact_sheet
from imtalker.training.similarity import correlation, psnr, ssim
from imtalker.training.state_reader import StateReader

JUDGED = (
    "mouth_open",
    "yaw",
    "pitch",
    "roll",
    "gaze_x",
    "gaze_y",
    "blink",
    "mouth_width",
    "mouth_round",
    "jaw",
    "brows",
)


@dataclass(frozen=True)
class RendererScores:
    """Means over pictures; correlations are of true states with those read off the pictures, by field."""

    same_psnr_db: float
    same_ssim: float
    """The person's own pictures drive."""
    other_psnr_db: float
    other_ssim: float
    """Another avatar drives; compared with the true picture of the person in the driver's state."""
    other_identified: float
    """Share of those pictures in which the head is nearer to the person's than to that of anyone else who is judged."""
    copied_psnr_db: float
    """Of the reference itself, for scale: what a renderer scores that moves nothing."""
    same: dict[str, float]
    other: dict[str, float]
    truth: dict[str, float]
    """What the reader finds on true pictures: no renderer can be judged better than that."""


@torch.inference_mode()
def evaluate_renderer(
    renderer: Renderer,
    reader: StateReader,
    *,
    identities: int = 24,
    states: int = 8,
    seed: int = 0,
    world: World = "full",
    report: Callable[[int, int], None] = lambda done, total: None,
) -> RendererScores:
    """Render each of the first held-out ``identities`` in random ``states``, driven by itself and by another avatar.

    ``renderer`` and ``reader`` are on the CPU, in evaluation mode. Raises ValueError for more identities than are held
    out.
    """
    if not 2 <= identities <= HELD_OUT_IDENTITIES:
        raise ValueError(f"identities must lie in 2..{HELD_OUT_IDENTITIES}, found {identities}")
    size = renderer.config.resolution
    people = [draw_identity(number, world) for number in range(identities)]
    found: dict[str, list[Tensor]] = {name: [] for name in ("truth", "same", "other", "reference")}
    wanted, identified = [], []
    for number, person in enumerate(people):
        values = draw_states(states + 1, torch.Generator().manual_seed(seed * HELD_OUT_IDENTITIES + number))
        own = render(person, values, size, device="cpu").image
        other = render(people[(number + 1) % identities], values[1:], size, device="cpu").image
        prepared = renderer.prepare(own[:1])
        found["truth"].append(own[1:])
        found["same"].append(renderer.render(prepared, renderer.encode_motion(own[1:])))
        found["other"].append(renderer.render(prepared, renderer.encode_motion(other)))
        found["reference"].append(own[:1].expand_as(own[1:]))
        identified.append(_nearest(found["other"][-1], person, people, values[1:]) == number)
        wanted.append(values[1:])
        report(number + 1, identities)
    pictures = {name: torch.cat(parts) for name, parts in found.items()}
    true_states, truth = torch.cat(wanted), pictures["truth"]
    return RendererScores(
        same_psnr_db=psnr(pictures["same"], truth).mean().item(),
        same_ssim=ssim(pictures["same"], truth).mean().item(),
        other_psnr_db=psnr(pictures["other"], truth).mean().item(),
        other_ssim=ssim(pictures["other"], truth).mean().item(),
        other_identified=torch.cat(identified).float().mean().item(),
        copied_psnr_db=psnr(pictures["reference"], truth).mean().item(),
        same=correlations(reader(pictures["same"]), true_states),
        other=correlations(reader(pictures["other"]), true_states),
        truth=correlations(reader(truth), true_states),
    )


def _nearest(pictures: Tensor, person: Identity, people: list[Identity], states: Tensor) -> Tensor:
    """Which of ``people``, in the same states and before the same background, each of ``person``'s pictures shows, [B].

    All wear ``person``'s clothes, so that only heads can tell.
    """
    shared = ("clothes", "shoulders", "background")
    worn = {name: value for name, value in vars(person).items() if name.startswith(shared)}
    size = pictures.shape[-1]
    line_up = [render(replace(one, **worn), states, size, device="cpu").image for one in people]
    return torch.stack([(one - pictures).square().mean((1, 2, 3)) for one in line_up]).argmin(0)


@torch.inference_mode()
def held_out_sheet(renderer: Renderer, *, identities: int = 8, seed: int = 0, world: World = "full") -> Tensor:
    """A contact sheet of held-out avatars in random states: reference, driver, rendered, truth; driven by another."""
    size = renderer.config.resolution
    states = draw_states(identities, torch.Generator().manual_seed(seed))
    columns: list[list[Tensor]] = [[], [], [], []]
    for number in range(identities):
        person, other = draw_identity(number, world), draw_identity(identities + number, world)
        state = states[number : number + 1]
        reference = render(person, torch.tensor([NEUTRAL]), size, device="cpu").image
        driver, truth = (render(who, state, size, device="cpu").image for who in (other, person))
        rendered = renderer.render(renderer.prepare(reference), renderer.encode_motion(driver))
        for column, picture in zip(columns, (reference, driver, rendered, truth), strict=True):
            column.append(picture)
    return contact_sheet([torch.cat(column) for column in columns])


def correlations(read: Tensor, true: Tensor) -> dict[str, float]:
    """Pearson's correlation of each judged field; both [n, 14]."""
    return {
        name: correlation(read[:, column], true[:, column]) for name in JUDGED for column in (STATE_FIELDS.index(name),)
    }

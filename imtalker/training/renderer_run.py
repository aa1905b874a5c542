"""A training of the renderer, from its settings to its checkpoint and its weights."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import torch
from torch import nn

from imtalker.avatars.identity import World
from imtalker.checkpoints import load_renderer, save_renderer
from imtalker.config import RendererConfig
from imtalker.renderer.renderer import Renderer
from imtalker.training.contact_sheet import contact_sheet
from imtalker.training.discriminator import TwoScales, check_batch
from imtalker.training.lessons import CodeLesson, Lesson, RouteLesson
from imtalker.training.loop import Pace, Report, Validation, Watch, train
from imtalker.training.norms import add_norms, without_norms
from imtalker.training.optimisers import Kind
from imtalker.training.perceptual import PerceptualLoss, Structure
from imtalker.training.picture_data import AvatarPictures, PictureData, placed
from imtalker.training.pictures import PictureBatch
from imtalker.training.renderer import RendererTrainer, RendererWeights, Routes, predict
from imtalker.training.schedule import scheduled
from imtalker.training.share import ALONE, Share

WEIGHTS = "renderer.safetensors"
"""The averaged weights in a run's folder; `imtalker.load_renderer` reads them."""

POOLS = "pools"
"""Where drawn avatars lie in a run's folder."""

CODES, ROUTES = "codes", "routes"
"""Where the lessons before the training lie in a run's folder."""

_SHOWN = 6
"""References that validation looks at."""


@dataclass(frozen=True)
class RendererRun:
    """Settings. Helpers fade linearly up to ``helped`` steps; for rates see `rate`."""

    renderer: RendererConfig
    steps: int
    seed: int = 0
    references: int = 8
    """Avatars in a batch."""
    targets: int = 2
    """Pictures to make of each."""
    strangers: float = 0.5
    """How often another avatar drives."""
    learning_rate: float = 1e-3
    equalised_rate: float = 10.0
    optimiser: Kind = "adam"
    floor: float = 2e-5
    warmup: int = 200
    again: tuple[int, ...] = ()
    """Lengths, in steps, of the parts at the end in which the rate goes down once more, each with new avatars."""
    again_rate: float = 0.25
    """Of the learning rate, where such a part begins."""
    weights: RendererWeights = field(
        default_factory=lambda: RendererWeights(
            1.0, perceptual=0.5, face=0.05, identity=0.0, adversarial=0.0, routing=0.1, codes=0.2
        )
    )
    helped: int = 6000
    codes_told: int = 0
    """Steps at first in which motion codes are those of the true states, not the encoder's."""
    routes_told: int = 0
    """Steps at first in which the truth says where the transfer looks. Those are cheap."""
    routes_near: int = 0
    """Steps up to which its attention then looks only near the true place; see `imtalker.training.helpers`."""
    routes_part: int = 0
    """Steps up to which it then is alone in a quarter of each fine map."""
    norms: bool = True
    """See `imtalker.training.norms`."""
    norms_learn: int = 2000
    """Steps after which they keep their statistics."""
    codes_first: int = 0
    """Steps in which the motion encoder alone learns, before the run's own; see `imtalker.training.lessons`."""
    codes_rate: float = 1e-3
    """Their learning rate at first."""
    codes_fixed: bool = False
    """Whether the motion encoder stays afterwards as it is."""
    routes_first: int = 0
    """Steps after those in which the routing alone learns."""
    routes_rate: float = 1e-3
    average: float = 0.999
    precision: str = "float32"
    world: World = "full"
    pool_groups: int = 400
    pool_states: int = 12
    pool_steps: int = 10_000
    """After so many steps new avatars are drawn."""
    discriminator_width: int = 64
    accumulate: int = 1
    """Parts that a batch is worked through in."""

    def rate(self, step: int) -> float:
        """The learning rate: a warm-up, a cosine to ``floor``, and in each part of ``again`` another cosine to it.

        Such restarts are those of SGDR (arXiv 1608.03983).
        """
        begun = bisect_right(self.restarts, step)
        if not begun:
            return scheduled(step, self.steps - sum(self.again), self.learning_rate, self.floor, self.warmup)
        since, length = step - self.restarts[begun - 1], self.again[begun - 1]
        return scheduled(since, length, self.again_rate * self.learning_rate, self.floor)

    @property
    def restarts(self) -> list[int]:
        """The steps at which the parts of ``again`` begin."""
        return [self.steps - sum(self.again[part:]) for part in range(len(self.again))]


class SharedRendererTrainer(RendererTrainer):
    """A `RendererTrainer` among others: gradients and running statistics are averaged over the processes."""

    def __init__(
        self, renderer: Renderer, discriminator: TwoScales, perceptual: nn.Module, *, share: Share, **options: object
    ) -> None:
        super().__init__(renderer, discriminator, perceptual, **options)  # type: ignore[arg-type]
        self._share = share

    def step(self, batches: Sequence[PictureBatch]) -> dict[str, float]:
        """As `RendererTrainer.step`, and the learning rate."""
        return super().step(batches) | {"learning_rate": self._optimiser.param_groups[0]["lr"]}

    def _update(self, optimiser: torch.optim.Optimizer, network: nn.Module, scaler: torch.amp.GradScaler) -> None:
        self._share.average_gradients(p for group in optimiser.param_groups for p in group["params"])
        self._share.average_buffers(network)
        super()._update(optimiser, network, scaler)


def train_renderer(
    run: RendererRun,
    folder: Path,
    device: torch.device | str,
    report: Report,
    *,
    data: PictureData | None = None,
    network: nn.Module | None = None,
    start: Path | None = None,
    watch: Watch | None = None,
    pace: Pace | None = None,
    stop: Callable[[], bool] = lambda: False,
    share: Share = ALONE,
) -> RendererTrainer:
    """Train, or go on training, in ``folder``.

    ``data`` are the avatars of `avatar_pictures`, if not said otherwise; ``network`` compares pictures (`VGG19`, else
    `Structure`). ``start`` is a checkpoint whose weights a new run begins with. For the rest see `loop.train`.

    Raises ValueError for a batch that can't be cut, and CheckpointError for a start of other sizes or weights that
    are no longer finite.
    """
    _check(run, share)
    torch.manual_seed(run.seed)
    renderer = Renderer(run.renderer)
    # Norms help random weights to learn; between weights that have learnt they would undo it.
    norms = run.norms and start is None
    if start is not None:
        renderer.load_state_dict(load_renderer(start, config=run.renderer).state_dict())
    if norms:
        add_norms(renderer)
    renderer.to(device)
    data = data or avatar_pictures(run, folder, share)

    def batches(step: int) -> list[PictureBatch]:
        parts = data.parts(step, share.parts(run.accumulate), run.accumulate * share.size)
        return [placed(part, device) for part in parts]

    def learn(lesson: Lesson, name: str, steps: int) -> None:
        train(
            lesson, batches, folder / name, steps=steps, report=report, pace=pace, stop=stop, share=share, device=device
        )

    common = {
        "equalised_rate": run.equalised_rate,
        "precision": getattr(torch, run.precision),
        "kind": run.optimiser,
        "share": share,
    }
    if run.codes_first:
        codes = CodeLesson(renderer, steps=run.codes_first, learning_rate=run.codes_rate, **common)
        learn(codes, CODES, run.codes_first)
    if run.routes_first:
        routes = RouteLesson(renderer, steps=run.routes_first, learning_rate=run.routes_rate, **common)
        learn(routes, ROUTES, run.routes_first)
    trainer = SharedRendererTrainer(
        renderer,
        TwoScales(run.renderer.resolution, run.discriminator_width).to(device),
        PerceptualLoss(network or Structure()).to(device),
        weights=run.weights,
        learning_rate=run.learning_rate,
        average=run.average,
        **common,
        codes_fixed=run.codes_fixed,
    )
    averaged = renderer if trainer.average is None else cast(Renderer, trainer.average.module)

    def before(step: int) -> None:
        trainer.set_learning_rate(run.rate(step))
        trainer.codes_told = step < run.codes_told
        helps: dict[Routes, int] = {"told": run.routes_told, "near": run.routes_near, "part": run.routes_part}
        trainer.routes = next((routes for routes, steps in helps.items() if step < steps), "own")
        trainer.norms_learn = step < run.norms_learn
        left = max(0.0, 1 - step / run.helped)
        trainer.weights = replace(run.weights, routing=left * run.weights.routing, codes=left * run.weights.codes)

    shown = data.held_out(_SHOWN) if share.first else None

    def validate() -> Validation:
        assert shown is not None  # noqa: S101  (it is not called without)
        return validated(averaged, placed(shown, device), trainer.perceptual, trainer.steps)

    train(
        trainer,
        batches,
        folder,
        steps=run.steps,
        before=before,
        report=report,
        watch=watch,
        pace=pace,
        validate=None if shown is None else validate,
        export=lambda: save_renderer(without_norms(averaged) if norms else averaged, folder / WEIGHTS),
        stop=stop,
        share=share,
        device=device,
    )
    return trainer


def avatar_pictures(run: RendererRun, folder: Path, share: Share = ALONE) -> AvatarPictures:
    """The avatars of a run, kept under ``folder``."""
    return AvatarPictures(
        folder / POOLS,
        run.renderer.resolution,
        seed=run.seed,
        references=run.references,
        targets=run.targets,
        strangers=run.strangers,
        world=run.world,
        groups=run.pool_groups,
        states=run.pool_states,
        steps=run.pool_steps,
        anew=run.restarts,
        share=share,
    )


@torch.no_grad()
def validated(renderer: Renderer, batch: PictureBatch, perceptual: nn.Module, step: int) -> Validation:
    """L1, perceptual terms and PSNR (dB, peak 1, of the mean squared error) of a batch with one target a reference.

    The pictures: reference, driver, rendered, truth.
    """
    training = renderer.training
    renderer.eval()
    frames = predict(renderer, batch, contrast=False).frames.float()
    renderer.train(training)
    whole, face = perceptual(frames, batch.target, batch.face)
    difference = frames - batch.target
    losses = {
        "pixels": difference.abs().mean().item(),
        "perceptual": whole.item(),
        "face": face.item(),
        "psnr_db": -10 * difference.square().mean().log10().item(),
    }
    return Validation(step, losses, contact_sheet([batch.reference, batch.moving, frames, batch.target]))


def _check(run: RendererRun, share: Share) -> None:
    parts = run.accumulate * share.size
    if run.references % parts:
        raise ValueError(
            f"a batch of {run.references} can't be cut into {parts} equal parts "
            f"({run.accumulate} in turn on each of {share.size} workers)"
        )
    if run.norms and run.references == parts:
        raise ValueError(f"with norms every part of a batch needs two references; {parts} parts have one each")
    if run.weights.adversarial:
        check_batch(run.references // parts * run.targets)

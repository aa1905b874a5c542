"""Lessons of parts of the renderer before its training: what pictures with a known truth teach at little cost.

The motion encoder learns codes that tell an avatar's state, and the transfer learns to route by such codes. Neither
needs a frame to be rendered. Learnt together with rendering both are drowned by the noise of its gradients: the
attention weight of the true cell did not rise in a thousand steps of rendering, and doubled in 500 of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from imtalker.layers.attention import to_tokens
from imtalker.renderer.renderer import Renderer
from imtalker.renderer.transfer import CrossAttentionLevel, SourceMaps
from imtalker.training.helpers import FaceFinder, routing_loss
from imtalker.training.optimisers import Kind, make_optimiser
from imtalker.training.pictures import PictureBatch, Truth
from imtalker.training.places import true_places
from imtalker.training.schedule import scheduled
from imtalker.training.share import ALONE, Share
from imtalker.training.state_codes import StateCodes

_BETAS = (0.9, 0.99)
_FLOOR, _WARMUP = 0.1, 100
MAX_GRADIENT_NORM = 1.0


class Lesson(ABC):
    """Some modules of a renderer, and perhaps helpers, with an optimiser of their own."""

    term: str
    """What its loss is called."""

    def __init__(
        self,
        renderer: Renderer,
        learning: nn.Module,
        *,
        steps: int,
        learning_rate: float = 1e-3,
        equalised_rate: float = 1.0,
        precision: torch.dtype = torch.float32,
        kind: Kind = "adam",
        share: Share = ALONE,
    ) -> None:
        """The rate falls along a cosine to a tenth over ``steps``; ``equalised_rate`` as for `RendererTrainer`.

        Among others (``share``) gradients and running statistics are averaged over the processes.
        """
        self.renderer, self.learning = renderer, learning
        self.steps = 0
        self._planned, self._rate, self._precision, self._share = steps, learning_rate, precision, share
        self._optimiser = make_optimiser(learning, kind, learning_rate, _BETAS, equalised_rate=equalised_rate)

    @abstractmethod
    def loss(self, batch: PictureBatch, truth: Truth) -> Tensor:
        """Of one batch; called under autocast."""

    def step(self, batches: Sequence[PictureBatch]) -> dict[str, float]:
        """One update. Returns the loss of these batches. Raises ValueError for batches without a truth."""
        rate = scheduled(self.steps, self._planned, self._rate, _FLOOR * self._rate, _WARMUP)
        for group in self._optimiser.param_groups:
            group["lr"] = rate * group["factor"]
        self.renderer.train()
        self._optimiser.zero_grad(set_to_none=True)
        total, half = 0.0, self._precision == torch.bfloat16
        for batch in batches:
            if batch.truth is None:
                raise ValueError("expected pictures whose states are known (avatars), found others")
            with torch.autocast(batch.reference.device.type, torch.bfloat16 if half else None, enabled=half):
                loss = self.loss(batch, batch.truth) / len(batches)
            loss.backward()
            total += loss.item()
        self._share.average_gradients(self.learning.parameters())
        self._share.average_buffers(self.renderer)
        nn.utils.clip_grad_norm_(self.learning.parameters(), MAX_GRADIENT_NORM)
        self._optimiser.step()
        self.steps += 1
        return {self.term: total}

    def state_dict(self) -> dict[str, Any]:
        """Everything that `step` depends on, for an exact continuation."""
        return {
            # All of it: batch norms of what does not learn here see the batches too.
            "renderer": self.renderer.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.renderer.load_state_dict(state["renderer"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.steps = state["steps"]


class CodeLesson(Lesson):
    """The motion encoder learns the codes that tell avatars' states.

    It ends in a mean over the whole picture, in which eyes and lips are little. That its maps must tell where these are
    teaches it to look at them: without, codes knew nothing of gaze, lids and the mouth's width after 2,000 steps; with
    it, in 500.
    """

    term = "codes"

    def __init__(self, renderer: Renderer, **options: Any) -> None:
        """``options`` are those of `Lesson`."""
        encoder = renderer.latent_token_encoder
        device = next(encoder.parameters()).device
        # The two maps before the coarsest.
        self._blocks = list(encoder.res_blocks[-3:-1])
        finder = FaceFinder(renderer.config.motion_encoder_channels[1:][-3:-1]).to(device)
        super().__init__(renderer, nn.ModuleList([encoder, finder]), **options)
        self._codes, self._finder = StateCodes(renderer.config.dim_motion).to(device), finder

    def loss(self, batch: PictureBatch, truth: Truth) -> Tensor:
        with _outputs(self._blocks) as maps:
            codes = self.renderer.encode_motion(torch.cat([batch.reference, batch.target]))
        error = self._codes.error(codes.float(), torch.cat([truth.reference_state, truth.target_state]))
        if batch.face is None:
            return error
        return error + self._finder([found[len(batch.reference) :] for found in maps], batch.face)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"finder": self._finder.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._finder.load_state_dict(state["finder"])


class RouteLesson(Lesson):
    """All that the weights of the attention depend on learns where a cell's content lies, by codes of true states."""

    term = "routing"

    def __init__(self, renderer: Renderer, **options: Any) -> None:
        """``options`` are those of `Lesson`."""
        self._levels = [level.block_efc for level in renderer.imt if isinstance(level, CrossAttentionLevel)]
        projections = [p for level in self._levels for p in (level.q_proj, level.k_proj)]
        learning = [renderer.dense_feature_encoder, renderer.adapt, renderer.latent_token_decoder, *projections]
        super().__init__(renderer, nn.ModuleList(learning), **options)
        self._codes = StateCodes(renderer.config.dim_motion).to(renderer.latent_token_decoder.const.device)

    def loss(self, batch: PictureBatch, truth: Truth) -> Tensor:
        renderer = self.renderer
        count, each = len(batch.reference), len(truth.target_state) // len(batch.reference)
        codes = self._codes(torch.cat([truth.reference_state, truth.target_state]))
        _, own = renderer.encode_identity(batch.reference)
        source = renderer.motion_maps(codes[:count], own)
        keys = [
            level.keys(to_tokens(x)).repeat_interleave(each, 0) for level, x in zip(self._levels, source, strict=True)
        ]
        driving = renderer.motion_maps(codes[count:], own.repeat_interleave(each, 0))
        places = true_places(truth, (x.shape[-1] for x in driving))
        # As many steps, as many draws: a run that goes on draws what it would have drawn.
        draw = torch.Generator().manual_seed(self.steps)
        return routing_loss(renderer.imt, driving, SourceMaps(keys, [], []), truth, places, draw, batch.face)


@contextmanager
def _outputs(modules: Iterable[nn.Module]) -> Iterator[list[Tensor]]:
    """What each module gives while the block runs, in the order in which they are called."""
    found: list[Tensor] = []
    hooks = [module.register_forward_hook(lambda *given: found.append(given[-1])) for module in modules]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()

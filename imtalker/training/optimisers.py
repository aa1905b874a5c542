"""Optimisers of the trainings: Adam as published, and Muon, which learns the same in a fraction of the steps."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from imtalker.layers.equalised import EqualConv2d, EqualLinear
from imtalker.layers.modulated import ModulatedConv2d

Kind = Literal["adam", "muon"]
Groups = list[dict[str, Any]]

# Of the quintic Newton-Schulz iteration in K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks"
# (2024): singular values end within 0.7..1.2.
_QUINTIC = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_MOMENTUM = 0.95
# Root mean square of Adam's updates, as a part of the learning rate: so both take the same rate (arXiv 2502.16982).
_ADAM_SPREAD = 0.2


class Muon(torch.optim.Optimizer):
    """Momentum whose singular values are all made about one, for groups with ``matrices``; Adam for the others.

    Weights of convolutions count as matrices [out, in * kernel]. All directions of a matrix then learn alike, however
    steep; steps are as long as Adam's.
    """

    def __init__(self, groups: Groups, learning_rate: float, betas: tuple[float, float]) -> None:
        """Groups are those of Adam, with a bool ``matrices`` each."""
        self._adam = torch.optim.Adam(groups, learning_rate, betas)
        super().__init__(self._adam.param_groups, self._adam.defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        self._adam.state = self.state
        self._adam.param_groups = [group for group in self.param_groups if not group["matrices"]]
        self._adam.step()
        for group in self.param_groups:
            for weight in group["params"] if group["matrices"] else ():
                if weight.grad is not None:
                    self._turn(weight, weight.grad, group["lr"])

    def _turn(self, weight: Tensor, gradient: Tensor, rate: float) -> None:
        state = self.state[weight]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(weight)
        momentum = state["momentum"].lerp_(gradient, 1 - _MOMENTUM)
        # Modulated convolutions keep theirs as [1, out, in, 3, 3].
        rows = weight.shape[0] if weight.ndim < 5 else weight.shape[1]
        update = gradient.lerp(momentum, _MOMENTUM).reshape(rows, -1)
        length = rate * _ADAM_SPREAD * max(update.shape) ** 0.5
        weight.sub_(orthogonal(update).to(weight.dtype).view_as(weight), alpha=length)


def orthogonal(matrix: Tensor) -> Tensor:
    """About the matrix [m, n] with the same singular vectors and all singular values one, in bfloat16."""
    x = matrix.bfloat16()
    upright = x.shape[0] > x.shape[1]
    x = x.T if upright else x
    x = x / (x.norm() + 1e-7)
    a, b, c = _QUINTIC
    for _ in range(_ITERATIONS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if upright else x


def make_optimiser(
    network: nn.Module, kind: Kind, learning_rate: float, betas: tuple[float, float], *, equalised_rate: float = 1.0
) -> torch.optim.Optimizer:
    """An optimiser of what learns in a network.

    A group's ``factor`` times the learning rate is its own: ``equalised_rate`` for layers whose weights are stored with
    unit spread and scaled at run time.
    """
    groups = rate_groups(network, equalised_rate)
    if kind == "adam":
        return torch.optim.Adam(groups, learning_rate, betas)
    return Muon(_parted(groups, network), learning_rate, betas)


def rate_groups(network: nn.Module, equalised_rate: float) -> Groups:
    """An optimiser's groups of what learns: equalised layers, at ``factor`` times the learning rate, and all else."""
    equalised = {id(p) for p in equalised_weights(network)}
    learning = [p for p in network.parameters() if p.requires_grad]
    return [
        {"params": [p for p in learning if (id(p) in equalised) == chosen], "factor": factor}
        for chosen, factor in ((False, 1.0), (True, equalised_rate))
    ]


def equalised_weights(network: nn.Module) -> list[nn.Parameter]:
    """The weights that are stored with unit spread and scaled at run time."""
    return [
        module.weight for module in network.modules() if isinstance(module, EqualLinear | EqualConv2d | ModulatedConv2d)
    ]


def _parted(groups: Groups, network: nn.Module) -> Groups:
    """Each group in two: the weights of linear layers and convolutions, and all others."""
    weights = (getattr(module, "weight", None) for module in network.modules())
    chosen = {id(weight) for weight in weights if isinstance(weight, nn.Parameter) and weight.ndim > 1}
    return [
        {**group, "params": [p for p in group["params"] if (id(p) in chosen) == matrices], "matrices": matrices}
        for group in groups
        for matrices in (False, True)
    ]

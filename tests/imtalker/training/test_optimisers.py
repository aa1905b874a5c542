"""Optimisers: Muon turns matrices evenly by steps of Adam's size, and is Adam for all else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from imtalker.layers.equalised import EqualLinear
from imtalker.layers.modulated import ModulatedConv2d
from imtalker.training.optimisers import make_optimiser, orthogonal

RATE = 1e-2
BETAS = (0.5, 0.999)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.plain = nn.Conv2d(3, 8, 3)
        self.equal = EqualLinear(24, 6)
        self.modulated = ModulatedConv2d(4, 12, 5, upsample=False)
        self.places = nn.Parameter(torch.randn(1, 9, 8))


def network() -> Network:
    torch.manual_seed(0)
    return Network()


def stepped(kind: str, steps: int = 1, **options: float) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights before and after steps along gradients that are the same for every kind."""
    one = network()
    before = {name: value.clone() for name, value in one.state_dict().items()}
    optimiser = make_optimiser(one, kind, RATE, BETAS, **options)  # type: ignore[arg-type]
    for group in optimiser.param_groups:
        group["lr"] *= group["factor"]
    draw = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for parameter in one.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=draw)
        optimiser.step()
    return before, one.state_dict()


@pytest.mark.parametrize("shape", [(16, 16), (8, 200), (200, 8)])
def test_singular_values_become_about_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    # Steep directions, flat ones, and none that is lost in bfloat16.
    matrix = left @ torch.diag(torch.logspace(0, -1.5, len(values))) @ right
    made = left.T @ orthogonal(matrix).float() @ right.T
    assert (made.diag() > 0.6).all() and (made.diag() < 1.3).all()
    assert (made - made.diag().diag()).abs().max() < 0.1


@pytest.mark.parametrize(
    ("name", "factor"),
    [("plain.weight", 1), ("equal.weight", 5), ("modulated.weight", 5), ("modulated.modulation.weight", 5)],
)
def test_steps_are_a_fifth_of_the_rate(name: str, factor: float) -> None:
    before, after = stepped("muon", equalised_rate=5.0)
    spread = (after[name] - before[name]).square().mean().sqrt().item()
    assert spread == pytest.approx(0.2 * RATE * factor, rel=0.2)


def test_a_step_has_the_gradients_direction_in_every_direction() -> None:
    """Adam's first step is the gradient's sign, number by number; Muon's is its rotation."""
    conv = nn.Conv2d(3, 8, 3, bias=False)
    before = conv.weight.detach().clone()
    optimiser = make_optimiser(conv, "muon", RATE, BETAS)
    conv.weight.grad = torch.randn(conv.weight.shape, generator=torch.Generator().manual_seed(1))
    optimiser.step()
    left, _, right = torch.linalg.svd(conv.weight.grad.flatten(1), full_matrices=False)
    moved = left.T @ (before - conv.weight).detach().flatten(1) @ right.T
    ratio = moved.diag() / moved.diag().mean()
    assert (ratio > 0.7).all() and (ratio < 1.3).all()


def test_what_is_no_matrix_learns_as_with_adam() -> None:
    (_, muon), (_, adam) = stepped("muon", 3), stepped("adam", 3)
    for name in ("plain.bias", "equal.bias", "places"):
        assert torch.equal(muon[name], adam[name])
    assert not torch.equal(muon["plain.weight"], adam["plain.weight"])

"""Constants that stand between two layers, folded into the weights of one of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

from imtalker.layers.equalised import EqualConv2d, EqualLinear

Affine = tuple[Tensor, Tensor]
"""A layer's weight and bias."""

_Kind = TypeVar("_Kind", bound=nn.Module)


def parts(modules: Iterable[nn.Module], kind: type[_Kind]) -> list[_Kind]:
    """The layers of a container, all of one kind; raises TypeError for another."""
    found = []
    for module in modules:
        if not isinstance(module, kind):
            raise TypeError(f"expected a {kind.__name__}, found a {type(module).__name__}")
        found.append(module)
    return found


def batch_norm(weight: Tensor, norm: nn.BatchNorm2d, bias: Tensor | None = None) -> Affine:
    """A convolution with the batch norm behind it: ``γ (W x + b - μ) / σ + β`` is again a convolution."""
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        raise ValueError("expected a batch norm with running statistics; this one keeps none")
    gain = norm.weight * torch.rsqrt(variance + norm.eps)
    centre = mean if bias is None else mean - bias
    return weight * gain[:, None, None, None], norm.bias - centre * gain


def layer_norm(norm: nn.LayerNorm, linear: nn.Linear) -> Affine:
    """A linear layer with the affine part of the layer norm before it: ``W (γ n + β) + b = (W γ) n + (W β + b)``."""
    return linear.weight * norm.weight, linear.weight @ norm.bias + linear.bias


def value_bias(out: nn.Linear, bias: Tensor) -> Affine:
    """An attention's output layer that also adds the value bias: the rows of a softmax sum to one."""
    return out.weight.detach(), out.weight @ bias + out.bias


def equalised(layer: EqualLinear | EqualConv2d) -> Affine:
    """The layer with its run-time scale in the weight."""
    weight = layer.weight * layer.scale
    return weight, weight.new_zeros(len(weight)) if layer.bias is None else layer.bias


def doubling(weight: Tensor) -> Tensor:
    """The 2x2 kernels that do a 3x3 convolution of a picture doubled by nearest neighbour, on the small picture.

    Two neighbours of the doubled picture are the same value, so their taps add up: on each axis an even output
    pixel sees ``[w0, w1 + w2]`` at (i - 1, i), an odd one ``[w0 + w1, w2]`` at (i, i + 1). That is 4/9 of the
    products, and the doubled picture never exists.

    [out, in, 3, 3] -> [4 out, in, 2, 2], output channels ordered (row parity, column parity, channel).
    """

    def halves(w: Tensor, axis: int) -> list[Tensor]:
        first, middle, last = w.unbind(axis)
        return [torch.stack([first, middle + last], axis), torch.stack([first + middle, last], axis)]

    return torch.cat([kernel for rows in halves(weight, 2) for kernel in halves(rows, 3)])

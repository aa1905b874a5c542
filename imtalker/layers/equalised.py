"""Layers whose stored weight has unit spread and is scaled at run time (StyleGAN2, arXiv 1912.04958)."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class EqualLinear(nn.Module):
    """``x @ (W / sqrt(in))ᵀ + b``; x [..., in] -> [..., out]."""

    def __init__(self, inputs: int, outputs: int, bias_init: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs))
        self.bias = nn.Parameter(torch.full((outputs,), bias_init))
        self.scale = 1 / math.sqrt(inputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.scale, self.bias)


class EqualConv2d(nn.Module):
    """A convolution with the weight scaled by ``1 / sqrt(in k²)``; x [B, in, H, W]."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, padding: int = 0, bias: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.scale = 1 / math.sqrt(inputs * kernel**2)
        self.stride = stride
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.scale, self.bias, self.stride, self.padding)


class BiasedLeakyReLU(nn.Module):
    """``√2 · leaky_relu(x + b, 0.2)``; x [B, C, H, W]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x + self.bias, 0.2) * math.sqrt(2)


class Blur(nn.Module):
    """A 4x4 (1,3,3,1) low pass after zero padding of ``padding`` on every side.

    ``gain`` is 4 behind an up-sampling convolution. The filter is an outer product, so it is applied one axis
    after the other as shifted sums: 8 taps instead of 16, and no one-channel convolutions, which CPUs run slowly.
    """

    kernel: Tensor

    def __init__(self, padding: int, gain: float = 1.0) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
        self.register_buffer("kernel", taps[:, None] * taps[None, :] / 64 * gain)
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, H, W] -> [B, C, H + 2 padding - 3, W + 2 padding - 3]."""
        x = F.pad(x, (self.padding,) * 4)
        rows = self.kernel.sum(1).to(x.dtype)
        columns = (self.kernel.sum(0) / self.kernel.sum()).to(x.dtype)
        height, width = x.shape[-2] - 3, x.shape[-1] - 3
        x = sum_of_shifts([x[..., i : i + height, :] for i in range(4)], rows)
        return sum_of_shifts([x[..., i : i + width] for i in range(4)], columns)

    def composed(self, weight: Tensor) -> Tensor:
        """Kernels [o, i, 3, 3] followed or preceded by this filter, as one of 6x6: [o, i, 6, 6].

        Four times the arithmetic of the 3x3, but none of the intermediate maps that training would have to keep.
        """
        size = weight.shape[-1]
        # Of each single cell of a kernel: the product with these is far quicker than a convolution of each kernel.
        cells = torch.eye(size**2, dtype=weight.dtype, device=weight.device).view(-1, 1, size, size)
        filtered = F.conv2d(cells, self.kernel.to(weight.dtype)[None, None], padding=3)
        return (weight.flatten(2) @ filtered.flatten(1)).unflatten(2, filtered.shape[2:])


def sum_of_shifts(shifts: list[Tensor], taps: Tensor) -> Tensor:
    total = shifts[0] * taps[0]
    for shift, tap in zip(shifts[1:], taps[1:], strict=True):
        total = torch.addcmul(total, shift, tap)
    return total


class LinearStack(nn.Module):
    """The tail that the encoders and the identity-adaptive module share: four hidden layers, then ``final_linear``.

    x [B, inputs] -> [B, outputs]. Subclasses register what comes before, so that key order is the published one.
    """

    DEPTH = 4

    def add_stack(self, inputs: int, hidden: int, outputs: int) -> None:
        widths = [inputs] + [hidden] * self.DEPTH
        self.linear_layers = nn.ModuleList(EqualLinear(a, b) for a, b in pairwise(widths))
        self.final_linear = EqualLinear(hidden, outputs)

    def run_stack(self, x: Tensor) -> Tensor:
        for layer in self.linear_layers:
            x = F.leaky_relu(layer(x), 0.2)
        return self.final_linear(x)

"""Style convolution: a convolution whose input channels a latent scales (StyleGAN2, arXiv 1912.04958, section 2.2)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imtalker.layers.equalised import BiasedLeakyReLU, Blur, EqualLinear


class ModulatedConv2d(nn.Module):
    """A 3x3 convolution, modulated and demodulated by a latent; optionally up-sampling by two.

    Scaling the input and demodulating the output is the same as scaling the weight for every sample, but keeps one
    kernel for the whole batch (a grouped convolution is several times slower). Demodulation commutes with the blur.
    """

    def __init__(self, inputs: int, outputs: int, dim_latent: int, *, upsample: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, outputs, inputs, 3, 3))
        if upsample:
            self.blur = Blur(padding=1, gain=4.0)
        self.modulation = EqualLinear(dim_latent, inputs, bias_init=1.0)
        self.scale = 1 / math.sqrt(inputs * 9)
        self.upsample = upsample

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        """x [B, in, H, W], latent [B, dim] -> [B, out, H, W], or [B, out, 2H, 2W] when up-sampling."""
        style = self.modulation(latent)
        weight = self.weight[0] * self.scale
        energy = F.linear(style.square(), weight.square().sum((2, 3)))
        demodulation = torch.rsqrt(energy + 1e-8)[:, :, None, None]
        x = x * style[:, :, None, None]
        if self.upsample and self.training:
            x = F.conv_transpose2d(x, self.blur.composed(weight).transpose(0, 1), stride=2, padding=2)
        elif self.upsample:
            x = self.blur(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2))
        else:
            x = F.conv2d(x, weight, padding=1)
        return x * demodulation


class NoiseStrength(nn.Module):
    """The published networks store this weight but never inject noise."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))


class StyleConv(nn.Module):
    """Modulated convolution, bias, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, dim_latent: int, *, upsample: bool = False) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(inputs, outputs, dim_latent, upsample=upsample)
        self.noise = NoiseStrength()
        self.activate = BiasedLeakyReLU(outputs)

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        return self.activate(self.conv(x, latent))

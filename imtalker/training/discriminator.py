"""The renderer's adversary: two StyleGAN2 discriminators (arXiv 1912.04958), on the picture and at half its size."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imtalker.layers.equalised import BiasedLeakyReLU, Blur, EqualConv2d, EqualLinear
from imtalker.renderer.motion import conv_layer

_WIDTHS = {512: 32, 256: 64, 128: 128, 64: 256}
_WIDEST = 512
_COARSEST = 4
_GROUP = 4


def width_at(resolution: int, widest: int) -> int:
    """Channels of a discriminator where its maps have this resolution."""
    return min(widest, _WIDTHS.get(resolution, _WIDEST))


class ResidualBlock(nn.Module):
    """Halves the resolution; the sum keeps the variance of its terms."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = conv_layer(inputs, inputs)
        self.conv2 = conv_layer(inputs, outputs, downsample=True)
        self.skip = nn.Sequential(Blur(padding=1), EqualConv2d(inputs, outputs, 1, stride=2, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return (self.conv2(self.conv1(x)) + self.skip(x)) / math.sqrt(2)


class ActivatedLinear(nn.Sequential):
    """An equalised linear layer, ``√2 · leaky_relu(0.2)`` after its bias, and a second layer to one number."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__(EqualLinear(inputs, hidden), EqualLinear(hidden, 1))

    def forward(self, x: Tensor) -> Tensor:
        first, second = self
        score: Tensor = second(F.leaky_relu(first(x), 0.2) * math.sqrt(2))
        return score


class Discriminator(nn.Module):
    """Pictures [B, 3, R, R] in 0..1 -> scores [B, 1]; R a power of two, at least 8."""

    def __init__(self, resolution: int, widest: int = _WIDEST) -> None:
        """``widest`` limits the channels, for small models. Raises ValueError for another resolution."""
        super().__init__()
        if resolution < 2 * _COARSEST or resolution & (resolution - 1):
            raise ValueError(f"resolution must be a power of two from {2 * _COARSEST} on, found {resolution}")
        width = width_at(resolution, widest)
        layers: list[nn.Module] = [
            nn.Sequential(EqualConv2d(3, width, 1, bias=False), BiasedLeakyReLU(width)),
        ]
        while resolution > _COARSEST:
            resolution //= 2
            layers.append(ResidualBlock(width, width_at(resolution, widest)))
            width = width_at(resolution, widest)
        self.convs = nn.Sequential(*layers)
        self.final_conv = conv_layer(width + 1, width)
        self.final_linear = ActivatedLinear(width * _COARSEST**2, width)

    def forward(self, pictures: Tensor) -> Tensor:
        x = with_deviation(self.convs(pictures))
        return self.final_linear(self.final_conv(x).flatten(1))


class TwoScales(nn.Module):
    """The pair, with the published parameter names. Pictures [B, 3, R, R] in 0..1 -> two scores [B, 1]."""

    def __init__(self, resolution: int = 512, widest: int = _WIDEST) -> None:
        super().__init__()
        self.scale1 = Discriminator(resolution, widest)
        self.scale2 = Discriminator(resolution // 2, widest)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        half = F.interpolate(pictures, scale_factor=0.5, mode="bilinear", align_corners=False)
        return self.scale1(pictures), self.scale2(half)


def with_deviation(x: Tensor) -> Tensor:
    """Minibatch standard deviation (arXiv 1710.10196, section 3) as one more channel; x [B, C, H, W].

    Groups have up to four pictures, taken ``B / group`` apart. Raises ValueError for a batch that doesn't split.
    """
    batch, channels, height, width = x.shape
    check_batch(batch)
    group = min(batch, _GROUP)
    apart = x.view(group, batch // group, channels, height, width)
    deviation = (apart.var(0, correction=0) + 1e-8).sqrt().mean((1, 2, 3))
    channel = deviation.repeat(group).view(batch, 1, 1, 1).expand(-1, 1, height, width)
    return torch.cat([x, channel], 1)


def check_batch(pictures: int) -> None:
    """Raises ValueError for a number of pictures that doesn't split into groups."""
    if pictures % min(pictures, _GROUP):
        raise ValueError(
            f"the batch of the discriminator must be below {_GROUP} or a multiple of it, found {pictures} pictures"
        )

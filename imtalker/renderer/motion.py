"""Motion: encoder (picture -> code), identity-adaptive module (code -> code), decoder (code -> maps)."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imtalker.config import RendererConfig
from imtalker.layers.equalised import BiasedLeakyReLU, Blur, EqualConv2d, EqualLinear, LinearStack
from imtalker.layers.modulated import StyleConv


class DownConv(nn.Sequential):
    """Blur, 3x3 convolution with stride 2, biased leaky ReLU: halves the resolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        conv = EqualConv2d(inputs, outputs, 3, stride=2, bias=False)
        super().__init__(Blur(padding=2), conv, BiasedLeakyReLU(outputs))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return cast(Tensor, super().forward(x))
        blur, conv, activate = cast(tuple[Blur, EqualConv2d, BiasedLeakyReLU], tuple(self))
        x = F.conv2d(x, blur.composed(conv.weight * conv.scale), stride=2, padding=blur.padding)
        return activate(x)


def conv_layer(inputs: int, outputs: int, *, downsample: bool = False) -> nn.Sequential:
    """An equalised 3x3 convolution and a biased leaky ReLU; blurred and with stride 2 when down-sampling."""
    if downsample:
        return DownConv(inputs, outputs)
    return nn.Sequential(EqualConv2d(inputs, outputs, 3, padding=1, bias=False), BiasedLeakyReLU(outputs))


class MotionResidualBlock(nn.Module):
    """Halves the resolution. The skip is a full activated 3x3 layer, and the sum is not scaled."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = conv_layer(inputs, inputs)
        self.conv2 = conv_layer(inputs, outputs, downsample=True)
        self.skip = conv_layer(inputs, outputs, downsample=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x)) + self.skip(x)


class MotionEncoder(LinearStack):
    def __init__(self, config: RendererConfig) -> None:
        super().__init__()
        widths = config.motion_encoder_channels
        self.conv1 = nn.Conv2d(3, widths[0], 3, padding=1)
        self.res_blocks = nn.ModuleList(MotionResidualBlock(a, b) for a, b in pairwise(widths))
        self.equalconv = EqualConv2d(widths[-1], widths[-1], 3, padding=1)
        self.add_stack(widths[-1], config.dim_hidden, config.dim_motion)

    def forward(self, image: Tensor) -> Tensor:
        """image [B, 3, R, R] in 0..1 -> motion code [B, dim_motion]."""
        x = F.leaky_relu(self.conv1(image), 0.2)
        for block in self.res_blocks:
            x = block(x)
        return self.run_stack(self.equalconv(x).mean((2, 3)))


class IdentityAdaptiveModule(LinearStack):
    """Fits a motion code to a face (section 3.2 of the paper). It replaces the code; there is no residual."""

    def __init__(self, config: RendererConfig) -> None:
        super().__init__()
        self.in_layer = EqualLinear(config.dim_motion + config.dim_identity, config.dim_hidden)
        self.add_stack(config.dim_hidden, config.dim_hidden, config.dim_motion)

    def forward(self, motion: Tensor, identity: Tensor) -> Tensor:
        """motion [B, dim_motion], identity [B or 1, dim_identity] -> [B, dim_motion]."""
        identity = identity.expand(motion.shape[0], -1)
        return self.run_stack(self.in_layer(torch.cat([motion, identity], 1)))


class MotionDecoder(nn.Module):
    """Grows a learned constant into one motion map per level, steered by an adapted motion code."""

    PER_LEVEL = 3

    def __init__(self, config: RendererConfig) -> None:
        super().__init__()
        start = config.coarsest // 2
        dim = config.dim_motion
        self.const = nn.Parameter(torch.randn(1, dim, start, start))
        width = config.channels[0]
        layers = [StyleConv(dim, width, dim)]
        for outputs in config.channels[: config.motion_levels]:
            layers.append(StyleConv(width, outputs, dim, upsample=True))
            layers += [StyleConv(outputs, outputs, dim) for _ in range(self.PER_LEVEL - 1)]
            width = outputs
        self.style_conv_layers = nn.ModuleList(layers)
        # Levels that the transfer resamples need no map, though published checkpoints store their layers.
        self.levels_used = config.attention_levels

    def forward(self, code: Tensor) -> list[Tensor]:
        """code [B, dim_motion], adapted -> motion maps of the attention levels, coarse to fine."""
        x = self.const.expand(code.shape[0], -1, -1, -1)
        maps = []
        for i, layer in enumerate(self.style_conv_layers[: 1 + self.PER_LEVEL * self.levels_used]):
            x = layer(x, code)
            if i and i % self.PER_LEVEL == 0:
                maps.append(x)
        return maps

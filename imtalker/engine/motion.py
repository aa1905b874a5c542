"""Motion: from a code to the maps of the attention levels."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imtalker.engine import fold
from imtalker.engine.attention import Linear
from imtalker.engine.convolution import Blur, TransposedConv
from imtalker.layers.equalised import EqualLinear, LinearStack
from imtalker.layers.modulated import StyleConv
from imtalker.renderer.motion import IdentityAdaptiveModule, MotionDecoder


class FoldedStack(nn.Module):
    """`LinearStack` from its hidden layer number ``skip`` on, with the scales in the weights."""

    def __init__(self, stack: LinearStack, skip: int = 0) -> None:
        super().__init__()
        layers = fold.parts(stack.linear_layers, EqualLinear)
        self.hidden = nn.ModuleList(Linear(*fold.equalised(layer)) for layer in layers[skip:])
        self.final = Linear(*fold.equalised(stack.final_linear))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.hidden:
            x = F.leaky_relu(layer(x), 0.2)
        return self.final(x)


class FoldedAdaptation(nn.Module):
    """`IdentityAdaptiveModule`. Its first layer has no activation, so it is multiplied into the second; what the
    identity adds there is made once per source.

    It runs in float64: it is tiny, and its rounding would be the largest error of the best matches.
    """

    def __init__(self, module: IdentityAdaptiveModule, dim_motion: int) -> None:
        super().__init__()
        inner, inner_bias = (t.double() for t in fold.equalised(module.in_layer))
        (second,) = fold.parts(module.linear_layers[:1], EqualLinear)
        outer, outer_bias = (t.double() for t in fold.equalised(second))
        both = outer @ inner
        self.from_motion = Linear(both[:, :dim_motion], None)
        self.from_identity = Linear(both[:, dim_motion:], outer @ inner_bias + outer_bias)
        self.stack = FoldedStack(module, skip=1).double()

    def forward(self, motion: Tensor, identity: Tensor) -> Tensor:
        """motion [B, dim_motion]; identity float64 [1, hidden] of `from_identity` -> float64 [B, dim_motion]."""
        return self.stack(F.leaky_relu(self.from_motion(motion.double()) + identity, 0.2))


class FoldedStyleConv(nn.Module):
    """`StyleConv`: input scaled, convolved with one kernel for the whole batch, demodulated, biased, activated.

    The √2 behind the leaky ReLU passes through it into demodulation and bias. Maps are channels-first here: oneDNN's
    channels-first kernels add the products of a pixel in several partial sums, its channels-last kernels in one
    long chain, with five times the rounding error. This network decides the best matches, so that matters.
    """

    weight: Tensor
    energy: Tensor
    bias: Tensor

    def __init__(self, layer: StyleConv) -> None:
        super().__init__()
        conv = layer.conv
        weight = conv.weight[0].detach() * conv.scale
        self.register_buffer("energy", weight.square().sum((2, 3)))
        self.register_buffer("bias", layer.activate.bias.detach() * math.sqrt(2))
        self.enlarge = None
        if conv.upsample:
            blur = Blur(conv.blur.kernel, len(weight), conv.blur.padding)
            self.enlarge = nn.Sequential(TransposedConv(weight.transpose(0, 1)), blur)
        else:
            self.register_buffer("weight", weight)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """x [B, in, H, W], style [B, in] -> [B, out, H', W'], channels-first."""
        demodulation = math.sqrt(2) * torch.rsqrt(F.linear(style.square(), self.energy) + 1e-8)
        x = x * style[:, :, None, None]
        if self.enlarge is None:
            y = F.conv2d(x, self.weight, padding=1)
        else:
            y = self.enlarge(x.contiguous(memory_format=torch.channels_last)).contiguous()
        return F.leaky_relu_(torch.addcmul(self.bias, y, demodulation[:, :, None, None]), 0.2)


class FoldedMotionDecoder(nn.Module):
    """`MotionDecoder`; the modulation layers of all convolutions are one product."""

    const: Tensor

    def __init__(self, decoder: MotionDecoder) -> None:
        super().__init__()
        count = 1 + decoder.PER_LEVEL * decoder.levels_used
        used = fold.parts(decoder.style_conv_layers[:count], StyleConv)
        folded = [fold.equalised(layer.conv.modulation) for layer in used]
        self.modulation = Linear(torch.cat([w for w, _ in folded]), torch.cat([b for _, b in folded]))
        self.widths = [len(b) for _, b in folded]
        self.layers = nn.ModuleList(FoldedStyleConv(layer) for layer in used)
        self.per_level = decoder.PER_LEVEL
        self.register_buffer("const", decoder.const.detach().clone())

    def forward(self, code: Tensor) -> list[Tensor]:
        """code [B, dim_motion], adapted -> maps of the attention levels, coarse to fine."""
        x = self.const
        maps = []
        for i, (layer, style) in enumerate(zip(self.layers, self.modulation(code).split(self.widths, 1), strict=True)):
            x = layer(x, style)
            if i and i % self.per_level == 0:
                maps.append(x)
        return maps

"""The two encoders, folded: pictures into feature pyramids, identities and motion codes."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from imtalker.engine import fold
from imtalker.engine.attention import Linear
from imtalker.engine.blocks import FoldedBlock
from imtalker.engine.convolution import Blur, FoldedConv
from imtalker.engine.motion import FoldedStack
from imtalker.layers.equalised import BiasedLeakyReLU, EqualConv2d
from imtalker.layers.equalised import Blur as PlainBlur
from imtalker.layers.residual import DownBlock
from imtalker.renderer.identity import IdentityEncoder
from imtalker.renderer.motion import MotionEncoder, MotionResidualBlock


class FoldedIdentityEncoder(nn.Module):
    def __init__(self, encoder: IdentityEncoder) -> None:
        super().__init__()
        (conv,) = fold.parts([encoder.initial_conv[0]], nn.Conv2d)
        (norm,) = fold.parts([encoder.initial_conv[1]], nn.BatchNorm2d)
        # A leaky ReLU of slope 0 is the ReLU of the stem.
        self.stem = FoldedConv(*fold.batch_norm(conv.weight, norm, conv.bias), padding=3, slope=0.0)
        blocks = fold.parts((encoder.down_block_0, *encoder.down_blocks), DownBlock)
        self.blocks = nn.ModuleList(FoldedBlock(block) for block in blocks)
        self.stack = FoldedStack(encoder)

    def forward(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        """image [B, 3, R, R] in 0..1 -> features coarse to fine, identity [B, dim_identity]."""
        x = self.stem(image)
        features = []
        for block in self.blocks:
            x = block(x)
            features.append(x)
        return features[::-1], self.stack(x.mean((2, 3)))


def activated(layer: nn.Sequential) -> nn.Sequential:
    """A conv layer of the motion encoder: the equalised scale, and the √2 behind its leaky ReLU, in the weights."""
    *blurs, conv, activation = layer
    (conv,) = fold.parts([conv], EqualConv2d)
    (activation,) = fold.parts([activation], BiasedLeakyReLU)
    weight = conv.weight * conv.scale * math.sqrt(2)
    bias = activation.bias.flatten() * math.sqrt(2)
    before = [Blur(blur.kernel, weight.shape[1], blur.padding) for blur in fold.parts(blurs, PlainBlur)]
    return nn.Sequential(*before, FoldedConv(weight, bias, stride=conv.stride, padding=conv.padding, slope=0.2))


class FoldedMotionBlock(nn.Module):
    """`MotionResidualBlock`."""

    def __init__(self, block: MotionResidualBlock) -> None:
        super().__init__()
        self.main = nn.Sequential(activated(block.conv1), activated(block.conv2))
        self.skip = activated(block.skip)

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x) + self.skip(x)


class FoldedMotionEncoder(nn.Module):
    def __init__(self, encoder: MotionEncoder) -> None:
        super().__init__()
        self.stem = FoldedConv(encoder.conv1.weight, encoder.conv1.bias, slope=0.2)
        self.blocks = nn.Sequential(
            *(FoldedMotionBlock(block) for block in fold.parts(encoder.res_blocks, MotionResidualBlock))
        )
        weight, bias = fold.equalised(encoder.equalconv)
        self.last = Linear(weight.flatten(1), bias)
        self.stack = FoldedStack(encoder)

    def forward(self, image: Tensor) -> Tensor:
        """image [B, 3, R, R] in 0..1 -> motion codes [B, dim_motion]."""
        x = self.blocks(self.stem(image))
        # The last convolution is averaged over the whole map. Average first: nine shifted means, then one product.
        means = F.avg_pool2d(x, x.shape[2], stride=1, padding=1)
        return self.stack(self.last(means.flatten(1)))

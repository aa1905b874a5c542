"""Batch-norm convolution blocks of the identity encoder and the synthesis network."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.01


def conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)


class BatchNorm(nn.Module):
    """A batch norm one level deeper, as the published keys have it (``norm.norm.weight``)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


class NormedConv(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv3x3(channels, channels)
        self.norm = BatchNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class FeatureResidualBlock(nn.Module):
    """``lrelu(x + BN conv lrelu BN conv x)``; the activation comes after the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = NormedConv(channels)
        self.conv2 = NormedConv(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x + self.conv2(F.leaky_relu(self.conv1(x), SLOPE)), SLOPE)


class PlainBlock(nn.Module):
    """conv, norm, activation; a second conv with neither; two residual blocks. [B, in, H, W] -> [B, out, H, W]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(inputs, outputs)
        self.norm = BatchNorm(outputs)
        self.conv2 = conv3x3(outputs, outputs)
        self.feat_res_block1 = FeatureResidualBlock(outputs)
        self.feat_res_block2 = FeatureResidualBlock(outputs)

    def before(self, x: Tensor) -> Tensor:
        """What happens to the input."""
        return x

    def between(self, x: Tensor) -> Tensor:
        """What happens between the first activation and the second convolution."""
        return x

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.norm(self.conv1(self.before(x))), SLOPE)
        x = self.conv2(self.between(x))
        return self.feat_res_block2(self.feat_res_block1(x))


class DownBlock(PlainBlock):
    """A plain block that halves the resolution by average pooling."""

    def between(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2)


class UpBlock(PlainBlock):
    """A plain block that first doubles the resolution, nearest neighbour."""

    def before(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="nearest")

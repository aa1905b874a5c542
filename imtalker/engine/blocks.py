"""Batch-norm convolution blocks with the norms folded into the convolutions."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from imtalker.engine import fold
from imtalker.engine.convolution import FoldedConv
from imtalker.layers.residual import SLOPE, DownBlock, FeatureResidualBlock, PlainBlock, UpBlock


class FoldedResidual(nn.Module):
    """`FeatureResidualBlock` as two convolutions."""

    def __init__(self, block: FeatureResidualBlock) -> None:
        super().__init__()
        first, second = block.conv1, block.conv2
        self.first = FoldedConv(*fold.batch_norm(first.conv.weight, first.norm.norm), slope=SLOPE)
        self.second = FoldedConv(*fold.batch_norm(second.conv.weight, second.norm.norm), slope=SLOPE)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x), residual=x)


class FoldedBlock(nn.Module):
    """A plain, down- or up-sampling block."""

    def __init__(self, block: PlainBlock) -> None:
        super().__init__()
        weight, bias = fold.batch_norm(block.conv1.weight, block.norm.norm)
        self.doubles = isinstance(block, UpBlock)
        self.halves = isinstance(block, DownBlock)
        if self.doubles:
            weight, bias = fold.doubling(weight), bias.repeat(4)
        self.conv1 = FoldedConv(weight, bias, slope=SLOPE)
        self.conv2 = FoldedConv(block.conv2.weight)
        self.residuals = nn.Sequential(FoldedResidual(block.feat_res_block1), FoldedResidual(block.feat_res_block2))

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] -> [B, out, H', W'], channels-last."""
        y = self.conv1(x)
        if self.doubles:
            y = interleave(y)
        if self.halves:
            y = F.avg_pool2d(y, 2)
        return self.residuals(self.conv2(y))


def interleave(parities: Tensor) -> Tensor:
    """The four parity pictures that a `fold.doubling` kernel gives with padding 1, put together.

    [B, 4 C, H + 1, W + 1] -> [B, C, 2H, 2W]; odd rows (columns) begin one row (column) later.
    """
    y = parities.permute(0, 2, 3, 1).unflatten(3, (2, 2, -1))
    batch, height, width, channels = y.shape[0], y.shape[1] - 1, y.shape[2] - 1, y.shape[5]
    out = y.new_empty(batch, height, 2, width, 2, channels)
    for row in range(2):
        for column in range(2):
            out[:, :, row, :, column] = y[:, row : row + height, column : column + width, row, column]
    return out.view(batch, 2 * height, 2 * width, channels).permute(0, 3, 1, 2)


def joined(x: Tensor, cells: Tensor) -> Tensor:
    """Channels of ``x`` followed by those of ``cells``, every cell enlarged to a block.

    x [B, C, H, W], cells [B, h, h, D] with H a multiple of h -> [B, C + D, H, W], channels-last.
    """
    batch, width, height, _ = x.shape
    side, depth = cells.shape[1], cells.shape[3]
    ratio = height // side
    out = x.new_empty(batch, side, ratio, side, ratio, width + depth)
    out[..., :width] = x.permute(0, 2, 3, 1).reshape(batch, side, ratio, side, ratio, width)
    out[..., width:] = cells[:, :, None, :, None]
    return out.view(batch, height, height, width + depth).permute(0, 3, 1, 2)

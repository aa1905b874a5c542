"""Synthesis network: aligned features, coarse to fine, into a picture."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from imtalker.engine import fold
from imtalker.engine.attention import FoldedSelfAttention
from imtalker.engine.blocks import FoldedBlock, joined
from imtalker.engine.convolution import FoldedConv
from imtalker.engine.windows import FoldedWindowPair
from imtalker.layers.attention import SelfAttentionBlock
from imtalker.layers.residual import PlainBlock
from imtalker.layers.windows import WindowBlock
from imtalker.renderer.synthesis import SynthesisNetwork, TransformerBlocks


def folded_blocks(module: TransformerBlocks, resolution: int) -> nn.Module:
    first = module.blocks[0]
    if isinstance(first, SelfAttentionBlock):
        return FoldedSelfAttention(first)
    plain, shifted = fold.parts(module.blocks, WindowBlock)
    return FoldedWindowPair(plain, shifted, resolution)


class FoldedSynthesis(nn.Module):
    """`SynthesisNetwork` on aligned features in cells."""

    def __init__(self, network: SynthesisNetwork, resolutions: tuple[int, ...]) -> None:
        super().__init__()
        self.up = nn.ModuleList(FoldedBlock(block) for block in fold.parts(network.upconv_blocks, PlainBlock))
        self.merge = nn.ModuleList(FoldedBlock(block) for block in fold.parts(network.resblocks, PlainBlock))
        self.attend = nn.ModuleList(
            folded_blocks(blocks, resolution)
            for blocks, resolution in zip(
                fold.parts(network.transformer_blocks, TransformerBlocks), resolutions[1:], strict=True
            )
        )
        (last,) = fold.parts([network.final_conv[1]], nn.Conv2d)
        self.final = FoldedConv(last.weight, last.bias)

    def forward(self, aligned: list[Tensor]) -> Tensor:
        """[B, h, h, C] each, coarse to fine -> logits of a picture, [B, R, R, 3]."""
        x = aligned[0].permute(0, 3, 1, 2)
        for up, merge, attend, cells in zip(self.up, self.merge, self.attend, aligned[1:], strict=True):
            x = attend(merge(joined(up(x), cells)))
        return shuffled(self.final(F.leaky_relu(x, 0.2)))


def shuffled(x: Tensor) -> Tensor:
    """Pixel shuffle by two with channels last: [B, 4 C, H, W] -> [B, 2H, 2W, C]."""
    y = x.permute(0, 2, 3, 1).unflatten(3, (-1, 2, 2))
    return y.permute(0, 1, 4, 2, 5, 3).reshape(len(x), 2 * x.shape[2], 2 * x.shape[3], -1)

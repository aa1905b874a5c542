"""Synthesis network: aligned features, coarse to fine, into a picture."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from imtalker.config import RendererConfig
from imtalker.layers.attention import SelfAttentionBlock
from imtalker.layers.residual import PlainBlock, UpBlock
from imtalker.layers.windows import WindowBlock


class TransformerBlocks(nn.Module):
    """Full self-attention at small resolutions, a plain and a shifted window block at large ones."""

    def __init__(self, width: int, resolution: int, config: RendererConfig) -> None:
        super().__init__()
        heads, size = config.num_heads, config.window_size
        self.blocks = nn.ModuleList(
            [SelfAttentionBlock(width, resolution, heads)]
            if resolution < config.first_windows
            else [WindowBlock(width, resolution, size, heads, shifted=shifted) for shifted in (False, True)]
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class SynthesisNetwork(nn.Module):
    def __init__(self, config: RendererConfig) -> None:
        super().__init__()
        steps = list(pairwise(config.channels))
        self.upconv_blocks = nn.ModuleList(UpBlock(a, b) for a, b in steps)
        self.resblocks = nn.ModuleList(PlainBlock(2 * b, b) for _, b in steps)
        self.transformer_blocks = nn.ModuleList(
            TransformerBlocks(width, resolution, config)
            for width, resolution in zip(config.channels[1:], config.level_resolutions[1:], strict=True)
        )
        self.final_conv = nn.Sequential(
            nn.LeakyReLU(0.2),
            nn.Conv2d(config.channels[-1], 12, 3, padding=1),
            nn.PixelShuffle(2),
            nn.Sigmoid(),
        )

    def forward(self, aligned: list[Tensor]) -> Tensor:
        """Aligned features of all levels, coarse to fine -> frames [B, 3, R, R] in 0..1."""
        x = aligned[0]
        for up, merge, attend, feature in zip(
            self.upconv_blocks, self.resblocks, self.transformer_blocks, aligned[1:], strict=True
        ):
            x = attend(merge(torch.cat([up(x), feature], 1)))
        return self.final_conv(x)

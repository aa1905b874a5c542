"""Identity encoder: a picture's feature pyramid and identity vector."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from imtalker.config import RendererConfig
from imtalker.layers.equalised import EqualConv2d, LinearStack
from imtalker.layers.residual import DownBlock


class IdentityEncoder(LinearStack):
    def __init__(self, config: RendererConfig) -> None:
        super().__init__()
        widths = config.channels[::-1]
        self.initial_conv = nn.Sequential(nn.Conv2d(3, widths[0], 7, padding=3), nn.BatchNorm2d(widths[0]), nn.ReLU())
        self.down_block_0 = DownBlock(widths[0], widths[0])
        self.down_blocks = nn.ModuleList(DownBlock(a, b) for a, b in pairwise(widths))
        # Published checkpoints store this layer; the forward pass has no use for it.
        self.equalconv = EqualConv2d(widths[-1], widths[-1], 3, padding=1)
        self.add_stack(widths[-1], config.dim_identity, config.dim_identity)

    def forward(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        """image [B, 3, R, R] in 0..1 -> features coarse to fine ([B, C, r, r] each), identity [B, dim_identity]."""
        x = self.down_block_0(self.initial_conv(image))
        features = [x]
        for block in self.down_blocks:
            x = block(x)
            features.append(x)
        return features[::-1], self.run_stack(x.mean((2, 3)))

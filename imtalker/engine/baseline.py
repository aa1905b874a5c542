"""The published order of work, kept for measurement only: float32, frame by frame, every attention map in memory.

It answers what the engine's speed is a multiple of. The networks are those of `imtalker.renderer` with the weights
they hold; only how they are computed is changed back to what the published implementation does.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from imtalker.layers.attention import MultiHeadAttention, to_map, to_tokens
from imtalker.layers.equalised import Blur
from imtalker.layers.modulated import ModulatedConv2d
from imtalker.layers.windows import WindowAttention
from imtalker.renderer.renderer import Renderer
from imtalker.renderer.transfer import CrossAttentionLevel, ResampledLevel


class _DepthwiseBlur(Blur):
    """One 4x4 convolution for each channel."""

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        return F.conv2d(F.pad(x, (self.padding,) * 4), self.kernel.expand(channels, 1, 4, 4), groups=channels)


class _GroupedModulatedConv(ModulatedConv2d):
    """A kernel for each sample, run as one grouped convolution."""

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        batch, inputs, height, width = x.shape
        style = self.modulation(latent).view(batch, 1, inputs, 1, 1)
        weight = self.scale * self.weight * style
        weight = weight * torch.rsqrt(weight.square().sum((2, 3, 4), keepdim=True) + 1e-8)
        outputs = weight.shape[1]
        x = x.reshape(1, batch * inputs, height, width)
        if self.upsample:
            kernel = weight.transpose(1, 2).reshape(batch * inputs, outputs, 3, 3)
            x = F.conv_transpose2d(x, kernel, stride=2, groups=batch)
            return self.blur(x.view(batch, outputs, *x.shape[2:]))
        x = F.conv2d(x, weight.view(batch * outputs, inputs, 3, 3), padding=1, groups=batch)
        return x.view(batch, outputs, *x.shape[2:])


class _MappedAttention(MultiHeadAttention):
    """The whole map, kept."""

    def mapped(self, query: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        q = self.split(self.q_proj(query))
        weights = ((q @ keys.transpose(2, 3)) * q.shape[-1] ** -0.5).softmax(-1)
        return self.join(weights @ values), weights

    def forward(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return self.mapped(query, keys, values)[0]


class _MappedWindowAttention(WindowAttention):
    """A map and a bias for each window."""

    def forward(self, query: Tensor, key_value: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = (
            t.unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for t in (self.q(query), self.k(key_value), self.v(key_value))
        )
        logits = (q * q.shape[-1] ** -0.5) @ k.transpose(2, 3) + self.bias()
        if mask is not None:
            logits = (logits.unflatten(0, (-1, mask.shape[0])) + mask[:, None]).flatten(0, 1)
        return self.proj((logits.softmax(-1) @ v).transpose(1, 2).flatten(2))


_PUBLISHED: dict[type, type] = {
    Blur: _DepthwiseBlur,
    ModulatedConv2d: _GroupedModulatedConv,
    MultiHeadAttention: _MappedAttention,
    WindowAttention: _MappedWindowAttention,
}


@dataclass(frozen=True)
class PublishedSource:
    """What the published implementation keeps of a source."""

    identity: Tensor
    features: list[Tensor]
    motion_maps: list[Tensor]


class PublishedRenderer(Renderer):
    """`Renderer` computed as published. Takes its weights from one, and leaves that one as it is."""

    def __init__(self, renderer: Renderer) -> None:
        super().__init__(renderer.config)
        self.load_state_dict(renderer.state_dict())
        # The same modules with the same weights and keys; only their way of computing is another.
        for module in self.modules():
            module.__class__ = _PUBLISHED.get(type(module), type(module))
        self.eval().to(next(renderer.parameters()).device)

    @torch.inference_mode()
    def source(self, image: Tensor) -> PublishedSource:
        """image [1, 3, R, R] in 0..1."""
        features, identity = self.encode_identity(image)
        return PublishedSource(identity, features, self.motion_maps(self.encode_motion(image), identity))

    @torch.inference_mode()
    def frame(self, source: PublishedSource, code: Tensor) -> tuple[Tensor, Tensor | None]:
        """code [1, dim_motion] -> frame [1, 3, R, R] in 0..1, and the resampler's choices, int64 [1, N]."""
        driving = self.motion_maps(code, source.identity)
        aligned: list[Tensor] = []
        weights: Tensor | None = None
        best: Tensor | None = None
        for i, (level, feature) in enumerate(zip(self.imt, source.features, strict=True)):
            if isinstance(level, CrossAttentionLevel):
                attention = level.block_efc
                assert isinstance(attention, _MappedAttention)  # noqa: S101  (narrows the type)
                keys = attention.keys(to_tokens(source.motion_maps[i]))
                values = attention.values(to_tokens(feature))
                tokens, weights = attention.mapped(to_tokens(driving[i]), keys, values)
                aligned.append(to_map(tokens, driving[i].shape[2]))
            elif isinstance(level, ResampledLevel) and weights is not None:
                moved, best = _gathered(feature, weights, level.ratio)
                aligned.append(moved)
        return self.frame_decoder(aligned), best


def _gathered(feature: Tensor, weights: Tensor, ratio: int) -> tuple[Tensor, Tensor]:
    """The guided resampler pixel by pixel: every fine pixel sums its r² source pixels, each with weight 1/r².

    Returns the moved feature and the choices, int64 [B, N].
    """
    batch, channels, height, width = feature.shape
    rows, columns = height // ratio, width // ratio
    value, best = weights.mean(1).topk(1, dim=-1)
    share = value.softmax(-1)[..., 0] / ratio**2
    blocks = feature.view(batch, channels, rows, ratio, columns, ratio).permute(0, 1, 2, 4, 3, 5)
    blocks = blocks.reshape(batch, channels, rows * columns, ratio**2)
    index = best[:, None, :, :].expand(-1, channels, -1, ratio**2)
    # Each of the block's r² target pixels gathers all r² source pixels of its own.
    moved = blocks[:, :, :, None, :].expand(-1, -1, -1, ratio**2, -1)
    moved = moved.gather(2, index[:, :, :, None, :].expand(-1, -1, -1, ratio**2, -1))
    pixels = (moved * share[:, None, :, None, None]).sum(-1)
    pixels = pixels.view(batch, channels, rows, columns, ratio, ratio).permute(0, 1, 2, 4, 3, 5)
    return pixels.reshape(batch, channels, height, width), best[..., 0]

"""The flow-matching transformer, which predicts the velocity of a window of motion.

IMTalker, arXiv 2511.22167, section 3.3.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from imtalker.config import GeneratorConfig

_TIME_FEATURES = 256
_MAX_PERIOD = 10000.0
_NORM_EPS = 1e-6


def time_features(t: torch.Tensor) -> torch.Tensor:
    """Times in 0..1, [B] -> float32 [B, 256]: cosines, then sines, of geometrically spaced frequencies."""
    half = _TIME_FEATURES // 2
    steps = torch.arange(half, dtype=torch.float32, device=t.device)
    angles = t.float()[:, None] * torch.exp(-math.log(_MAX_PERIOD) * steps / half)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TimeEmbedder(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(_TIME_FEATURES, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, t: torch.Tensor) -> torch.Tensor:
        """[B] -> [B, dim]."""
        return self.mlp(time_features(t).to(next(self.parameters()).dtype))


class MotionEmbedder(nn.Module):
    def __init__(self, dim_motion: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Linear(2 * dim_motion, dim)

    def forward(self, motion: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        """Motion [B, N, dim_motion] beside the reference [B, dim_motion] -> [B, N, dim]."""
        return self.proj(torch.cat([reference[:, None].expand_as(motion), motion], dim=-1))


class RotaryEmbedding(nn.Module):
    """Rotary positions (Su et al., 2021) in half-split form."""

    inv_freq: torch.Tensor

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        # Part of published checkpoints. The tables come from the formula, for casting the module to half
        # precision would round the stored frequencies and so the angles.
        self.register_buffer("inv_freq", self._frequencies(None))

    def _frequencies(self, device: torch.device | None) -> torch.Tensor:
        exponents = torch.arange(0, self.head_dim, 2, dtype=torch.float32, device=device) / self.head_dim
        return 1.0 / _MAX_PERIOD**exponents

    def forward(self, positions: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines of positions 0, 1, ...: float32 [positions, head_dim] each."""
        device = self.inv_freq.device
        steps = torch.arange(positions, dtype=torch.float32, device=device)
        angles = torch.outer(steps, self._frequencies(device)).repeat(1, 2)
        return angles.cos(), angles.sin()


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turn each pair (j, j + half) of ``x`` [..., N, head_dim] by its position's angle."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


class Attention(nn.Module):
    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        B, N, dim = x.shape
        q, k, v = self.qkv(x).view(B, N, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v)
        return self.proj(out.transpose(1, 2).reshape(B, N, dim))


class FeedForward(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


def modulated_norm(x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Layer norm whose affine part comes from the condition of each frame; all [B, N, dim]."""
    return F.layer_norm(x, x.shape[-1:], eps=_NORM_EPS) * (1 + scale) + shift


class Block(nn.Module):
    """Transformer block with adaptive layer norm (Peebles & Xie, 2023), one modulation per frame."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        dim = config.dim_h
        self.attn = Attention(dim, config.num_heads)
        self.mlp = FeedForward(dim, int(dim * config.mlp_ratio))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))

    def forward(self, x: torch.Tensor, c: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(c).chunk(6, dim=-1)
        x = x + gate1 * self.attn(modulated_norm(x, shift1, scale1), cos, sin)
        return x + gate2 * self.mlp(modulated_norm(x, shift2, scale2))


class Decoder(nn.Module):
    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(config.dim_h, 2 * config.dim_h))
        self.linear = nn.Linear(config.dim_h, config.dim_motion)

    def forward(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        shift, scale = self.adaLN_modulation(c).chunk(2, dim=-1)
        return self.linear(modulated_norm(x, shift, scale))


class FlowMatchingTransformer(nn.Module):
    """Velocity of a window of motion, given the frames before it, a reference and a condition per frame."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.x_embedder = MotionEmbedder(config.dim_motion, config.dim_h)
        self.rotary_emb = RotaryEmbedding(config.dim_h // config.num_heads)
        self.t_embedder = TimeEmbedder(config.dim_h)
        self.c_embedder = nn.Linear(config.dim_c, config.dim_h)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.fmt_depth))
        self.decoder = Decoder(config)
        self._initialise()

    def forward(
        self, t: torch.Tensor, motion: torch.Tensor, reference: torch.Tensor, condition: torch.Tensor
    ) -> torch.Tensor:
        """One evaluation: the velocity of all rows, [B, P + L, dim_motion].

        t: [1] or [B], in 0..1. motion: [B, P + L, dim_motion], previous frames first.
        reference: [B, dim_motion]. condition: [B, P + L, dim_c], the sum of the projected audio, pose, camera
        and gaze. The velocity of the previous frames carries no meaning.
        """
        cos, sin = (table.to(motion.dtype) for table in self.rotary_emb(motion.shape[1]))
        x = self.x_embedder(motion, reference)
        c = self.c_embedder(condition) + self.t_embedder(t)[:, None]
        for block in self.blocks:
            x = block(x, c, cos, sin)
        return self.decoder(x, c)

    def _initialise(self) -> None:
        """Start of training as published: every block is the identity and the velocity is zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for module in self.t_embedder.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
        for module in (*self.blocks, self.decoder):
            nn.init.zeros_(module.adaLN_modulation[1].weight)
        nn.init.zeros_(self.decoder.linear.weight)

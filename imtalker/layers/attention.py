"""Attention over all tokens of a map: the transfer's cross-attention and the synthesis network's self-attention."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Logits held at once while ranking keys: 16 Mi values are 64 MiB in float32.
_TILE_VALUES = 1 << 24


def to_tokens(x: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, H·W, C], row-major."""
    return x.flatten(2).transpose(1, 2)


def to_map(tokens: Tensor, height: int) -> Tensor:
    """[B, H·W, C] -> [B, C, H, W]."""
    return tokens.transpose(1, 2).unflatten(2, (height, -1))


class MultiHeadAttention(nn.Module):
    """Multi-head attention with four biased projections; heads split the channels head-major."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def split(self, x: Tensor) -> Tensor:
        """[B, N, C] -> [B, heads, N, C / heads]."""
        return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)

    def keys(self, x: Tensor) -> Tensor:
        return self.split(self.k_proj(x))

    def values(self, x: Tensor) -> Tensor:
        return self.split(self.v_proj(x))

    def join(self, x: Tensor) -> Tensor:
        return self.proj(x.transpose(1, 2).flatten(2))

    def forward(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """query [B, N, C]; keys, values [B or 1, heads, M, C / heads] from `keys` and `values` -> [B, N, C]."""
        q = self.split(self.q_proj(query))
        keys, values = (t.expand(q.shape[0], -1, -1, -1) for t in (keys, values))
        return self.join(F.scaled_dot_product_attention(q, keys, values))

    def ranked(self, query: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """As `forward`, and int64 [B, N]: the key with the largest attention weight, averaged over heads.

        Works through the queries in tiles, so the heads x N x M map never exists as a whole. While training, fused
        attention makes the output, so that no map has to be kept for the gradient.
        """
        if self.training:
            return self(query, keys, values), self.best(query, keys)
        outputs, best = [], []
        for weights in self._weights(query, keys):
            outputs.append(weights @ values)
            best.append(weights.sum(1).argmax(-1))
        return self.join(torch.cat(outputs, 2)), torch.cat(best, 1)

    @torch.no_grad()
    def best(self, query: Tensor, keys: Tensor) -> Tensor:
        """The second of what `ranked` gives, alone."""
        return torch.cat([weights.sum(1).argmax(-1) for weights in self._weights(query, keys)], 1)

    def _weights(self, query: Tensor, keys: Tensor) -> Iterator[Tensor]:
        """Attention weights of tiles of queries, [B, heads, n, M] each."""
        q = self.split(self.q_proj(query)) * (query.shape[-1] // self.num_heads) ** -0.5
        per_row = q.shape[0] * self.num_heads * keys.shape[2]
        for tile in q.split(max(1, _TILE_VALUES // per_row), dim=2):
            yield (tile @ keys.transpose(2, 3)).softmax(-1)


class SelfAttentionBlock(nn.Module):
    """Self-attention over the whole map, with learned positions, then an MLP. [B, C, R, R] -> [B, C, R, R].

    Positions are added to queries and keys before their norms; values share the keys' norm without positions.
    """

    def __init__(self, dim: int, resolution: int, num_heads: int) -> None:
        super().__init__()
        tokens = resolution**2
        self.q_pos_embedding = nn.Parameter(torch.randn(1, tokens, dim) * 0.02)
        self.k_pos_embedding = nn.Parameter(torch.randn(1, tokens, dim) * 0.02)
        self.norm_q = nn.LayerNorm(dim)
        self.norm_kv = nn.LayerNorm(dim)
        self.attn = MultiHeadAttention(dim, num_heads)
        self.norm_ffn = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Dropout(0.0), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        t = to_tokens(x)
        query = self.norm_q(t + self.q_pos_embedding)
        keys = self.attn.keys(self.norm_kv(t + self.k_pos_embedding))
        t = t + self.attn(query, keys, self.attn.values(self.norm_kv(t)))
        t = t + self.mlp(self.norm_ffn(t))
        return to_map(t, x.shape[2])

"""Self-attention over a whole map, with all constants folded."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from imtalker.engine import fold
from imtalker.engine.convolution import as_map, tokens
from imtalker.layers.attention import SelfAttentionBlock


class Linear(nn.Module):
    """A linear layer of folded weights. [..., in] -> [..., out]."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("weight", weight.detach().clone())
        self.register_buffer("bias", None if bias is None else bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def channels_first(self, x: Tensor) -> Tensor:
        """[N, in] -> [out, N]."""
        product = self.weight @ x.t()
        return product if self.bias is None else product.add_(self.bias[:, None])


def heads(x: Tensor, count: int) -> Tensor:
    """[B, N, C] -> [B, heads, N, C / heads]."""
    return x.unflatten(2, (count, -1)).transpose(1, 2)


class FoldedMLP(nn.Module):
    """A normalised two-layer perceptron; the norm's affine part sits in the first layer."""

    def __init__(self, norm: nn.LayerNorm, first: nn.Linear, second: nn.Linear) -> None:
        super().__init__()
        self.first = Linear(*fold.layer_norm(norm, first))
        self.second = Linear(second.weight, second.bias)
        self.eps = norm.eps

    def forward(self, t: Tensor) -> Tensor:
        return self.second(F.gelu(self.first(normalised(t, self.eps))))


def normalised(t: Tensor, eps: float) -> Tensor:
    """A layer norm without its affine part."""
    return F.layer_norm(t, t.shape[-1:], eps=eps)


class FoldedSelfAttention(nn.Module):
    """`SelfAttentionBlock`, [B, C, R, R] -> [B, C, R, R].

    The key bias adds the same number to all logits of a row, so softmax drops it; the value bias passes through
    the softmax unchanged and moves into the output bias.
    """

    query_positions: Tensor
    key_positions: Tensor

    def __init__(self, block: SelfAttentionBlock) -> None:
        super().__init__()
        attention = block.attn
        scale = (attention.q_proj.weight.shape[0] // attention.num_heads) ** -0.5
        query, query_bias = fold.layer_norm(block.norm_q, attention.q_proj)
        key, _ = fold.layer_norm(block.norm_kv, attention.k_proj)
        value, value_bias = fold.layer_norm(block.norm_kv, attention.v_proj)
        self.heads = attention.num_heads
        self.eps = block.norm_q.eps
        self.register_buffer("query_positions", block.q_pos_embedding.detach().clone())
        self.register_buffer("key_positions", block.k_pos_embedding.detach().clone())
        self.query = Linear(query * scale, query_bias * scale)
        self.key = Linear(key, None)
        self.value = Linear(value, None)
        self.out = Linear(*fold.value_bias(attention.proj, value_bias))
        self.mlp = FoldedMLP(block.norm_ffn, *fold.parts((block.mlp[0], block.mlp[3]), nn.Linear))

    def forward(self, x: Tensor) -> Tensor:
        t = tokens(x)
        q = heads(self.query(normalised(t + self.query_positions, self.eps)), self.heads)
        k = heads(self.key(normalised(t + self.key_positions, self.eps)), self.heads)
        v = heads(self.value(normalised(t, self.eps)), self.heads)
        mixed = F.scaled_dot_product_attention(q, k, v, scale=1.0)
        t = t + self.out(mixed.transpose(1, 2).flatten(2))
        return as_map(t + self.mlp(t), x.shape[2])

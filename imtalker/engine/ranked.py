"""Attention that also names every query's best key, without keeping a map."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor

_TRITON = find_spec("triton") is not None

# Queries of a tile on CPUs: few enough that its logits stay near the cores, enough that calls cost little.
_ROWS = 128
# Logits of a tile where no row count is set: 16 MiB, and 256 MiB on GPUs.
_TILE_VALUES, _GPU_TILE_VALUES = 1 << 22, 1 << 26
# The shortest vectors that Triton multiplies as matrices.
_SMALLEST_DOT = 16
# exp() of logits up to this size either way is an ordinary float32 number, and so are sums of many thousand.
_SAFE_EXPONENT = 75.0


def centred(keys: Tensor) -> Tensor:
    """Keys minus their mean: that adds the same number to all logits of a query, which a softmax ignores.

    keys [B, heads, M, D]. Logits get smaller, and so does their rounding error.
    """
    return keys - keys.mean(2, keepdim=True)


def ranked_attention(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax attention, and for every query the key with the largest weight averaged over heads.

    The choice is discontinuous in the logits, so all of it is done in float32.

    q float32 [B, heads, N, D], already scaled; k, v float32 [1, heads, M, D]
    -> float32 [B, heads, N, D], int64 [B, N].
    """
    if q.is_cuda:
        kernel = _gpu_kernel(q)
        return any_logits(q, k, v) if kernel is None else kernel(q, k, v)
    # Looking at the logits' size is nothing that a compiler can follow.
    return any_logits(q, k, v) if torch.compiler.is_compiling() else _in_cache(q, k, v)


def _gpu_kernel(q: Tensor) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]] | None:
    """The Triton kernel, if it is installed, the GPU is Ampere or later, and heads have a size that it takes."""
    depth = q.shape[3]
    if not _TRITON or torch.cuda.get_device_capability(q.device) < (8, 0):
        return None
    if depth < _SMALLEST_DOT or depth & (depth - 1):
        return None
    from imtalker.engine.ranked_triton import ranked_kernel

    return ranked_kernel


def _in_cache(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """`ranked_attention` frame by frame, on CPUs."""
    longest_key = k[0].norm(dim=2).amax(1)
    parts = []
    for item in q.split(1):
        # No logit is larger than the product of the norms (Cauchy-Schwarz).
        bound = float((item[0].norm(dim=2).amax(1) * longest_key).amax())
        parts.append((small_logits if bound < _SAFE_EXPONENT else any_logits)(item, k, v))
    outputs, choices = zip(*parts, strict=True)
    return torch.cat(outputs), torch.cat(choices)


def any_logits(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """`ranked_attention` for logits of any size."""
    keys = k.transpose(2, 3)
    outputs, choices = [], []
    per_row = q.shape[0] * q.shape[1] * k.shape[2]
    for rows in q.split(max(1, (_GPU_TILE_VALUES if q.is_cuda else _TILE_VALUES) // per_row), 2):
        weights = torch.matmul(rows, keys).softmax(-1)
        outputs.append(torch.matmul(weights, v))
        choices.append(weights.sum(1).max(-1).indices)
    return torch.cat(outputs, 2), torch.cat(choices, 1)


def small_logits(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """`ranked_attention` of one frame, for logits that exp() can take as they are.

    That spares the passes for the row maximum and for the division: the sums divide the results instead.
    """
    _, heads, count, _ = q.shape
    keys, values = k[0].transpose(1, 2), v[0]
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    best = q.new_empty(1, count, dtype=torch.int64)
    buffer, total = q.new_empty(heads, _ROWS, k.shape[2]), q.new_empty(_ROWS, k.shape[2])
    for start in range(0, count, _ROWS):
        tile = slice(start, start + _ROWS)
        rows = q[0, :, tile]
        weights = torch.bmm(rows, keys, out=buffer[:, : rows.shape[1]])
        torch.exp(weights, out=weights)
        share = weights.sum(-1, keepdim=True).reciprocal_()
        torch.mul(torch.bmm(weights, values), share, out=out[0, :, tile])
        # The average over heads is one product per query: its heads' shares times its weights.
        average = total[: rows.shape[1], None]
        torch.bmm(share.permute(1, 2, 0).contiguous(), weights.transpose(0, 1), out=average)
        best[0, tile] = average[:, 0].max(-1).indices
    return out, best

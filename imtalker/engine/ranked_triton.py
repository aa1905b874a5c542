"""The GPU kernels of the ranked attention. Importing this needs Triton."""

# Triton comes with torch for GPUs only, and its kernels have no types.
# mypy: disable-error-code="import-not-found, import-untyped, no-untyped-def, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_QUERIES = 64
_KEYS = 64


@triton.jit
def _attend(
    q_at, k_at, v_at, out_at, largest_at, share_at,
    count, keys,
    heads: tl.constexpr, depth: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr,
):  # fmt: skip
    """One head of one tile of queries: softmax attention with running maxima.

    Also stored for `_rank`: each query's largest logit and one over the sum of its weights. (The logarithm of the sum
    in one number would lose bits that decide close matches.)
    """
    start, head, item = tl.program_id(0) * rows, tl.program_id(1), tl.program_id(2)
    row = start + tl.arange(0, rows)
    dim = tl.arange(0, depth)
    inside = row < count
    at_query = ((item * heads + head) * count + row[:, None]) * depth + dim[None, :]
    q = tl.load(q_at + at_query, mask=inside[:, None], other=0.0)
    largest = tl.full([rows], float("-inf"), tl.float32)
    total = tl.zeros([rows], tl.float32)
    mixed = tl.zeros([rows, depth], tl.float32)
    for first in range(0, keys, columns):
        column = first + tl.arange(0, columns)
        real = column < keys
        at_key = (head * keys + column[:, None]) * depth + dim[None, :]
        k = tl.load(k_at + at_key, mask=real[:, None], other=0.0)
        v = tl.load(v_at + at_key, mask=real[:, None], other=0.0)
        logits = tl.dot(q, tl.trans(k), input_precision="ieee")
        logits = tl.where(real[None, :], logits, float("-inf"))
        above = tl.maximum(largest, tl.max(logits, 1))
        weights = tl.exp(logits - above[:, None])
        shrink = tl.exp(largest - above)
        total = total * shrink + tl.sum(weights, 1)
        mixed = mixed * shrink[:, None] + tl.dot(weights, v, input_precision="ieee")
        largest = above
    tl.store(out_at + at_query, mixed / total[:, None], mask=inside[:, None])
    at_row = (item * heads + head) * count + row
    tl.store(largest_at + at_row, largest, mask=inside)
    tl.store(share_at + at_row, 1.0 / total, mask=inside)


@triton.jit
def _rank(
    q_at, k_at, largest_at, share_at, best_at,
    count, keys,
    heads: tl.constexpr, depth: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr,
):  # fmt: skip
    """One tile of queries: the first key with the largest weight summed over heads."""
    start, item = tl.program_id(0) * rows, tl.program_id(1)
    row = start + tl.arange(0, rows)
    dim = tl.arange(0, depth)
    inside = row < count
    most = tl.full([rows], -1.0, tl.float32)
    best = tl.zeros([rows], tl.int32)
    for first in range(0, keys, columns):
        column = first + tl.arange(0, columns)
        real = column < keys
        weights = tl.zeros([rows, columns], tl.float32)
        for head in tl.static_range(heads):
            at_query = ((item * heads + head) * count + row[:, None]) * depth + dim[None, :]
            at_key = (head * keys + column[:, None]) * depth + dim[None, :]
            q = tl.load(q_at + at_query, mask=inside[:, None], other=0.0)
            k = tl.load(k_at + at_key, mask=real[:, None], other=0.0)
            at_row = (item * heads + head) * count + row
            above = tl.load(largest_at + at_row, mask=inside, other=0.0)
            share = tl.load(share_at + at_row, mask=inside, other=0.0)
            logits = tl.dot(q, tl.trans(k), input_precision="ieee")
            weights += tl.exp(logits - above[:, None]) * share[:, None]
        weights = tl.where(real[None, :], weights, -1.0)
        top = tl.max(weights, 1)
        where = first + tl.argmax(weights, 1, tie_break_left=True)
        best = tl.where(top > most, where, best)
        most = tl.maximum(most, top)
    tl.store(best_at + item * count + row, best, mask=inside)


def ranked_kernel(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """`imtalker.engine.ranked.ranked_attention` in two launches; D is a power of two from 16 on.

    The weights are computed twice, in registers: the head average needs the sums of all heads first, and keeping
    the weights would cost more memory traffic than computing them again.
    """
    batch, heads, count, depth = q.shape
    keys = k.shape[2]
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    out = torch.empty_like(q)
    largest, share = q.new_empty(2, batch, heads, count)
    best = torch.empty(batch, count, dtype=torch.int32, device=q.device)
    tiles = triton.cdiv(count, _QUERIES)
    shape = {"heads": heads, "depth": depth, "rows": _QUERIES, "columns": _KEYS}
    _attend[(tiles, heads, batch)](q, k, v, out, largest, share, count, keys, **shape)
    _rank[(tiles, batch)](q, k, largest, share, best, count, keys, **shape)
    return out, best.long()

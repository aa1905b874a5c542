"""What the engine keeps of a source picture."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class SourceTables:
    """The source's side of the motion transfer."""

    keys: list[Tensor]
    """Of every attention level, [1, heads, N, C / heads]; float32 where a best match is chosen."""
    values: list[Tensor]
    """The same of the source's features."""
    pooled: list[Tensor]
    """Block means of the finer levels' features, [N, C] with N the cells of the last attention level: with one
    match a cell, the published weighting of a block is its plain mean."""


@dataclass(frozen=True)
class PreparedSource:
    """All source-side work of the engine for one picture."""

    picture: Tensor
    """float32 [3, R, R] in 0..1, kept for frames that have to be redone in float32."""
    motion: Tensor
    """The source's own motion code, float32 [1, dim_motion]."""
    identity: Tensor
    """What the identity adds to the identity-adaptive module, float64 [1, dim_hidden]."""
    tables: SourceTables

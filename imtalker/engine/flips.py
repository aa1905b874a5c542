"""How often the engine's best matches differ from the renderer's."""

from __future__ import annotations

import torch
from torch import Tensor

from imtalker.engine import fold
from imtalker.engine.engine import RenderEngine
from imtalker.renderer.renderer import Renderer
from imtalker.renderer.transfer import CrossAttentionLevel


def best_matches(renderer: Renderer, source: Tensor, motion: Tensor) -> Tensor:
    """The plain renderer's choices, int64 [T, N]. source float32 [3, R, R], motion float32 [T, dim_motion]."""
    last = renderer.config.attention_levels - 1
    (level,) = fold.parts([renderer.imt[last]], CrossAttentionLevel)
    attention = level.block_efc
    with torch.inference_mode():
        prepared = renderer.prepare(source[None])
        keys, values = prepared.maps.keys[last], prepared.maps.values[last]
        queries = (renderer.motion_maps(code[None], prepared.identity)[last] for code in motion)
        return torch.cat([attention.ranked(q.flatten(2).transpose(1, 2), keys, values)[1] for q in queries])


def count_flips(renderer: Renderer, engine: RenderEngine, source: Tensor, motion: Tensor) -> tuple[int, int]:
    """(choices that differ, choices in all) of a source float32 [3, R, R] and motion codes float32 [T, dim_motion].

    A flip moves one cell's fine features to another place of the source; two keys of all but equal weight flip by
    rounding alone.
    """
    expected = best_matches(renderer, source, motion)
    actual = engine.best_matches(engine.prepare(source), motion).to(expected.device)
    return int((expected != actual).sum()), expected.numel()

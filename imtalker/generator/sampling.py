"""Sampling: noise, classifier-free guidance, and windows one after another."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from imtalker.generator.conditions import Conditions
from imtalker.generator.solver import euler
from imtalker.generator.transformer import FlowMatchingTransformer


def draw_noise(seeds: Sequence[int], windows: int, frames: int, width: int) -> torch.Tensor:
    """Standard normal float32 [windows, B, frames, width] on the CPU, one row per seed.

    Each row has its own stream with one draw per window, so neighbours, the device and the number of windows
    never change it.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return torch.stack(
        [torch.stack([torch.randn(frames, width, generator=g) for g in generators]) for _ in range(windows)]
    )


def guided_velocity(
    transformer: FlowMatchingTransformer,
    t: torch.Tensor,
    motion: torch.Tensor,
    reference: torch.Tensor,
    condition: torch.Tensor,
    null: torch.Tensor,
    scale: float,
) -> torch.Tensor:
    """Classifier-free guidance (Ho & Salimans, 2022): ``v_null + scale * (v - v_null)``.

    t: [1]. motion: [B, P + L, dim_motion]. reference: [B, dim_motion]. condition and null: [B, P + L, dim_c],
    with and without the audio. Returns all rows, [B, P + L, dim_motion]. A scale of 1 is one plain evaluation,
    any other a batch of twice the size.
    """
    if scale == 1:
        return transformer(t, motion, reference, condition)
    both = transformer(t, motion.repeat(2, 1, 1), reference.repeat(2, 1), torch.cat([null, condition]))
    v_null, v = both.chunk(2)
    return v_null + scale * (v - v_null)


def sample_windows(
    transformer: FlowMatchingTransformer,
    noise: torch.Tensor,
    reference: torch.Tensor,
    conditions: Conditions,
    *,
    context: int,
    scale: float,
    nfe: int,
    join_frames: int = 0,
) -> torch.Tensor:
    """Noise [windows, B, L, dim_motion] -> motion [B, windows * L, dim_motion] (IMTalker, section 3.3).

    conditions: up to ``windows * L`` frames; the last one is repeated to the end. Each window sees the
    ``context`` frames of motion and conditions before it; before the first there are zeros. ``join_frames``: see
    `joined`.
    """
    windows, B, L, width = noise.shape
    condition = timeline(conditions.total(), context, windows * L)
    silent = timeline(conditions.without_audio(), context, windows * L)
    motion = noise.new_zeros(B, context + windows * L, width)
    for index in range(windows):
        rows = slice(index * L, index * L + context + L)
        previous = motion[:, rows][:, :context]
        window = _sample_window(
            transformer,
            noise[index],
            previous,
            reference,
            condition[:, rows],
            # Guidance drops the audio of the window itself, not of its context (published implementation).
            torch.cat([condition[:, rows][:, :context], silent[:, rows][:, context:]], dim=1),
            scale,
            nfe,
        )
        motion[:, rows][:, context:] = joined(window, previous, join_frames) if index else window
    return motion[:, context:]


def joined(window: torch.Tensor, previous: torch.Tensor, frames: int) -> torch.Tensor:
    """``window`` [..., L, D] with its first ``frames`` shifted so that it goes on from ``previous`` [..., P, D].

    The first frame comes one step behind the last of ``previous``, the mean of the steps on both sides; the shift fades
    out along a cosine. Not in the published sampler (0 frames), whose windows may begin with a jump.
    """
    if not frames:
        return window
    step = (previous[..., -1, :] - previous[..., -2, :] + window[..., 1, :] - window[..., 0, :]) / 2
    shift = previous[..., -1, :] + step - window[..., 0, :]
    times = torch.arange(frames, dtype=window.dtype, device=window.device)
    fading = (1 + torch.cos(math.pi / frames * times)) / 2
    return torch.cat([window[..., :frames, :] + fading[:, None] * shift[..., None, :], window[..., frames:, :]], dim=-2)


def _sample_window(
    transformer: FlowMatchingTransformer,
    noise: torch.Tensor,
    previous: torch.Tensor,
    reference: torch.Tensor,
    condition: torch.Tensor,
    null: torch.Tensor,
    scale: float,
    nfe: int,
) -> torch.Tensor:
    def velocity(t: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        motion = torch.cat([previous, state], dim=1)
        v = guided_velocity(transformer, t[None], motion, reference, condition, null, scale)
        return v[:, previous.shape[1] :]

    return euler(velocity, noise, nfe)


def timeline(sequence: torch.Tensor, before: int, frames: int) -> torch.Tensor:
    """[B, n, C] -> [B, before + frames, C]: zeros, the sequence, then its last row again and again."""
    B, n, C = sequence.shape
    return torch.cat([sequence.new_zeros(B, before, C), sequence, sequence[:, -1:].expand(B, frames - n, C)], dim=1)

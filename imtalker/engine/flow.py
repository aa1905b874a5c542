"""A window of flow matching with everything taken out of the solver's steps that does not depend on the state."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from imtalker.generator.transformer import Block, FlowMatchingTransformer, modulated_norm

_LOG = logging.getLogger(__name__)

_MODULATION_BYTES = 1 << 28
"""Modulations kept at a time: those of all steps for a few rows, of one step for many."""

Modulations = list[Tensor]
"""Of every block, and of the decoder: [rows, frames, 6 or 2 times dim]."""


class WindowFlow:
    """Solves one window for a batch of rows (IMTalker, section 3.3; the same numbers as the plain sampler's).

    The modulations of the adaptive layer norms depend on time and conditions, never on the state: they are products
    of many steps at once. Without pose, camera and gaze the null half has a single condition; and its context always
    has that of the guided half. The state is embedded once for both halves; what reference and context add to the
    embedding is made once a window.
    """

    def __init__(self, transformer: FlowMatchingTransformer) -> None:
        self._net = transformer
        self._blocks = [block for block in transformer.blocks if isinstance(block, Block)]
        self._graphs: dict[tuple[object, ...], Callable[..., Tensor]] = {}

    def __call__(
        self,
        noise: Tensor,
        previous: Tensor,
        condition: Tensor,
        null: Tensor | None,
        reference: Tensor,
        scale: Tensor | None,
        nfe: int,
    ) -> Tensor:
        """Noise [B, L, dim_motion] -> motion of the same shape; see `sample_windows` for what happens around it.

        previous: [B, P, dim_motion]. condition: [B, P + L, dim_c]. null: the same without audio, or None where that is
        zeros throughout; not looked at without guidance. reference: [B, dim_motion]. scale: of the guidance, [B], or
        None for none. nfe: points of the time grid.
        """
        if noise.device.type != "cuda":
            return self._solve(noise, previous, condition, null, reference, scale, nfe)
        arguments = (noise, previous, condition, null, reference, scale)
        key = (nfe, *(None if t is None else tuple(t.shape) for t in arguments))
        if key not in self._graphs:
            self._graphs[key] = graphed(partial(self._solve, nfe=nfe), arguments)
        return self._graphs[key](*arguments)

    def _solve(
        self,
        noise: Tensor,
        previous: Tensor,
        condition: Tensor,
        null: Tensor | None,
        reference: Tensor,
        scale: Tensor | None,
        nfe: int,
    ) -> Tensor:
        times = torch.linspace(0, 1, nfe, dtype=noise.dtype, device=noise.device)
        embedding = self._net.x_embedder.proj
        from_reference, from_motion = embedding.weight.split(noise.shape[2], dim=1)
        fixed = F.linear(reference, from_reference, embedding.bias)[:, None]
        context = F.linear(previous, from_motion) + fixed
        past = previous.shape[1]
        state = noise
        at_once = self._steps_at_once(noise, condition)
        for starts, widths in zip(times[:-1].split(at_once), times.diff().split(at_once), strict=True):
            tables = self._modulations(starts, condition, null, past, guided=scale is not None)
            for modulations, width in zip(tables, widths, strict=True):
                x = torch.cat([context, F.linear(state, from_motion) + fixed], dim=1)
                velocity = self._velocity(x if scale is None else x.repeat(2, 1, 1), modulations, past)
                if scale is not None:
                    v_null, v = velocity.chunk(2)
                    velocity = v_null + scale[:, None, None] * (v - v_null)
                state = state + width * velocity
        return state

    def _steps_at_once(self, noise: Tensor, condition: Tensor) -> int:
        width = sum(_linear(layer).out_features for layer in self._layers)
        rows = condition.shape[0] * (condition.shape[1] + noise.shape[1])
        return max(1, _MODULATION_BYTES // (rows * width * noise.element_size()))

    @property
    def _layers(self) -> list[torch.nn.Module]:
        return [*(block.adaLN_modulation for block in self._blocks), self._net.decoder.adaLN_modulation]

    def _modulations(
        self, times: Tensor, condition: Tensor, null: Tensor | None, past: int, *, guided: bool
    ) -> list[Modulations]:
        """For each time [S], the modulations of all rows, the null half first."""
        at_time = self._net.t_embedder(times)[:, None, None]
        with_audio = F.silu(self._net.c_embedder(condition) + at_time)
        absent = condition.new_zeros(1, 1, condition.shape[2]) if null is None else null[:, past:]
        without = F.silu(self._net.c_embedder(absent) + at_time)
        tables = []
        for layer in self._layers:
            linear = _linear(layer)
            table = linear(with_audio)
            if guided:
                # The context keeps its audio in both halves.
                now = linear(without).expand(-1, len(condition), table.shape[2] - past, -1)
                table = torch.cat([torch.cat([table[:, :, :past], now], dim=2), table], dim=1)
            tables.append(table)
        return [list(step) for step in zip(*tables, strict=True)]

    def _velocity(self, x: Tensor, modulations: Modulations, past: int) -> Tensor:
        """Embedded rows [B, P + L, dim] -> velocity of the current ones, [B, L, dim_motion]."""
        cos, sin = (table.to(x.dtype) for table in self._net.rotary_emb(x.shape[1]))
        *of_blocks, of_decoder = modulations
        for block, table in zip(self._blocks, of_blocks, strict=True):
            shift1, scale1, gate1, shift2, scale2, gate2 = table.chunk(6, dim=-1)
            x = x + gate1 * block.attn(modulated_norm(x, shift1, scale1), cos, sin)
            x = x + gate2 * block.mlp(modulated_norm(x, shift2, scale2))
        shift, scale = of_decoder[:, past:].chunk(2, dim=-1)
        linear: Tensor = self._net.decoder.linear(modulated_norm(x[:, past:], shift, scale))
        return linear


def _linear(modulation: torch.nn.Module) -> torch.nn.Linear:
    """The linear layer behind the SiLU of a modulation."""
    assert isinstance(modulation, torch.nn.Sequential) and isinstance(modulation[1], torch.nn.Linear)  # noqa: S101
    return modulation[1]


def graphed(work: Callable[..., Tensor], example: tuple[Tensor | None, ...]) -> Callable[..., Tensor]:
    """``work`` as a CUDA graph for inputs of the example's shapes; ``work`` itself where capturing fails.

    A window is a thousand small kernels; launched one by one they leave the GPU idle.
    """
    inputs = [None if t is None else t.clone() for t in example]
    try:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            # Libraries allocate their workspaces at the first call, which may not happen inside a capture.
            work(*inputs)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = work(*inputs)
    except RuntimeError as exc:
        _LOG.warning("sampling motion without a CUDA graph, which failed: %s", str(exc).splitlines()[0])
        return work

    def replay(*arguments: Tensor | None) -> Tensor:
        for kept, given in zip(inputs, arguments, strict=True):
            if kept is not None and given is not None:
                kept.copy_(given)
        graph.replay()
        return output.clone()

    return replay

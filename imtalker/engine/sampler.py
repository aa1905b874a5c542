"""Motion for many items at once: their windows in step, as many in a batch as there are rows."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from imtalker.engine.call_size import CallSize
from imtalker.engine.flow import WindowFlow
from imtalker.engine.precision import exact_float32
from imtalker.generator.generator import MotionGenerator
from imtalker.generator.sampling import draw_noise, joined, timeline


@dataclass(frozen=True)
class MotionItem:
    """What `MotionGenerator.sample_from_features` takes, for one item."""

    features: Tensor
    """[T, 768], T >= 1."""
    reference: Tensor
    """[dim_motion]"""
    seed: int
    cfg_scale: float = 3.0
    nfe: int = 10
    pose: Tensor | None = None
    """[T', 3], as camera; gaze [T', 2]."""
    camera: Tensor | None = None
    gaze: Tensor | None = None

    @property
    def steered(self) -> bool:
        return not (self.pose is None and self.camera is None and self.gaze is None)


class MotionSampler:
    """`MotionGenerator.sample_from_features` for items of any lengths, ``rows`` windows in every network call.

    A window needs nothing but the frames before it, so a row takes the next item as soon as its own is done. Every
    call has the same shape, rows without an item repeating another's, so an item's motion does not depend on who
    shares the batch, nor on its row. Items that take other steps (``nfe``), no guidance, or pose, camera or gaze are
    batched among themselves. Always computed in float32. Where the device's memory does not suffice, calls get fewer
    rows for good (`shrunk`).
    """

    def __init__(self, generator: MotionGenerator, *, device: str | torch.device, rows: int) -> None:
        """Raises ValueError for fewer than one row."""
        self.device = torch.device(device)
        self._call_size = CallSize(rows)
        self._generator = generator.eval()
        self._flow = WindowFlow(generator.fmt)

    @property
    def shrunk(self) -> bool:
        """Whether the device had too little memory for as many rows as wished."""
        return self._call_size.shrunk

    def sample(self, items: Sequence[MotionItem]) -> list[Tensor]:
        """Motion float32 [T, dim_motion] of every item, on the device, in their order.

        Raises ValueError for shapes and settings that don't fit, before anything is computed.
        """
        with torch.inference_mode(), exact_float32(self.device):
            tracks = [_Track(item, self._generator) for item in items]
            batches: dict[tuple[int, bool, bool], list[_Track]] = {}
            for track in tracks:
                item = track.item
                batches.setdefault((item.nfe, item.cfg_scale != 1, item.steered), []).append(track)
            for (nfe, guided, steered), group in batches.items():
                self._run(group, nfe, guided, steered)
            return [track.result() for track in tracks]

    def _run(self, tracks: list[_Track], nfe: int, guided: bool, steered: bool) -> None:
        # The longest first: the batch then stays full for as long as it can.
        waiting = deque(sorted(tracks, key=lambda track: -track.windows))
        active: list[_Track] = []

        def step(rows: int) -> Tensor:
            while len(active) > rows:
                waiting.appendleft(active.pop())
            while waiting and len(active) < rows:
                active.append(waiting.popleft())
            filled = active + [active[-1]] * (rows - len(active))
            noise, previous, condition, null, reference, scale = (
                torch.stack(parts) for parts in zip(*(track.window() for track in filled), strict=True)
            )
            return self._flow(
                noise,
                previous,
                condition,
                null if steered else None,
                reference,
                scale if guided else None,
                nfe,
            )

        while waiting or active:
            for track, motion in zip(active, self._call_size.run(step), strict=False):
                track.append(motion)
            active[:] = [track for track in active if track.left]


class _Track:
    """An item on its way through its windows."""

    def __init__(self, item: MotionItem, generator: MotionGenerator) -> None:
        config = generator.config
        self.item = item
        self._context, self._length, self._join = config.num_prev_frames, config.window, config.join_frames
        if item.reference.shape != (config.dim_motion,):
            raise ValueError(f"reference must have the shape [{config.dim_motion}], found {list(item.reference.shape)}")
        if item.nfe < 1:
            raise ValueError(f"nfe counts the points of the time grid and must be at least 1, found {item.nfe}")
        found = generator.conditions(item.features[None], pose=item.pose, camera=item.camera, gaze=item.gaze)
        self._frames = found.audio.shape[1]
        self.windows = -(-self._frames // self._length)
        total = self.windows * self._length
        self._condition = timeline(found.total(), self._context, total)[0]
        self._silent = timeline(found.without_audio(), self._context, total)[0]
        like = self._condition
        self._reference = item.reference.to(like)
        self._scale = like.new_tensor(item.cfg_scale)
        if not torch.isfinite(self._scale):
            raise ValueError(f"cfg_scale must be finite, found {item.cfg_scale}")
        self._noise = draw_noise([item.seed], self.windows, self._length, config.dim_motion)[:, 0].to(like)
        self._motion = like.new_zeros(self._context + total, config.dim_motion)
        self._done = 0

    @property
    def left(self) -> int:
        return self.windows - self._done

    def window(self) -> tuple[Tensor, ...]:
        """Noise, previous motion, conditions with and without audio, reference and guidance scale of the next one."""
        start = self._done * self._length
        rows = slice(start, start + self._context + self._length)
        return (
            self._noise[self._done],
            self._motion[start : start + self._context],
            self._condition[rows],
            self._silent[rows],
            self._reference,
            self._scale,
        )

    def append(self, motion: Tensor) -> None:
        start = self._context + self._done * self._length
        if self._done:
            motion = joined(motion, self._motion[start - self._context : start], self._join)
        self._motion[start : start + self._length] = motion
        self._done += 1

    def result(self) -> Tensor:
        return self._motion[self._context :][: self._frames]

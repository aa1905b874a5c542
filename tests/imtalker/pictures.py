"""The input pictures of the golden vectors, rebuilt from integers alone."""

from __future__ import annotations

import numpy as np
import torch

from imtalker.seeded import raw_stream


def _noise_plane(label: str, seed: int, size: int, cells: int) -> np.ndarray:
    """Bilinear interpolation of a random byte grid, times the squared cell size."""
    cell = size // cells
    grid = (raw_stream(label, (cells + 1) ** 2, seed) >> np.uint64(56)).astype(np.int64)
    grid = grid.reshape(cells + 1, cells + 1)
    at, part = np.divmod(np.arange(size), cell)
    rows = grid[at] * (cell - part)[:, None] + grid[at + 1] * part[:, None]
    return rows[:, at] * (cell - part) + rows[:, at + 1] * part


def seeded_picture(label: str, seed: int, size: int = 512) -> torch.Tensor:
    """float32 [1, 3, size, size] in 0..1; ``size`` is a multiple of 32."""
    channels = []
    for channel in range(3):
        tone = raw_stream(f"{label}/{channel}/tone", 2, seed) >> np.uint64(57)
        offset, contrast = int(tone[0]), int(tone[1])
        total = np.zeros((size, size), dtype=np.int64)
        for cells, weight in ((4, 8), (8, 4), (16, 2), (32, 1)):
            plane = _noise_plane(f"{label}/{channel}/{cells}", seed, size, cells)
            total += weight * plane // (size // cells) ** 2
        channels.append(np.clip((total // 15 - 128) * (64 + contrast) // 64 + 64 + offset, 0, 255))
    return torch.from_numpy(np.stack(channels).astype(np.float32) / 255)[None]

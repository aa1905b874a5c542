"""Several processes that train one network: each works on its part of every batch, and gradients are averaged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.distributed as distributed
from torch import Tensor, nn

_BUCKET = 1 << 23
"""Numbers that travel together: 32 MB in float32."""


@dataclass(frozen=True)
class Share:
    """This process among those of a torch process group. Alone, every method returns at once."""

    rank: int = 0
    size: int = 1

    @classmethod
    def of_group(cls) -> Share:
        """The share of this process in torch's default process group, which must be set up."""
        return cls(distributed.get_rank(), distributed.get_world_size())

    @property
    def first(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def parts(self, count: int) -> list[int]:
        """Which of the ``count * size`` equal parts of a batch are worked on here, ``count`` of them in turn."""
        return [turn * self.size + self.rank for turn in range(count)]

    def rows(self, everyones: Tensor) -> Tensor:
        """This process's rows of what was drawn for all, [size * n, ...] -> [n, ...]."""
        return everyones.chunk(self.size)[self.rank]

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by their means over all processes, in place. All give the same shapes in the same order."""
        if self.size == 1:
            return
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
            distributed.all_reduce(flat)
            flat /= self.size
            parts = flat.split([tensor.numel() for tensor in bucket])
            for tensor, part in zip(bucket, parts, strict=True):
                tensor.copy_(part.view_as(tensor))

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace the gradients of those parameters that have one by their means over all processes."""
        self.average(p.grad for p in parameters if p.grad is not None)

    def average_buffers(self, network: nn.Module) -> None:
        """Replace a network's running statistics by their means over all processes."""
        self.average(buffer for buffer in network.buffers() if buffer.is_floating_point())

    def means(self, values: dict[str, float], device: torch.device | str) -> dict[str, float]:
        """Means over all processes of numbers with the same names."""
        if self.size == 1:
            return values
        numbers = torch.tensor(list(values.values()), dtype=torch.float32, device=device)
        self.average([numbers])
        return dict(zip(values, numbers.tolist(), strict=True))

    def any(self, said: bool, device: torch.device | str) -> bool:
        """Whether any process says so."""
        return self.means({"said": float(said)}, device)["said"] > 0

    def wait(self) -> None:
        """Until all processes have come here."""
        if self.size > 1:
            distributed.barrier()


ALONE = Share()


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours of one type, together up to the size of a bucket; a larger tensor has one of its own."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        full = sum(kept.numel() for kept in bucket) + tensor.numel() > _BUCKET
        if bucket and (full or bucket[0].dtype != tensor.dtype):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket

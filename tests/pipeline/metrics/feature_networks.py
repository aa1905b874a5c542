"""Weights for the networks of FID and FVD that anyone can rebuild, and files of them."""

from __future__ import annotations

from math import prod
from pathlib import Path

import torch
from torch import Tensor, nn

from imtalker.seeded import unit_noise


def seeded(network: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """A state of ``network`` under which what it makes of pictures stays of order one."""
    made = {}
    for name, value in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        noise = torch.from_numpy(unit_noise(name, value.numel(), seed)).float().view(value.shape)
        if value.dim() > 1:
            # As He et al. (2015) begin a network of ReLUs.
            made[name] = noise * (2 / prod(value.shape[1:])) ** 0.5
        elif name.endswith("running_var"):
            made[name] = torch.exp2(0.3 * noise)
        else:
            made[name] = 0.1 * noise + name.endswith("bn.weight")
    return made


def write_weights(path: Path, network: nn.Module) -> Path:
    """A file as the published ones are: a plain dict of tensors."""
    torch.save(seeded(network), path)
    return path

"""The network of FID: Inception v3 as TensorFlow published it in 2015; its weights are the user's.

Szegedy et al., "Rethinking the Inception architecture for computer vision" (2016), in the form that FID is defined by
(Heusel et al., 2017): the graph ``inception-2015-12-05``, whose port to torch is public as
``pt_inception-2015-12-05-6726825d.pth``. It is not torchvision's Inception v3, which has 1000 classes and other
weights: here averages leave the padding out, and the last block pools by the maximum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.metrics.network_file import filled
from pipeline.weights.tensors import read_tensors

SIDE = 299
"""Of a picture, in pixels."""
FEATURES = 2048
CLASSES = 1008

Size = tuple[int, int]
Chain = Sequence[tuple[int, Size]]
"""Convolutions one after the other: how many channels each makes, and its height and width."""
Pool = Literal["average", "largest", "halve"]

_1X1, _3X3, _5X5, _1X3, _3X1, _1X7, _7X1 = (1, 1), (3, 3), (5, 5), (1, 3), (3, 1), (1, 7), (7, 1)


class FidInception(nn.Module):
    """Names of weights are those of the public file; ``fc`` is there to tell it from files of other networks."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Convolution(3, 32, _3X3, stride=2, padded=False)
        self.Conv2d_2a_3x3 = _Convolution(32, 32, _3X3, padded=False)
        self.Conv2d_2b_3x3 = _Convolution(32, 64, _3X3)
        self.Conv2d_3b_1x1 = _Convolution(64, 80, _1X1)
        self.Conv2d_4a_3x3 = _Convolution(80, 192, _3X3, padded=False)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _fine(192, 32), _fine(256, 64), _fine(288, 64)
        self.Mixed_6a = _Mixed(
            288, {"branch3x3": [(384, _3X3)], "branch3x3dbl": [(64, _1X1), (96, _3X3), (96, _3X3)]}, "halve"
        )
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = map(_middle, (128, 160, 160, 192))
        self.Mixed_7a = _Mixed(
            768,
            {
                "branch3x3": [(192, _1X1), (320, _3X3)],
                "branch7x7x3": [(192, _1X1), (192, _1X7), (192, _7X1), (192, _3X3)],
            },
            "halve",
        )
        self.Mixed_7b, self.Mixed_7c = _coarse(1280, "average"), _coarse(2048, "largest")
        self.fc = nn.Linear(FEATURES, CLASSES)

    def forward(self, pictures: Tensor) -> Tensor:
        """RGB in 0..1, [n, 3, H, W] of any size -> features [n, 2048]."""
        # The published protocol: no antialiasing.
        x = 2 * F.interpolate(pictures, (SIDE, SIDE), mode="bilinear", align_corners=False) - 1
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = F.max_pool2d(x, 3, 2)
        x = F.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), 3, 2)
        for name, block in self.named_children():
            if name.startswith("Mixed_"):
                x = block(x)
        return x.mean((2, 3))


def load_inception(path: Path) -> FidInception:
    """On the CPU, in evaluation mode. Raises CannotRun for a file that holds something else."""
    what = "FID's Inception v3 (pt_inception-2015-12-05-*.pth)"
    return filled(FidInception(), read_tensors(path), path, what)


class _Convolution(nn.Module):
    """Convolution, norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, size: Size, stride: int = 1, padded: bool = True) -> None:
        super().__init__()
        padding = (size[0] // 2, size[1] // 2) if padded else (0, 0)
        self.conv = nn.Conv2d(inputs, outputs, size, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class _Mixed(nn.Module):
    """Chains of convolutions beside a pooling; what they make is stacked in the order in which they are named.

    Layers are called ``<chain>_1``, ``<chain>_2``, ...; that of a chain of one is called as the chain.
    """

    def __init__(
        self, inputs: int, chains: Mapping[str, Chain], pool: Pool, pooled: int = 0, forked: Sequence[str] = ()
    ) -> None:
        """``pooled``: channels of a convolution behind the pooling, 0: there is none.

        ``forked``: chains that end in two more layers side by side, ``_<n>a`` of 1 x 3 and ``_<n>b`` of 3 x 1. With
        ``pool="halve"`` each chain's last layer halves the picture, as the pooling does.
        """
        super().__init__()
        self._pool: Pool = pool
        self._chains: list[tuple[list[str], list[str]]] = []
        for chain, layers in chains.items():
            names, ends, before = [], [], inputs
            for number, (outputs, size) in enumerate(layers, start=1):
                alone = len(layers) == 1 and chain not in forked
                names.append(chain if alone else f"{chain}_{number}")
                halves = pool == "halve" and number == len(layers)
                self.add_module(names[-1], _Convolution(before, outputs, size, 1 + halves, padded=not halves))
                before = outputs
            if chain in forked:
                ends = [f"{chain}_{len(layers) + 1}{letter}" for letter in "ab"]
                for name, size in zip(ends, (_1X3, _3X1), strict=True):
                    self.add_module(name, _Convolution(before, before, size))
            self._chains.append((names, ends))
        self.branch_pool = _Convolution(inputs, pooled, _1X1) if pooled else None

    def forward(self, x: Tensor) -> Tensor:
        found = []
        for names, ends in self._chains:
            y = x
            for name in names:
                y = self.get_submodule(name)(y)
            found += [self.get_submodule(name)(y) for name in ends] or [y]
        pooled = pooled_by(x, self._pool)
        found.append(pooled if self.branch_pool is None else self.branch_pool(pooled))
        return torch.cat(found, 1)


def pooled_by(x: Tensor, pool: Pool) -> Tensor:
    """The largest or the mean of windows of 3 x 3: [n, C, H, W] in, of the same size out but with ``halve``."""
    if pool == "halve":
        return F.max_pool2d(x, 3, 2)
    if pool == "largest":
        return F.max_pool2d(x, 3, 1, 1)
    # TensorFlow's: the padding doesn't count.
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def _fine(inputs: int, pooled: int) -> _Mixed:
    """A block at 35 x 35."""
    chains = {
        "branch1x1": [(64, _1X1)],
        "branch5x5": [(48, _1X1), (64, _5X5)],
        "branch3x3dbl": [(64, _1X1), (96, _3X3), (96, _3X3)],
    }
    return _Mixed(inputs, chains, "average", pooled)


def _middle(narrow: int) -> _Mixed:
    """A block at 17 x 17."""
    chains = {
        "branch1x1": [(192, _1X1)],
        "branch7x7": [(narrow, _1X1), (narrow, _1X7), (192, _7X1)],
        "branch7x7dbl": [(narrow, _1X1), (narrow, _7X1), (narrow, _1X7), (narrow, _7X1), (192, _1X7)],
    }
    return _Mixed(768, chains, "average", 192)


def _coarse(inputs: int, pool: Pool) -> _Mixed:
    """A block at 8 x 8."""
    chains = {
        "branch1x1": [(320, _1X1)],
        "branch3x3": [(384, _1X1)],
        "branch3x3dbl": [(448, _1X1), (384, _3X3)],
    }
    return _Mixed(inputs, chains, pool, 192, forked=("branch3x3", "branch3x3dbl"))

"""The network of FVD: I3D on RGB, trained on Kinetics-400; its weights are the user's.

Carreira and Zisserman, "Quo vadis, action recognition? A new model and the Kinetics dataset" (2017): an Inception v1
whose convolutions reach into time, in the port to torch that is public as ``rgb_imagenet.pt``. Programs for FVD pass
files with the same names on as ``i3d_pretrained_400.pt``, and some of them add 1e-5 to the norms' variances
where the authors' network, and this one, add 1e-3.
"""

from __future__ import annotations

from math import ceil
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.metrics.network_file import filled
from pipeline.weights.tensors import read_tensors

SIDE = 224
"""Of a picture, in pixels."""
FEATURES = 400
"""Classes, whose logits are the features."""

Shape = tuple[int, int, int]
"""Time, height, width."""
Widths = tuple[int, int, int, int, int, int]
"""Channels of a block's convolutions: b0; b1a, b1b; b2a, b2b; b3b."""

_POOLS: dict[str, tuple[Shape, Shape]] = {
    "Conv3d_2b_1x1": ((1, 3, 3), (1, 2, 2)),
    "Mixed_3b": ((1, 3, 3), (1, 2, 2)),
    "Mixed_4b": ((3, 3, 3), (2, 2, 2)),
    "Mixed_5b": ((2, 2, 2), (2, 2, 2)),
}
"""Before which layer the clip is pooled: the window and its step."""

_MIXED: dict[str, Widths] = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}

_LAST_WINDOW: Shape = (2, 7, 7)


class I3d(nn.Module):
    """Names of weights are those of the public files."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = _Unit(3, 64, (7, 7, 7), (2, 2, 2))
        self.Conv3d_2b_1x1 = _Unit(64, 64, (1, 1, 1))
        self.Conv3d_2c_3x3 = _Unit(64, 192, (3, 3, 3))
        inputs = 192
        for name, widths in _MIXED.items():
            self.add_module(name, _Mixed(inputs, widths))
            inputs = widths[0] + widths[2] + widths[4] + widths[5]
        self.logits = nn.Module()
        self.logits.conv3d = nn.Conv3d(inputs, FEATURES, 1)

    def forward(self, clips: Tensor) -> Tensor:
        """RGB in 0..1, [n, 3, T, H, W] of any size, 9 frames at least -> logits averaged over time, [n, 400]."""
        pictures = 2 * clips.transpose(1, 2).flatten(0, 1) - 1
        pictures = F.interpolate(pictures, (SIDE, SIDE), mode="bilinear", align_corners=False)
        x = pictures.unflatten(0, (len(clips), -1)).transpose(1, 2)
        for name, layer in self.named_children():
            if name in _POOLS:
                x = _largest(x, *_POOLS[name])
            if name != "logits":
                x = layer(x)
        x = F.avg_pool3d(x, _LAST_WINDOW, 1)
        return cast(Tensor, cast(nn.Module, self.logits.conv3d)(x).mean((2, 3, 4)))


def load_i3d(path: Path) -> I3d:
    """On the CPU, in evaluation mode. Raises CannotRun for a file that holds something else."""
    what = "I3D on RGB with the 400 classes of Kinetics (rgb_imagenet.pt, i3d_pretrained_400.pt)"
    return filled(I3d(), read_tensors(path), path, what)


def same_padding(size: tuple[int, ...], window: Shape, step: Shape) -> list[int]:
    """TensorFlow's SAME for the last three axes of ``size``, as `F.pad` takes it: what is odd goes behind."""
    sides: list[int] = []
    for length, reach, stride in zip(reversed(size[-3:]), reversed(window), reversed(step), strict=True):
        total = max((ceil(length / stride) - 1) * stride + reach - length, 0)
        sides += [total // 2, total - total // 2]
    return sides


class _Unit(nn.Module):
    """Convolution, norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, window: Shape, step: Shape = (1, 1, 1)) -> None:
        super().__init__()
        self._window, self._step = window, step
        self.conv3d = nn.Conv3d(inputs, outputs, window, step, bias=False)
        self.bn = nn.BatchNorm3d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, same_padding(tuple(x.shape), self._window, self._step))
        return F.relu(self.bn(self.conv3d(x)))


class _Mixed(nn.Module):
    """Three chains of convolutions beside a pooling."""

    def __init__(self, inputs: int, widths: Widths) -> None:
        super().__init__()
        b0, b1a, b1b, b2a, b2b, b3b = widths
        point, cube = (1, 1, 1), (3, 3, 3)
        self.b0 = _Unit(inputs, b0, point)
        self.b1a, self.b1b = _Unit(inputs, b1a, point), _Unit(b1a, b1b, cube)
        self.b2a, self.b2b = _Unit(inputs, b2a, point), _Unit(b2a, b2b, cube)
        self.b3b = _Unit(inputs, b3b, point)

    def forward(self, x: Tensor) -> Tensor:
        pooled = _largest(x, (3, 3, 3), (1, 1, 1))
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled)], 1)


def _largest(x: Tensor, window: Shape, step: Shape) -> Tensor:
    """Padded by zeros, which change nothing: everything here is behind a ReLU."""
    return F.max_pool3d(F.pad(x, same_padding(tuple(x.shape), window, step)), window, step)

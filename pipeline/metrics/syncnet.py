"""SyncNet, the network behind LSE-C and LSE-D; its weights are the user's.

Chung and Zisserman, "Out of time: automated lip sync in the wild" (2016), in the form whose weights their authors
publish (``syncnet_v2.model``): one embedding of five lip pictures, one of the 0.2 s of sound beside them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from pipeline.metrics.network_file import ANY, filled
from pipeline.weights.tensors import read_tensors

FRAMES = 5
"""Pictures in a window."""
SIDE = 224
"""Of a picture, in pixels."""
SOUND_STEPS = 20
"""Columns of `pipeline.metrics.mfcc` in a window."""


class SyncNet(nn.Module):
    """Both halves. Names of weights are those of the published file."""

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_convolution(nn.Conv2d, 1, 64, 3, padding=1),
            nn.MaxPool2d(1),
            *_convolution(nn.Conv2d, 64, 192, 3, padding=1),
            nn.MaxPool2d(3, (1, 2)),
            *_convolution(nn.Conv2d, 192, 384, 3, padding=1),
            *_convolution(nn.Conv2d, 384, 256, 3, padding=1),
            *_convolution(nn.Conv2d, 256, 256, 3, padding=1),
            nn.MaxPool2d(3, 2),
            *_convolution(nn.Conv2d, 256, 512, (5, 4)),
        )
        self.netfcaud = _head()
        self.netcnnlip = nn.Sequential(
            *_convolution(nn.Conv3d, 3, 96, (FRAMES, 7, 7), stride=(1, 2, 2)),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_convolution(nn.Conv3d, 96, 256, (1, 5, 5), stride=(1, 2, 2), padding=(0, 1, 1)),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            *_convolution(nn.Conv3d, 256, 256, (1, 3, 3), padding=(0, 1, 1)),
            *_convolution(nn.Conv3d, 256, 256, (1, 3, 3), padding=(0, 1, 1)),
            *_convolution(nn.Conv3d, 256, 256, (1, 3, 3), padding=(0, 1, 1)),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_convolution(nn.Conv3d, 256, 512, (1, 6, 6)),
        )
        self.netfclip = _head()

    def hear(self, sound: Tensor) -> Tensor:
        """Cepstra [n, 1, 13, 20] -> embeddings [n, 1024]."""
        return cast(Tensor, self.netfcaud(self.netcnnaud(sound).flatten(1)))

    def see(self, pictures: Tensor) -> Tensor:
        """BGR in 0..255, [n, 3, 5, 224, 224] -> embeddings [n, 1024]."""
        return cast(Tensor, self.netfclip(self.netcnnlip(pictures).flatten(1)))


def load_syncnet(path: Path) -> SyncNet:
    """On the CPU, in evaluation mode. Raises CannotRun for a file that holds something else."""
    return filled(SyncNet(), read_tensors(path), path, "SyncNet as published (syncnet_v2.model)", unused=ANY)


def _convolution(
    kind: type[nn.Conv2d] | type[nn.Conv3d], inputs: int, outputs: int, size: Any, **how: Any
) -> list[nn.Module]:
    norm = nn.BatchNorm2d if kind is nn.Conv2d else nn.BatchNorm3d
    return [kind(inputs, outputs, size, **how), norm(outputs), nn.ReLU(inplace=True)]


def _head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 1024))

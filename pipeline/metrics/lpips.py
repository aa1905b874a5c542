"""LPIPS: how different two pictures look, by a network's features; its weights are the user's.

Zhang et al., "The unreasonable effectiveness of deep features as a perceptual metric" (2018, section 3), version 0.1 on
AlexNet: torchvision's weights of the network, and the authors' weights of its features (``alex.pth``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from pipeline.inputs.fetch import file_sha256
from pipeline.metrics.catalogue import Values
from pipeline.metrics.network_file import filled
from pipeline.weights.tensors import read_tensors

CHANNELS = (64, 192, 384, 256, 256)
"""Of the five features."""
_ENDS = (0, 2, 5, 8, 10, 12)
"""Where in AlexNet's layers each feature ends: behind a ReLU."""
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Mean and deviation of ImageNet's pictures in -1..1, as the authors round them."""
_EPSILON = 1e-10


class AlexNet(nn.Module):
    """The convolutions of torchvision's AlexNet; names of weights are those of its file."""

    def __init__(self) -> None:
        super().__init__()
        one, two, three, four, five = CHANNELS
        self.features = nn.Sequential(
            nn.Conv2d(3, one, 11, stride=4, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(one, two, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(two, three, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(three, four, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(four, five, 3, padding=1),
            nn.ReLU(),
        )

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """[n, 3, H, W], standardised -> the five features, [n, `CHANNELS`, h, w]."""
        found = []
        for begin, end in pairwise(_ENDS):
            pictures = self.features[begin:end](pictures)
            found.append(pictures)
        return found


class Heads(nn.Module):
    """A weight for each channel of each feature; names are those of the authors' file."""

    def __init__(self, channels: tuple[int, ...] = CHANNELS) -> None:
        super().__init__()
        for index, width in enumerate(channels):
            head = nn.Module()
            # The authors' files have a layer of dropout before it.
            head.model = nn.Sequential(nn.Identity(), nn.Conv2d(width, 1, 1, bias=False))
            self.add_module(f"lin{index}", head)

    def forward(self, differences: list[Tensor]) -> Tensor:
        """[n, C, h, w] each -> the sum of their weighted means over places, [n]."""
        heads = [cast(nn.Module, head.model) for head in self.children()]
        return torch.stack([head(one).mean((1, 2, 3)) for head, one in zip(heads, differences, strict=True)]).sum(0)


class Lpips(nn.Module):
    """``backbone`` gives features of standardised pictures, ``heads`` weigh their squared differences."""

    shift: Tensor
    scale: Tensor

    def __init__(self, backbone: nn.Module, heads: nn.Module) -> None:
        super().__init__()
        self.backbone, self.heads = backbone, heads
        self.register_buffer("shift", torch.tensor(_SHIFT)[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE)[:, None, None], persistent=False)

    def forward(self, pictures: Tensor, truth: Tensor) -> Tensor:
        """RGB in 0..1, both [n, 3, H, W] -> distances [n], 0 for equal pictures."""
        ours, theirs = (self.backbone((2 * x - 1 - self.shift) / self.scale) for x in (pictures, truth))
        apart = [(_unit(a) - _unit(b)).square() for a, b in zip(ours, theirs, strict=True)]
        return cast(Tensor, self.heads(apart))


@dataclass(frozen=True)
class PerceptionExpert:
    """LPIPS: ``distance`` takes two of RGB in 0..1, [n, 3, H, W], and gives [n]."""

    distance: Callable[[Tensor, Tensor], Tensor]
    device: torch.device
    sha256: Values
    """Of both files of weights, by the names of their columns."""


@cache
def perception_expert(backbone: str, heads: str, device: str) -> PerceptionExpert:
    """LPIPS with the weights at both paths; one in a process. Raises CannotRun for other files."""
    network = Lpips(load_alexnet(Path(backbone)), load_heads(Path(heads))).to(device)
    hashes = {"lpips_backbone_sha256": file_sha256(Path(backbone)), "lpips_sha256": file_sha256(Path(heads))}
    return PerceptionExpert(network, torch.device(device), hashes)


def load_alexnet(path: Path) -> AlexNet:
    """On the CPU. Raises CannotRun for a file that holds something else."""
    what = "torchvision's AlexNet (alexnet-owt-*.pth)"
    return filled(AlexNet(), read_tensors(path), path, what, unused=("classifier.",))


def load_heads(path: Path) -> Heads:
    """On the CPU. Raises CannotRun for a file that holds something else."""
    return filled(Heads(), read_tensors(path), path, "LPIPS's weights of AlexNet's features (v0.1/alex.pth)")


def _unit(features: Tensor) -> Tensor:
    """Of length 1 at every place."""
    return features / (features.square().sum(1, keepdim=True).sqrt() + _EPSILON)

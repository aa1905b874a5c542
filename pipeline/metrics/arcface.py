"""The network of ArcFace, which CSIM compares faces with; its weights are the user's.

Deng et al., "ArcFace: additive angular margin loss" (2019): a ResNet of improved blocks (norm, convolution,
norm, PReLU, convolution, norm) whose first convolution keeps the picture's size, in the form in which insightface's
``arcface_torch`` publishes weights (``backbone.pth``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from torch import Tensor, nn

from pipeline.errors import CannotRun
from pipeline.metrics.network_file import filled
from pipeline.weights.tensors import read_tensors

SIDE = 112
"""Of a picture, in pixels."""
EMBEDDING = 512

Depths = tuple[int, int, int, int]

BLOCKS: dict[Depths, str] = {
    (2, 2, 2, 2): "r18",
    (3, 4, 6, 3): "r34",
    (3, 4, 14, 3): "r50",
    (3, 13, 30, 3): "r100",
}
"""Published sizes, by their blocks at each of four scales."""

_WIDTHS = (64, 128, 256, 512)


class IResNet(nn.Module):
    """Names of weights are those of the published files."""

    def __init__(self, depths: Depths) -> None:
        """``depths``: blocks at each scale."""
        super().__init__()
        self.conv1 = _convolution(3, 64, 3)
        self.bn1 = nn.BatchNorm2d(64)
        self.prelu = nn.PReLU(64)
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            _scale(inputs, outputs, depth)
            for inputs, outputs, depth in zip((64, *_WIDTHS), _WIDTHS, depths, strict=False)
        )
        self.bn2 = nn.BatchNorm2d(512)
        self.fc = nn.Linear(512 * (SIDE // 16) ** 2, EMBEDDING)
        self.features = nn.BatchNorm1d(EMBEDDING)

    def forward(self, pictures: Tensor) -> Tensor:
        """RGB in -1..1, [n, 3, 112, 112] -> embeddings [n, 512]; only their direction means anything."""
        x = self.prelu(self.bn1(self.conv1(pictures)))
        for scale in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = scale(x)
        return cast(Tensor, self.features(self.fc(self.bn2(x).flatten(1))))


def load_arcface(path: Path) -> IResNet:
    """On the CPU, in evaluation mode, of the size that the file has. Raises CannotRun for other files."""
    found = read_tensors(path)
    what = f"ArcFace's iResNet ({', '.join(BLOCKS.values())}) as arcface_torch publishes it (backbone.pth)"
    depths = _depths(found)
    if depths not in BLOCKS:
        raise CannotRun(f"{path} doesn't hold {what}: its layer1 to layer4 have {depths} blocks")
    return filled(IResNet(depths), found, path, what)


def _depths(names: Mapping[str, Tensor]) -> Depths:
    """How many blocks a file has at each scale."""
    places = {(int(match[1]), int(match[2])) for name in names if (match := re.match(r"layer([1-4])\.(\d+)\.", name))}
    one, two, three, four = (sum(scale == at for scale, _ in places) for at in (1, 2, 3, 4))
    return one, two, three, four


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = _convolution(inputs, outputs, 3)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.prelu = nn.PReLU(outputs)
        self.conv2 = _convolution(outputs, outputs, 3, stride)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1:
            self.downsample = nn.Sequential(_convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        return cast(Tensor, self.bn3(self.conv2(inner)) + self.downsample(x))


def _scale(inputs: int, outputs: int, depth: int) -> nn.Sequential:
    """Blocks of which the first halves the picture."""
    return nn.Sequential(_Block(inputs, outputs, 2), *(_Block(outputs, outputs, 1) for _ in range(depth - 1)))


def _convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)

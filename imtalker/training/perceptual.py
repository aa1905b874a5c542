"""Losses that compare pictures by more than their pixels."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imtalker.training.pyramid import pyramid

_WIDTHS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512)
"""VGG-19 (arXiv 1409.1556) up to ReLU 5_1: widths of its convolutions, 0 for a pooling layer."""
_ENDS = (2, 7, 12, 21, 30)
"""Where its five slices end, in layers of torchvision's ``features``: behind ReLU 1_1, 2_1, 3_1, 4_1, 5_1."""
VGG_RESOLUTION = 128
"""The smallest pictures whose pyramid `VGG19` can look at."""

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class VGG19(nn.Module):
    """The first layers of VGG-19, frozen, with torchvision's parameter names (``features.0.weight``, ...)."""

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for width in _WIDTHS:
            if width:
                layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
                inputs = width
            else:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.register_buffer("mean", torch.tensor(_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(_DEVIATION).view(3, 1, 1), persistent=False)
        self.requires_grad_(False)

    @classmethod
    def load(cls, path: Path) -> VGG19:
        """From a file with torchvision's state dict (``vgg19-*.pth``); layers that are not used may be in it.

        Raises ValueError when a layer is missing or misshapen.
        """
        network = cls()
        state = torch.load(path, map_location="cpu", weights_only=True)
        wanted = {key: tensor.shape for key, tensor in network.state_dict().items()}
        wrong = [key for key, shape in wanted.items() if key not in state or state[key].shape != shape]
        if wrong:
            raise ValueError(f"{path} is no VGG-19 of torchvision: {wrong[0]} is missing or has another shape")
        network.load_state_dict({key: state[key] for key in wanted})
        return network

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """Pictures [B, 3, H, W] -> maps behind the five slices.

        As published, pictures are clamped to -1..1 and mapped by ``x / 2 + 1 / 2``, although theirs are in 0..1.
        """
        x = (pictures.clamp(-1, 1) / 2 + 0.5 - self.mean) / self.deviation
        maps = []
        for index, layer in enumerate(self.features, 1):
            x = layer(x)
            if index in _ENDS:
                maps.append(x)
        return maps


class PerceptualLoss(nn.Module):
    """Distance of features on a pyramid, of the whole picture and inside a mask (published implementation)."""

    def __init__(self, network: nn.Module) -> None:
        """``network`` turns pictures [B, 3, H, W] into maps [B, C, h, w]: `VGG19`, or `Structure` without weights."""
        super().__init__()
        self.network = network

    def forward(self, predicted: Tensor, real: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """predicted and real [B, 3, H, W] in 0..1; mask [B, 1, H, W], 0 or more, may be empty or None.

        Returns (whole, masked): sums over scales and maps of the mean absolute difference, and of
        ``Σ |Δ| mask / Σ mask``, which grows with the number of channels. ``real`` gets no gradient.
        """
        whole, masked = predicted.new_zeros(()), predicted.new_zeros(())
        for small, truth in zip(pyramid(predicted), pyramid(real.detach()), strict=True):
            with torch.no_grad():
                targets = self.network(truth)
            shrunk = None if mask is None else F.interpolate(mask, small.shape[-2:])
            for found, wanted in zip(self.network(small), targets, strict=True):
                difference = (found - wanted).abs()
                whole = whole + difference.mean()
                if shrunk is not None:
                    weight = F.interpolate(shrunk, difference.shape[-2:])
                    total = weight.sum()
                    # Without a branch, which would wait for a GPU: an empty mask has nothing to weigh.
                    masked = masked + (difference * weight).sum() / total.clamp(min=1e-6)
        return whole, masked


class Structure(nn.Module):
    """Maps that need no weights: colours, their gradients, and their local contrast.

    They stand in for `VGG19` where its weights can't be had: edges and texture are compared, meaning is not.
    """

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """Pictures [B, 3, H, W] -> three maps of the same size, [B, 3 or 6, H, W]."""
        across = F.pad(pictures.diff(dim=3), (0, 1))
        down = F.pad(pictures.diff(dim=2), (0, 0, 0, 1))
        mean = F.avg_pool2d(pictures, 3, 1, 1, count_include_pad=False)
        variance = F.avg_pool2d((pictures - mean).square(), 3, 1, 1, count_include_pad=False)
        return [pictures, torch.cat([across, down], 1), (pictures - mean) / (variance + 1e-3).sqrt()]

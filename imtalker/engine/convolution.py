"""A convolution with everything around it: bias, residual, leaky ReLU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def tokens(x: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, H·W, C], row-major; a view when ``x`` is channels-last."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def as_map(rows: Tensor, height: int) -> Tensor:
    """[B, H·W, C] -> [B, C, H, W], a channels-last view."""
    return rows.unflatten(1, (height, -1)).permute(0, 3, 1, 2)


class FoldedConv(nn.Module):
    """``leaky_relu(conv(x) + bias + residual, slope)``; ``slope`` None leaves the activation out.

    On CPUs with oneDNN, `pack` puts the weight into the blocked layout that the library computes with (else it is
    re-ordered at every call) and lets it apply bias, residual and activation while the result is in cache. These
    are the operators that ``torch.compile`` itself emits for CPUs.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        stride: int = 1,
        padding: int = 1,
        slope: float | None = None,
    ) -> None:
        super().__init__()
        weight = weight.detach().clone(memory_format=torch.channels_last)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", None if bias is None else bias.detach().clone())
        self.stride = [stride] * 2
        self.padding = [padding] * 2
        self.slope = slope
        self._packed = False

    def pack(self) -> None:
        """Re-order the weight for oneDNN; afterwards the module can't be moved or converted."""
        self.weight = self._reordered()
        self._packed = True

    def _reordered(self) -> Tensor:
        return torch.ops.mkldnn._reorder_convolution_weight(self.weight, self.padding, self.stride, [1, 1], 1, None)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """x [B, in, H, W]; residual [B, out, H', W'] -> [B, out, H', W']."""
        if self._packed:
            return self._packed_forward(x, residual)
        y = F.conv2d(x, self.weight, self.bias, self.stride, self.padding)
        if residual is not None:
            y = y + residual
        return y if self.slope is None else F.leaky_relu(y, self.slope)

    def _packed_forward(self, x: Tensor, residual: Tensor | None) -> Tensor:
        shape = self.padding, self.stride, [1, 1], 1
        operator = torch.ops.mkldnn._convolution_pointwise
        if residual is None:
            unary = ("none", [], "") if self.slope is None else ("leaky_relu", [self.slope], "")
            return operator(x, self.weight, self.bias, *shape, *unary)
        # The library has no leaky ReLU behind a sum.
        y = operator.binary(x, residual, self.weight, self.bias, *shape, "add", 1.0, None, [], "")
        return y if self.slope is None else F.leaky_relu_(y, self.slope)


class TransposedConv(FoldedConv):
    """A transposed convolution of stride 2, without padding. [B, in, H, W] -> [B, out, 2H + 1, 2W + 1]."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__(weight, stride=2, padding=0)

    def _reordered(self) -> Tensor:
        return torch.ops.mkldnn._reorder_convolution_transpose_weight(
            self.weight, self.padding, [0, 0], self.stride, [1, 1], 1, None
        )

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        if self._packed:
            return torch.ops.mkldnn._convolution_transpose_pointwise(
                x, self.weight, None, self.padding, [0, 0], self.stride, [1, 1], 1, "none", [], ""
            )
        return F.conv_transpose2d(x, self.weight, None, self.stride)


class Blur(nn.Module):
    """The (1,3,3,1) low pass over zero padding, [B, C, H, W] -> [B, C, H + 2 padding - 3, ...].

    A depthwise convolution: in channels-last memory it is one pass with whole vectors of channels, several times
    faster than shifted sums on CPUs and no slower on GPUs. (With channels first, as published, it is the slowest
    layer of the motion encoder.)
    """

    kernel: Tensor

    def __init__(self, kernel: Tensor, channels: int, padding: int) -> None:
        super().__init__()
        self.register_buffer("kernel", kernel.detach().expand(channels, 1, -1, -1).contiguous())
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel, padding=self.padding, groups=x.shape[1])


def pack_convolutions(module: nn.Module) -> None:
    """Pack every convolution inside ``module`` where oneDNN can run its type; else leave it as it is."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
        return
    supported = {torch.float32}
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        supported.add(torch.bfloat16)
    if torch.ops.mkldnn._is_mkldnn_fp16_supported():
        supported.add(torch.float16)
    for part in module.modules():
        if isinstance(part, FoldedConv) and part.weight.dtype in supported:
            part.pack()

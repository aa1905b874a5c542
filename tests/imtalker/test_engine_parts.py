"""The engine's folded layers against the plain ones, and its shortcuts against their definitions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imtalker.engine import fold
from imtalker.engine.attention import FoldedSelfAttention
from imtalker.engine.blocks import FoldedBlock, interleave, joined
from imtalker.engine.convolution import FoldedConv, TransposedConv, pack_convolutions
from imtalker.engine.encoders import FoldedMotionBlock
from imtalker.engine.motion import FoldedStyleConv
from imtalker.engine.precision import exact_float32, usable
from imtalker.engine.ranked import any_logits, centred, ranked_attention, small_logits
from imtalker.engine.windows import FoldedWindowPair
from imtalker.layers.attention import SelfAttentionBlock
from imtalker.layers.modulated import StyleConv
from imtalker.layers.residual import DownBlock, PlainBlock, UpBlock
from imtalker.layers.windows import WindowBlock
from imtalker.renderer.motion import MotionResidualBlock

Kind = TypeVar("Kind", bound=nn.Module)


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def picture(*shape: int, seed: int = 0) -> Tensor:
    return random(*shape, seed=seed).contiguous(memory_format=torch.channels_last)


def shaken(module: Kind) -> Kind:
    """Every parameter and statistic away from its initial value, so that nothing folds to nothing."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if name.endswith("running_var"):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        elif tensor.is_floating_point() and not name.endswith(("kernel", "attn_mask")):
            tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.2)
    return module.eval()


def test_norms_fold_into_convolution_and_linear_layer() -> None:
    conv, norm = shaken(nn.Conv2d(3, 5, 3)), shaken(nn.BatchNorm2d(5))
    x = random(2, 3, 6, 6)
    torch.testing.assert_close(
        F.conv2d(x, *fold.batch_norm(conv.weight, norm, conv.bias)), norm(conv(x)), atol=1e-5, rtol=0
    )
    linear, layer_norm = shaken(nn.Linear(8, 4)), shaken(nn.LayerNorm(8))
    t = random(2, 7, 8)
    folded = F.linear(F.layer_norm(t, (8,)), *fold.layer_norm(layer_norm, linear))
    torch.testing.assert_close(folded, linear(layer_norm(t)), atol=1e-5, rtol=0)


def test_doubling_kernels_are_the_convolution_of_the_doubled_picture() -> None:
    x, weight = random(2, 3, 5, 6).double(), random(4, 3, 3, 3, seed=1).double()
    expected = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, padding=1)
    torch.testing.assert_close(interleave(F.conv2d(x, fold.doubling(weight), padding=1)), expected)


def test_cells_are_enlarged_behind_the_channels() -> None:
    x, cells = picture(2, 3, 8, 8), random(2, 4, 4, 5)
    enlarged = F.interpolate(cells.permute(0, 3, 1, 2), scale_factor=2, mode="nearest")
    assert torch.equal(joined(x, cells), torch.cat([x, enlarged], 1))
    assert torch.equal(joined(x, random(2, 8, 8, 5)), torch.cat([x, random(2, 8, 8, 5).permute(0, 3, 1, 2)], 1))


@pytest.mark.parametrize("slope", [None, 0.2])
@pytest.mark.parametrize("with_residual", [False, True])
def test_packed_convolution_is_the_convolution(slope: float | None, with_residual: bool) -> None:
    x, weight, bias = picture(2, 16, 9, 9), random(8, 16, 3, 3, seed=1) / 12, random(8, seed=2)
    residual = picture(2, 8, 9, 9, seed=3) if with_residual else None
    expected = F.conv2d(x, weight, bias, padding=1) + (0 if residual is None else residual)
    expected = expected if slope is None else F.leaky_relu(expected, slope)
    conv = FoldedConv(weight, bias, slope=slope)
    before = None if residual is None else residual.clone()
    torch.testing.assert_close(conv(x, residual), expected, atol=1e-5, rtol=0)
    pack_convolutions(conv)
    torch.testing.assert_close(conv(x, residual), expected, atol=1e-5, rtol=0)
    if residual is not None and before is not None:
        assert torch.equal(residual, before)


def test_packed_transposed_convolution_is_the_convolution() -> None:
    x, weight = picture(2, 16, 5, 5), random(16, 8, 3, 3, seed=1) / 12
    conv = TransposedConv(weight)
    expected = F.conv_transpose2d(x, weight, stride=2)
    torch.testing.assert_close(conv(x), expected, atol=1e-5, rtol=0)
    pack_convolutions(conv)
    torch.testing.assert_close(conv(x), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", [PlainBlock, DownBlock, UpBlock])
def test_folded_block_is_the_block(kind: type[PlainBlock]) -> None:
    block = shaken(kind(8, 12))
    x = picture(2, 8, 8, 8)
    torch.testing.assert_close(FoldedBlock(block)(x), block(x), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("upsample", [False, True])
def test_folded_style_convolution_is_the_layer(upsample: bool) -> None:
    layer = shaken(StyleConv(6, 10, 5, upsample=upsample))
    x, latent = random(3, 6, 8, 8), random(3, 5, seed=1)
    folded = FoldedStyleConv(layer)
    torch.testing.assert_close(folded(x, layer.conv.modulation(latent)), layer(x, latent), atol=1e-5, rtol=0)


def test_folded_motion_block_is_the_block() -> None:
    block = shaken(MotionResidualBlock(6, 9))
    x = picture(2, 6, 16, 16)
    torch.testing.assert_close(FoldedMotionBlock(block)(x), block(x), atol=1e-5, rtol=0)


def test_folded_self_attention_is_the_block() -> None:
    block = shaken(SelfAttentionBlock(16, 6, 2))
    x = picture(2, 16, 6, 6)
    torch.testing.assert_close(FoldedSelfAttention(block)(x), block(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("resolution", "size"), [(16, 4), (8, 4), (8, 8), (12, 4)])
def test_folded_windows_are_the_blocks(resolution: int, size: int) -> None:
    plain, shifted = (shaken(WindowBlock(16, resolution, size, 4, shifted=s)) for s in (False, True))
    x = picture(2, 16, resolution, resolution)
    pair = FoldedWindowPair(plain, shifted, resolution)
    torch.testing.assert_close(pair(x), shifted(plain(x)), atol=1e-5, rtol=0)


def test_both_ways_through_the_windows_agree() -> None:
    plain, shifted = (shaken(WindowBlock(24, 16, 4, 4, shifted=s)) for s in (False, True))
    pair = FoldedWindowPair(plain, shifted, 16)
    pixels = random(2 * 16 * 16, 24)
    for block in (pair.first, pair.second):
        attention = block.attention
        torch.testing.assert_close(attention.fused(pixels), attention.tiled(pixels), atol=1e-5, rtol=0)


@pytest.mark.parametrize("spread", [1.0, 3.0], ids=["small logits", "large logits"])
def test_ranked_attention_is_the_whole_map(spread: float) -> None:
    q, k, v = random(2, 4, 300, 16) * spread, random(1, 4, 150, 16, seed=1), random(1, 4, 150, 16, seed=2)
    weights = (q.double() @ k.double().transpose(2, 3)).softmax(-1)
    top = weights.mean(1).topk(2)
    clear = (top.values[..., 0] - top.values[..., 1]) / top.values[..., 0] > 1e-4
    assert clear.float().mean() > 0.9
    out, best = ranked_attention(q, k, v)
    torch.testing.assert_close(out.double(), weights @ v.double(), atol=2e-4, rtol=0)
    assert torch.equal(best[clear], top.indices[..., 0][clear])
    centred_out, centred_best = ranked_attention(q, centred(k), v)
    torch.testing.assert_close(centred_out, out, atol=2e-4, rtol=0)
    assert torch.equal(centred_best[clear], best[clear])


def test_the_first_of_equal_keys_is_the_best() -> None:
    q, k = random(1, 2, 200, 16), random(1, 2, 5, 16, seed=1).repeat(1, 1, 3, 1)
    for way in (any_logits, small_logits):
        out, best = way(q, k, k)
        assert best.max() < 5
        assert out.isfinite().all()


def test_exact_float32_puts_the_setting_back() -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with exact_float32(torch.device("cpu")):
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(
    ("capability", "wanted", "used"),
    [
        ((7, 5), torch.bfloat16, torch.float16),
        ((7, 5), torch.float32, torch.float32),
        ((8, 0), torch.bfloat16, torch.bfloat16),
    ],
)
def test_old_gpus_get_a_half_precision_that_they_have(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], wanted: torch.dtype, used: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert usable(wanted, torch.device("cuda")) == used
    assert usable(wanted, torch.device("cpu")) == wanted

"""Building blocks against their definitions, written out the slow way."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from imtalker.layers import attention as attention_module
from imtalker.layers.attention import MultiHeadAttention
from imtalker.layers.equalised import Blur, EqualLinear
from imtalker.layers.modulated import ModulatedConv2d
from imtalker.layers.resample import pool_cells, resample
from imtalker.layers.windows import from_windows, relative_position_index, shift_mask, to_windows


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("padding", "gain"), [(1, 4.0), (2, 1.0)])
def test_blur_is_the_depthwise_convolution(padding: int, gain: float) -> None:
    blur = Blur(padding, gain).double()
    x = random(2, 3, 9, 12)
    expected = F.conv2d(F.pad(x, (padding,) * 4), blur.kernel.expand(3, 1, 4, 4), groups=3)
    torch.testing.assert_close(blur(x), expected)
    assert blur.kernel.sum() == pytest.approx(gain)


def test_equal_linear_scales_its_weight() -> None:
    layer = EqualLinear(16, 3).double()
    x = random(5, 16)
    torch.testing.assert_close(layer(x), x @ layer.weight.T / 4 + layer.bias)


@pytest.mark.parametrize("upsample", [False, True])
def test_modulated_convolution_is_a_convolution_with_each_samples_own_weight(upsample: bool) -> None:
    conv = ModulatedConv2d(4, 6, 5, upsample=upsample).double()
    x, latent = random(3, 4, 8, 8), random(3, 5, seed=1)
    style = conv.modulation(latent)
    weight = conv.weight * conv.scale * style[:, None, :, None, None]
    weight = weight / (weight.square().sum((2, 3, 4), keepdim=True) + 1e-8).sqrt()
    for i in range(3):
        if upsample:
            expected = conv.blur(F.conv_transpose2d(x[i : i + 1], weight[i].transpose(0, 1), stride=2))
        else:
            expected = F.conv2d(x[i : i + 1], weight[i], padding=1)
        torch.testing.assert_close(conv(x, latent)[i : i + 1], expected)


@pytest.mark.parametrize("tile", [1, 300, 1 << 20])
def test_ranked_attention_is_the_whole_map_at_any_tile_size(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_module, "_TILE_VALUES", tile)
    layer = MultiHeadAttention(8, 2).double()
    query, key, value = random(3, 7, 8), random(1, 11, 8, seed=1), random(1, 11, 8, seed=2)
    keys, values = layer.keys(key), layer.values(value)
    logits = torch.einsum("bhqd,khnd->bhqn", layer.split(layer.q_proj(query)), keys) / 2
    weights = logits.softmax(-1)
    expected = layer.join(weights @ values)
    output, best = layer.ranked(query, keys, values)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(layer(query, keys, values), expected)
    assert torch.equal(best, weights.mean(1).argmax(-1))


def test_resampler_gives_each_block_the_mean_of_its_match() -> None:
    feature = random(2, 3, 12, 12)
    best = torch.tensor([[5, 0, 0, 8, 3, 3, 1, 2, 7], [0, 1, 2, 3, 4, 5, 6, 7, 8]])
    output = resample(pool_cells(feature, 4), best, 4)
    for b in range(2):
        for cell in range(9):
            y, x = divmod(cell, 3)
            sy, sx = divmod(int(best[b, cell]), 3)
            mean = feature[b, :, 4 * sy : 4 * sy + 4, 4 * sx : 4 * sx + 4].mean((1, 2))
            block = output[b, :, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4]
            torch.testing.assert_close(block, mean[:, None, None].expand_as(block))


def test_windows_come_back_and_are_row_major() -> None:
    x = torch.arange(2 * 3 * 8 * 8).view(2, 3, 8, 8)
    windows = to_windows(x, 4)
    assert torch.equal(from_windows(windows, 4, 8, 8), x)
    assert torch.equal(windows[1, :, 0], x[0, 0, :4, 4:].flatten())


def test_relative_positions_count_query_minus_key() -> None:
    index = relative_position_index(4)
    for query in range(16):
        for key in range(16):
            dy, dx = query // 4 - key // 4, query % 4 - key % 4
            assert index[query, key] == (dy + 3) * 7 + dx + 3


def test_shift_mask_parts_cells_that_were_not_neighbours() -> None:
    resolution, size, shift = 8, 4, 2
    mask = shift_mask(resolution, size, shift)
    rows = to_windows(torch.arange(64).view(1, 1, 8, 8).roll((-shift, -shift), (2, 3)), size)[..., 0]
    for window in range(4):
        for query in range(16):
            for key in range(16):
                a, b = int(rows[window, query]), int(rows[window, key])
                together = abs(a // 8 - b // 8) < size and abs(a % 8 - b % 8) < size
                assert (mask[window, query, key] == 0) == together

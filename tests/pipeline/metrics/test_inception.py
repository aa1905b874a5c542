"""FID's network: names and sizes of the public file, its odd poolings, and what public code makes of equal weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.errors import CannotRun
from pipeline.metrics.inception import FidInception, load_inception, pooled_by
from tests.media_files import smooth_picture
from tests.pipeline.metrics.feature_networks import seeded, write_weights

# Some of pt_inception-2015-12-05-6726825d.pth: one of each kind of layer.
SHAPES = {
    "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
    "Conv2d_4a_3x3.bn.running_var": (192,),
    "Mixed_5b.branch1x1.conv.weight": (64, 192, 1, 1),
    "Mixed_5c.branch5x5_2.conv.weight": (64, 48, 5, 5),
    "Mixed_5d.branch3x3dbl_3.conv.weight": (96, 96, 3, 3),
    "Mixed_5d.branch_pool.conv.weight": (64, 288, 1, 1),
    "Mixed_6a.branch3x3.conv.weight": (384, 288, 3, 3),
    "Mixed_6a.branch3x3dbl_3.conv.weight": (96, 96, 3, 3),
    "Mixed_6b.branch7x7_2.conv.weight": (128, 128, 1, 7),
    "Mixed_6c.branch7x7_3.conv.weight": (192, 160, 7, 1),
    "Mixed_6d.branch7x7dbl_2.conv.weight": (160, 160, 7, 1),
    "Mixed_6e.branch7x7dbl_5.conv.weight": (192, 192, 1, 7),
    "Mixed_7a.branch3x3_2.conv.weight": (320, 192, 3, 3),
    "Mixed_7a.branch7x7x3_4.conv.weight": (192, 192, 3, 3),
    "Mixed_7b.branch3x3_1.conv.weight": (384, 1280, 1, 1),
    "Mixed_7b.branch3x3_2a.conv.weight": (384, 384, 1, 3),
    "Mixed_7c.branch3x3_2b.conv.weight": (384, 384, 3, 1),
    "Mixed_7c.branch3x3dbl_2.conv.weight": (384, 448, 3, 3),
    "Mixed_7c.branch3x3dbl_3a.conv.weight": (384, 384, 1, 3),
    "Mixed_7c.branch_pool.bn.weight": (192,),
    "fc.weight": (1008, 2048),
}


def test_names_and_sizes_are_those_of_the_public_file() -> None:
    with torch.device("meta"):
        network = FidInception()
    state = {name: tuple(value.shape) for name, value in network.state_dict().items() if "num_batches" not in name}
    assert {name: state.get(name) for name in SHAPES} == SHAPES
    assert sum(name.endswith("conv.weight") for name in state) == 94
    # torchvision states 27,161,264 for its own, whose auxiliary classifier has 3,326,696 and whose fc 1000 classes.
    parameters = sum(value.numel() for value in network.parameters())
    assert parameters == 27_161_264 - 3_326_696 - 2049 * 1000 + 2049 * 1008
    # Keras states 34,432 that are not trained for its own.
    assert sum(value.numel() for name, value in network.named_buffers() if "running" in name) == 34_432


def test_averages_leave_the_padding_out_and_the_last_block_takes_the_largest() -> None:
    picture = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])[None, None]
    assert pooled_by(picture, "average")[0, 0].tolist() == [[3, 3.5, 4], [4.5, 5, 5.5], [6, 6.5, 7]]
    assert pooled_by(-picture, "largest")[0, 0].tolist() == [[-1, -1, -2], [-1, -1, -2], [-4, -4, -5]]
    assert pooled_by(picture, "halve")[0, 0].tolist() == [[9]]


@torch.inference_mode()
def test_features_are_those_of_public_code_under_the_same_weights() -> None:
    """Numbers of pytorch-fid 0.3.0 with torchvision 0.29.2, of pictures that have to be made larger."""
    network = FidInception().eval()
    network.load_state_dict(seeded(network), strict=False)
    pictures = torch.from_numpy(np.stack([smooth_picture(seed, 90, 70) for seed in (1, 2)]))
    features = network(pictures.permute(0, 3, 1, 2) / 255)
    assert features.shape == (2, 2048)
    expected = [
        [1.2999871, 0.1880274, 0.8826343, 0.6173183],
        [1.3280451, 0.1701358, 0.8515227, 0.5578507],
    ]
    np.testing.assert_allclose(features[:, ::512], expected, atol=2e-4)
    assert (features.mean().item(), features.std().item()) == pytest.approx((0.4532, 0.6243), abs=2e-4)


@torch.inference_mode()
def test_larger_pictures_are_made_smaller_without_antialiasing() -> None:
    """By three: the middle pixel of each nine is taken, whatever stands about it."""
    network = FidInception().eval()
    network.load_state_dict(seeded(network), strict=False)
    picture = torch.rand(1, 3, 3 * 299, 3 * 299, generator=torch.Generator().manual_seed(0))
    small = picture[:, :, 1::3, 1::3]
    torch.testing.assert_close(network(picture), network(small), atol=1e-3, rtol=0)


def test_the_public_files_form_is_read_and_others_are_refused(tmp_path: Path) -> None:
    network = FidInception()
    path = write_weights(tmp_path / "inception.pth", network)
    loaded = load_inception(path)
    assert not loaded.training
    assert torch.equal(loaded.fc.weight, seeded(network)["fc.weight"])
    state = torch.load(path, weights_only=True)
    torch.save(state | {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}, path)
    with pytest.raises(CannotRun, match=r"inception\.pth doesn't hold FID's Inception v3 .*: 2 tensors .*fc\.weight"):
        load_inception(path)
    torch.save(state | {"AuxLogits.fc.bias": torch.zeros(1000)}, path)
    with pytest.raises(CannotRun, match=r"1 tensors are not of it, AuxLogits\.fc\.bias"):
        load_inception(path)
    with pytest.raises(CannotRun, match="no checkpoint at"):
        load_inception(tmp_path / "absent.pth")

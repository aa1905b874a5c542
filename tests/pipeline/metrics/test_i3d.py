"""FVD's network: names and sizes of the public file, TensorFlow's padding, what public code makes of equal weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.errors import CannotRun
from pipeline.metrics.i3d import I3d, load_i3d, same_padding
from tests.media_files import smooth_picture
from tests.pipeline.metrics.feature_networks import seeded, write_weights

BLOCKS = {
    "Mixed_3b": (192, 64, 96, 128, 16, 32, 32),
    "Mixed_3c": (256, 128, 128, 192, 32, 96, 64),
    "Mixed_4b": (480, 192, 96, 208, 16, 48, 64),
    "Mixed_4c": (512, 160, 112, 224, 24, 64, 64),
    "Mixed_4d": (512, 128, 128, 256, 24, 64, 64),
    "Mixed_4e": (512, 112, 144, 288, 32, 64, 64),
    "Mixed_4f": (528, 256, 160, 320, 32, 128, 128),
    "Mixed_5b": (832, 256, 160, 320, 32, 128, 128),
    "Mixed_5c": (832, 384, 192, 384, 48, 128, 128),
}


def published() -> dict[str, tuple[int, ...]]:
    """Names and shapes of rgb_imagenet.pt."""
    layers = {
        "Conv3d_1a_7x7": (64, 3, 7, 7, 7),
        "Conv3d_2b_1x1": (64, 64, 1, 1, 1),
        "Conv3d_2c_3x3": (192, 64, 3, 3, 3),
    }
    for block, (inputs, b0, b1a, b1b, b2a, b2b, b3b) in BLOCKS.items():
        layers |= {f"{block}.{name}": (width, inputs, 1, 1, 1) for name, width in (("b0", b0), ("b3b", b3b))}
        layers |= {f"{block}.b1a": (b1a, inputs, 1, 1, 1), f"{block}.b1b": (b1b, b1a, 3, 3, 3)}
        layers |= {f"{block}.b2a": (b2a, inputs, 1, 1, 1), f"{block}.b2b": (b2b, b2a, 3, 3, 3)}
    found: dict[str, tuple[int, ...]] = {}
    for name, shape in layers.items():
        found[f"{name}.conv3d.weight"] = shape
        found |= {f"{name}.bn.{part}": shape[:1] for part in ("weight", "bias", "running_mean", "running_var")}
    return found | {"logits.conv3d.weight": (400, 1024, 1, 1, 1), "logits.conv3d.bias": (400,)}


def test_names_and_shapes_are_those_of_the_public_file() -> None:
    with torch.device("meta"):
        network = I3d()
    state = {name: tuple(value.shape) for name, value in network.state_dict().items() if "num_batches" not in name}
    assert state == published()
    # OpenVINO states 12.69 million for the authors' own, whose norms have no scales.
    scales = sum(shape[0] for name, shape in state.items() if name.endswith("bn.weight"))
    assert sum(value.numel() for value in network.parameters()) - scales == 12_689_984


@pytest.mark.parametrize(
    ("length", "window", "step", "sides"),
    [
        (224, 7, 2, [2, 3]),
        (225, 7, 2, [3, 3]),
        (112, 3, 2, [0, 1]),
        (7, 3, 2, [1, 1]),
        (5, 2, 2, [0, 1]),
        (4, 2, 2, [0, 0]),
        (9, 3, 1, [1, 1]),
        (9, 1, 1, [0, 0]),
        (4, 1, 2, [0, 0]),
    ],
)
def test_same_padding_is_tensorflows(length: int, window: int, step: int, sides: list[int]) -> None:
    """Steps of the window come to length / step, rounded up, and the odd one lies behind."""
    found = same_padding((1, 1, 8, 8, length), (1, 1, window), (1, 1, step))
    assert found == [*sides, 0, 0, 0, 0]
    assert (length + sum(sides) - window) // step + 1 == -(-length // step)
    # Time comes last, as torch counts sides.
    assert same_padding((1, 1, length, 8, 8), (window, 1, 1), (step, 1, 1)) == [0, 0, 0, 0, *sides]


@torch.inference_mode()
def test_features_are_those_of_public_code_under_the_same_weights() -> None:
    """Numbers of pytorch-i3d for a clip of 16 frames: as cd-fvd 0.1.1 has it, with the authors' 1e-3 in the norms."""
    network = I3d().eval()
    network.load_state_dict(seeded(network), strict=False)
    picture = smooth_picture(3, 90, 70)
    clip = torch.from_numpy(np.stack([np.roll(picture, 2 * frame, axis=1) for frame in range(16)]))
    features = network(clip.permute(3, 0, 1, 2)[None] / 255)
    assert features.shape == (1, 400)
    expected = [0.2074984, 2.5456257, 0.5171376, -1.6822844, 1.1051251, 3.0337021, -3.3662448, 1.5669235]
    np.testing.assert_allclose(features[0, ::50], expected, atol=1e-3)
    assert (features.mean().item(), features.std().item()) == pytest.approx((0.0145, 1.9519), abs=1e-3)


@torch.inference_mode()
def test_larger_pictures_are_made_smaller_without_antialiasing() -> None:
    """By three: the middle pixel of each nine is taken, whatever stands about it. Nine frames are enough."""
    network = I3d().eval()
    network.load_state_dict(seeded(network), strict=False)
    clip = torch.rand(1, 3, 9, 3 * 224, 3 * 224, generator=torch.Generator().manual_seed(0))
    small = clip[:, :, :, 1::3, 1::3]
    torch.testing.assert_close(network(clip), network(small), atol=1e-3, rtol=0)


def test_the_public_files_form_is_read_and_others_are_refused(tmp_path: Path) -> None:
    path = write_weights(tmp_path / "rgb_imagenet.pt", I3d())
    loaded = load_i3d(path)
    assert not loaded.training
    state = torch.load(path, weights_only=True)
    assert torch.equal(loaded.state_dict()["Mixed_5c.b3b.bn.running_var"], state["Mixed_5c.b3b.bn.running_var"])
    torch.save(state | {"Conv3d_1a_7x7.conv3d.weight": torch.zeros(64, 2, 7, 7, 7)}, path)
    with pytest.raises(CannotRun, match=r"rgb_imagenet\.pt doesn't hold I3D on RGB .*Conv3d_1a_7x7\.conv3d\.weight"):
        load_i3d(path)
    del state["logits.conv3d.bias"]
    torch.save(state, path)
    with pytest.raises(CannotRun, match=r"1 tensors are missing or of another shape, logits\.conv3d\.bias"):
        load_i3d(path)

"""CSIM: its arithmetic by a network whose answers are known, and which files it takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.errors import CannotRun
from pipeline.metrics.arcface import IResNet, load_arcface
from pipeline.metrics.csim import CsimMeter, FaceExpert, aligned
from pipeline.metrics.regions import FRAMED_FACE, Box
from tests.media_files import smooth_picture

NORM = ("weight", "bias", "running_mean", "running_var")


def published(depths: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of arcface_torch's backbone.pth."""
    found: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 3, 3), "prelu.weight": (64,)}
    found |= {f"bn1.{name}": (64,) for name in NORM}
    inputs = 64
    for scale, (depth, outputs) in enumerate(zip(depths, (64, 128, 256, 512), strict=True), 1):
        for block in range(depth):
            at = f"layer{scale}.{block}"
            found |= {f"{at}.bn1.{name}": (inputs,) for name in NORM}
            found |= {f"{at}.{norm}.{name}": (outputs,) for norm in ("bn2", "bn3") for name in NORM}
            found[f"{at}.conv1.weight"] = (outputs, inputs, 3, 3)
            found[f"{at}.conv2.weight"] = (outputs, outputs, 3, 3)
            found[f"{at}.prelu.weight"] = (outputs,)
            if block == 0:
                found[f"{at}.downsample.0.weight"] = (outputs, inputs, 1, 1)
                found |= {f"{at}.downsample.1.{name}": (outputs,) for name in NORM}
            inputs = outputs
    found |= {f"bn2.{name}": (512,) for name in NORM} | {f"features.{name}": (512,) for name in NORM}
    return found | {"fc.weight": (512, 512 * 7 * 7), "fc.bias": (512,)}


@pytest.mark.parametrize(("depths", "millions"), [((3, 4, 14, 3), 43.6), ((3, 13, 30, 3), 65.2)], ids=["r50", "r100"])
def test_names_and_shapes_are_those_of_the_published_networks(
    depths: tuple[int, int, int, int], millions: float
) -> None:
    with torch.device("meta"):
        network = IResNet(depths)
    own = {name: tuple(value.shape) for name, value in network.state_dict().items() if "num_batches" not in name}
    assert own == published(depths)
    assert sum(value.numel() for value in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)


def weights(depths: tuple[int, int, int, int]) -> dict[str, Tensor]:
    torch.manual_seed(0)
    network = IResNet(depths)
    return {name: value for name, value in network.state_dict().items() if name in published(depths)}


def test_the_size_follows_from_the_file_and_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "backbone.pth"
    torch.save(weights((2, 2, 2, 2)), path)
    network = load_arcface(path)
    with torch.inference_mode():
        pictures = torch.rand(2, 3, 112, 112) * 2 - 1
        found = network(pictures)
        assert found.shape == (2, 512)
        assert torch.allclose(network(pictures[:1]), found[:1], atol=1e-5), "neighbours change nothing"
    assert len(network.layer3) == 2

    torch.save({"features.0.weight": torch.zeros(64, 3, 11, 11)}, path)
    with pytest.raises(CannotRun, match=r"doesn't hold ArcFace's iResNet .*layer1 to layer4 have \(0, 0, 0, 0\)"):
        load_arcface(path)
    torch.save(weights((2, 2, 2, 2)) | {"fc.bias": torch.zeros(256)}, path)
    with pytest.raises(CannotRun, match=r"missing or of another shape, fc\.bias the first"):
        load_arcface(path)
    torch.save(weights((2, 2, 2, 2)) | {"layer1.0.se.weight": torch.zeros(4)}, path)
    with pytest.raises(CannotRun, match=r"1 tensors are not of it, layer1\.0\.se\.weight"):
        load_arcface(path)


def test_the_face_fills_the_square_from_above_the_hairline_to_the_chin() -> None:
    """A box of 40 rows from row 20 on: the square begins 1.4 rows, rounded, above it, and is as wide as high."""
    picture = np.zeros((1, 100, 100, 3), np.uint8)
    picture[:, 19:59, 30:70] = 200
    found = aligned(picture, Box(0.35, 0.2, 0.65, 0.6))
    assert found.shape == (1, 3, 112, 112)
    assert found[:, :, 4:-4, 4:-4].min() == pytest.approx(200, abs=0.1)
    outside = aligned(picture, Box(-0.3, -0.2, 0.3, 0.6))
    assert outside[:, :, :20].max() == 0


def halves(pictures: Tensor) -> Tensor:
    """How bright the left half is, and the right one, of 0..1."""
    return torch.stack([(half.mean((1, 2, 3)) + 1) / 2 for half in pictures.chunk(2, dim=3)], dim=1)


EXPERT = FaceExpert(halves, torch.device("cpu"), "a" * 64)


def lit(left: int, right: int) -> np.ndarray:
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:, :32], picture[:, 32:] = left, right
    return picture


def meter(frames: int, portrait: np.ndarray | None, level: str = "basic") -> CsimMeter:
    known = None if portrait is None else EXPERT.embedded(portrait[None], FRAMED_FACE)[0]
    return CsimMeter(EXPERT, FRAMED_FACE, known, frames, level)  # type: ignore[arg-type]


def test_a_picture_is_like_itself_and_less_like_others() -> None:
    same = meter(3, smooth_picture(1, 64, 64))
    same.add(np.stack([smooth_picture(1, 64, 64)] * 3))
    assert same.values(None) == pytest.approx({"arcface_sha256": "a" * 64, "csim": 1, "csim_worst": 1})
    found = meter(2, lit(200, 0), "full")
    found.add(np.stack([lit(100, 0), lit(150, 200)]))
    values = found.values(None)
    assert values["csim_worst"] == pytest.approx(0.6, abs=0.01)
    assert values["csim"] == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize(("frames", "judged"), [(1, [0]), (39, [19]), (40, [20]), (100, [20, 60])])
def test_one_frame_in_forty_is_judged_and_one_of_every_clip(frames: int, judged: list[int]) -> None:
    found = meter(frames, lit(200, 0))
    pictures = np.stack([lit(0, 200)] * frames)
    pictures[judged] = lit(200, 0)
    for begin in range(0, frames, 7):
        found.add(pictures[begin : begin + 7])
    assert found.values(None)["csim_worst"] == pytest.approx(1)
    assert len(found._found) == len(judged)


def test_without_the_portrait_the_hash_stands_alone() -> None:
    found = meter(1, None)
    found.add(lit(1, 2)[None])
    assert found.values(None) == {"arcface_sha256": "a" * 64}

"""LPIPS: its arithmetic by a network whose features are known, and which files it takes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from pipeline.config import RunSettings
from pipeline.errors import CannotRun
from pipeline.metrics.lpips import AlexNet, Heads, Lpips, load_alexnet, load_heads, perception_expert

# Of torchvision's alexnet-owt-7be5be79.pth, but for the classifier, and of the authors' v0.1/alex.pth.
ALEXNET = {
    "features.0.weight": (64, 3, 11, 11),
    "features.0.bias": (64,),
    "features.3.weight": (192, 64, 5, 5),
    "features.3.bias": (192,),
    "features.6.weight": (384, 192, 3, 3),
    "features.6.bias": (384,),
    "features.8.weight": (256, 384, 3, 3),
    "features.8.bias": (256,),
    "features.10.weight": (256, 256, 3, 3),
    "features.10.bias": (256,),
}
HEADS = {f"lin{index}.model.1.weight": (1, width, 1, 1) for index, width in enumerate((64, 192, 384, 256, 256))}


class Channels(nn.Module):
    """Two features: red and green as they are, and at half the size."""

    def forward(self, pictures: Tensor) -> list[Tensor]:
        plain = pictures * torch.tensor([0.458, 0.448, 0.450])[:, None, None]
        plain = plain + torch.tensor([-0.030, -0.088, -0.188])[:, None, None]
        return [plain[:, :2], plain[:, :2, ::2, ::2]]


def heads(*weights: tuple[float, float]) -> Heads:
    made = Heads((2,) * len(weights))
    made.load_state_dict(
        {f"lin{index}.model.1.weight": torch.tensor(pair).view(1, 2, 1, 1) for index, pair in enumerate(weights)}
    )
    return made


@torch.inference_mode()
def test_features_are_compared_by_direction_squared_weighed_averaged_and_summed() -> None:
    """In -1..1 one picture is (0.6, 0.8) everywhere, the other (1, 0) in one place of four and the same in the rest."""
    one = torch.tensor([0.8, 0.9, 0.5])[None, :, None, None].repeat(1, 1, 2, 2)
    other = one.clone()
    other[0, :2, 0, 0] = torch.tensor([1.0, 0.5])
    network = Lpips(Channels(), heads((1.0, 2.0), (3.0, 0.5)))
    first, second = 0.4**2 + 2 * 0.8**2, 3 * 0.4**2 + 0.5 * 0.8**2
    assert network(one, other).tolist() == pytest.approx([first / 4 + second], abs=1e-5)
    assert network(torch.cat([one, one]), torch.cat([one, other])).tolist() == pytest.approx(
        [0, first / 4 + second], abs=1e-5
    )


@torch.inference_mode()
def test_five_features_behind_relus_and_none_of_equal_pictures_differ() -> None:
    torch.manual_seed(0)
    network = Lpips(AlexNet(), Heads()).eval()
    pictures = torch.rand(2, 3, 64, 64)
    features = network.backbone(pictures)
    assert [tuple(f.shape[1:]) for f in features] == [
        (64, 15, 15), (192, 7, 7), (384, 3, 3), (256, 3, 3), (256, 3, 3),
    ]  # fmt: skip
    assert all(feature.min() >= 0 for feature in features)
    assert network(pictures, pictures).tolist() == [0, 0]
    assert network(pictures, pictures.flip(0)).abs().min() > 0


def random(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    return {name: torch.rand(shape) for name, shape in shapes.items()}


def test_the_published_names_and_shapes_are_read_and_no_others(tmp_path: Path) -> None:
    backbone, weights = tmp_path / "alexnet.pth", tmp_path / "alex.pth"
    torch.save(random(ALEXNET) | {"classifier.6.bias": torch.zeros(1000)}, backbone)
    torch.save(random(HEADS), weights)
    assert {name: tuple(value.shape) for name, value in load_alexnet(backbone).state_dict().items()} == ALEXNET
    assert {name: tuple(value.shape) for name, value in load_heads(weights).state_dict().items()} == HEADS
    found = perception_expert(str(backbone), str(weights), "cpu")
    assert set(found.sha256) == {"lpips_backbone_sha256", "lpips_sha256"}
    with pytest.raises(CannotRun, match=r"doesn't hold torchvision's AlexNet.*features\.0\.weight"):
        load_alexnet(weights)
    with pytest.raises(CannotRun, match=r"doesn't hold LPIPS's weights.*lin0\.model\.1\.weight"):
        load_heads(backbone)
    torch.save(random(HEADS | {"lin5.model.1.weight": (1, 512, 1, 1)}), weights)
    with pytest.raises(CannotRun, match=r"1 tensors are not of it, lin5\.model\.1\.weight"):
        load_heads(weights)
    with pytest.raises(CannotRun, match="no checkpoint at"):
        perception_expert(str(tmp_path / "absent.pth"), str(weights), "cpu")


def test_both_files_are_named_or_neither() -> None:
    with pytest.raises(ValidationError, match="expected both lpips and lpips_backbone"):
        RunSettings.model_validate({"metric_weights": {"lpips": "alex.pth"}})

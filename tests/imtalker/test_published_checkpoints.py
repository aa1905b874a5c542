"""The published checkpoints at full size, made from seeded weights: 2 GB of files, gone after this module."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from imtalker.checkpoints import CheckpointError, checkpoint_kind, load_generator, load_renderer
from imtalker.config import GeneratorConfig, RendererConfig
from imtalker.generator.generator import MotionGenerator
from imtalker.renderer.renderer import Renderer
from imtalker.seeded import seeded_state_dict
from pipeline import weights
from pipeline.errors import CannotRun
from tests.imtalker.golden import state_spec
from tests.imtalker.published import (
    State,
    assert_same,
    lightning,
    old_norm,
    prefixed,
    save_checkpoint,
    split,
    write_hub_folder,
)


@dataclass(frozen=True)
class Published:
    folder: Path
    renderer: State
    generator: State


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    """``renderer.ckpt`` with its training partners, ``generator.ckpt`` without its encoder, which is in ``hub``."""
    folder = tmp_path_factory.mktemp("published")
    renderer = seeded_state_dict(Renderer(RendererConfig()).state_dict(), seed=1)
    generator = seeded_state_dict(MotionGenerator(GeneratorConfig()).state_dict(), seed=1)
    beside = {f"disc.{key}": torch.zeros(shape) for key, shape in state_spec("discriminator").items()}
    beside["criterion_vgg.vgg.slice1.0.weight"] = torch.zeros(64, 3, 3, 3)
    save_checkpoint(lightning(prefixed(renderer, "gen.") | beside), folder / "renderer.ckpt")
    own, encoder = split(generator)
    average = {key: torch.zeros_like(value) for key, value in own.items()}
    save_checkpoint(lightning(prefixed(own, "model."), ema_state_dict=average), folder / "generator.ckpt")
    write_hub_folder(folder / "hub", old_norm(encoder), GeneratorConfig(), file="pytorch_model.bin")
    yield Published(folder, renderer, generator)
    for file in folder.rglob("*.*"):
        file.unlink()


def test_the_renderer_loads(published: Published) -> None:
    path = published.folder / "renderer.ckpt"
    renderer = load_renderer(path)
    assert checkpoint_kind(path) == "renderer"
    assert list(renderer.state_dict()) == list(state_spec("renderer"))
    assert_same(renderer, published.renderer)


def test_the_generator_loads_with_its_encoder_from_the_hub_folder(published: Published) -> None:
    path = published.folder / "generator.ckpt"
    generator = load_generator(path, published.folder / "hub")
    assert checkpoint_kind(path) == "generator"
    assert list(generator.state_dict()) == list(state_spec("generator"))
    assert_same(generator, published.generator)
    with pytest.raises(CheckpointError, match=r"generator\.ckpt holds no audio encoder.*audio_encoder="):
        load_generator(path)


def test_a_generator_that_holds_its_encoder_loads_alone(published: Published) -> None:
    path = published.folder / "whole.ckpt"
    save_checkpoint(lightning(prefixed(published.generator, "model.")), path)
    assert_same(load_generator(path), published.generator)
    path.unlink()


def test_converted_files_stand_alone(published: Published) -> None:
    source, target = published.folder / "generator.ckpt", published.folder / "generator.safetensors"
    weights.convert(source, target, audio_encoder=published.folder / "hub")
    assert_same(load_generator(target), published.generator)
    target.unlink()


def test_files_that_were_put_into_a_store_are_found_and_load(published: Published, tmp_path: Path) -> None:
    ours, encoder = (part.folder(tmp_path) for part in weights.parts_of("imtalker")[1:])
    ours.mkdir()
    for name in ("renderer.ckpt", "generator.ckpt"):
        (ours / name).symlink_to(published.folder / name)
    shutil.copytree(published.folder / "hub", encoder, copy_function=os.symlink)
    (encoder / "preprocessor_config.json").write_text("{}")
    rows = weights.verify("imtalker", store=tmp_path, load=True)
    assert {row.status for row in rows} == {"unverified"}
    (encoder / "config.json").unlink()
    with pytest.raises(CannotRun, match=r"config\.json"):
        weights.verify("imtalker", store=tmp_path, load=True)

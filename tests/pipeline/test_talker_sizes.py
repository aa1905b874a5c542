"""Which files a model is made of, and that files which carry their sizes are taken at their word."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from imtalker.checkpoints import save_audio_encoder, save_generator, save_renderer
from imtalker.config import GeneratorConfig, RendererConfig
from imtalker.generator.generator import MotionGenerator
from imtalker.presets import PRESETS
from imtalker.renderer.renderer import Renderer
from pipeline import talker, weights
from pipeline.config import RunSettings
from pipeline.errors import CannotRun
from pipeline.weights import store
from tests.commands import ROOT

TINY = PRESETS["imtalker-tiny"]
SMALL = replace(TINY.renderer, resolution=64, channels=(16, 16, 8), motion_levels=2, swin_res_threshold=32)


def renderer(folder: Path, config: RendererConfig) -> Path:
    torch.manual_seed(0)
    save_renderer(Renderer(config), folder / "renderer.safetensors")
    return folder / "renderer.safetensors"


def generator(folder: Path, config: GeneratorConfig) -> Path:
    torch.manual_seed(0)
    save_generator(MotionGenerator(config), folder / "generator.safetensors")
    return folder / "generator.safetensors"


def settings(**named: Path) -> RunSettings:
    return RunSettings(model="imtalker", weights={part: str(path) for part, path in named.items()}, download=False)


def test_only_who_hears_loads_what_hears() -> None:
    """Which takes seconds and, in the published sizes, 380 MB."""
    code = (
        "import sys; from pipeline import talker; from pipeline.config import RunSettings\n"
        "settings = RunSettings(model='imtalker-demo')\n"
        "made = talker.load('imtalker-demo', settings, talker.info(settings))\n"
        "for stage in ('render', 'motion', 'features'): made.warm(stage); print('transformers' in sys.modules)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=100, capture_output=True, text=True)
    assert found.stdout.split() == ["False", "False", "True"], found.stderr


def test_files_that_carry_their_sizes_are_used_in_them(tmp_path: Path) -> None:
    wanted = settings(renderer=renderer(tmp_path, SMALL), generator=generator(tmp_path, TINY.generator))
    info = talker.info(wanted)
    assert (info.resolution, info.fps) == (64, 25)
    made = talker.load("imtalker", wanted, info)
    picture = np.zeros((64, 64, 3), np.uint8)
    assert made.encode_portrait(picture)["motion"].shape == (1, 32)
    assert made.encode_audio([np.zeros(6400, np.float32)])[0]["audio"].shape == (
        10,
        TINY.generator.wav2vec2.hidden_size,
    )


def test_networks_of_different_codes_are_refused(tmp_path: Path) -> None:
    files = {
        "renderer": renderer(tmp_path, replace(SMALL, dim_motion=16)),
        "generator": generator(tmp_path, TINY.generator),
    }
    with pytest.raises(CannotRun, match=r"takes motion codes of 16 numbers, the generator .* makes 32"):
        talker.info(settings(**files))


def test_a_file_of_the_other_kind_is_refused(tmp_path: Path) -> None:
    file = renderer(tmp_path, SMALL)
    with pytest.raises(CannotRun, match="holds a renderer; expected a generator"):
        talker.info(settings(renderer=file, generator=file))


def test_weights_of_the_package_are_found_replaced_and_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packaged = {"renderer": renderer(tmp_path, SMALL), "generator": generator(tmp_path, TINY.generator)}
    trained = {"imtalker-demo": packaged}
    monkeypatch.setattr(store, "pretrained_files", lambda preset: dict(trained.get(preset.name, {})))
    assert weights.locate("imtalker-demo", {}) == weights.ModelFiles(**packaged)
    assert [row.status for row in weights.verify("imtalker-demo", load=True)] == ["built in", "built in"]
    other = tmp_path / "other.safetensors"
    other.write_bytes(packaged["renderer"].read_bytes())
    assert weights.locate("imtalker-demo", {"renderer": str(other)}).renderer == other
    encoder = tmp_path / "encoder"
    save_audio_encoder(MotionGenerator(TINY.generator).audio_encoder, encoder)
    heard = weights.locate("imtalker-demo", {"wav2vec2": str(encoder)}, parts=weights.FEATURE_PARTS)
    assert (heard.generator, heard.wav2vec2) == (None, encoder)
    packaged["renderer"].unlink()
    assert [row.status for row in weights.verify("imtalker-demo")] == ["missing", "built in"]
    with pytest.raises(CannotRun, match=r"lacks the weights of imtalker-demo: .*renderer\.safetensors"):
        weights.locate("imtalker-demo", {})

"""Settings of trainings: files and flags, and what is wrong with them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imtalker.config import GeneratorConfig, RendererConfig
from imtalker.presets import PRESETS
from imtalker.training.flow_matching import Dropout
from imtalker.training.generator_run import GeneratorRun
from imtalker.training.renderer_run import RendererRun
from pipeline.errors import CannotRun
from pipeline.training.settings import GeneratorSettings, RendererSettings, load_settings
from pipeline.training.work import renderer_run
from tests.pipeline.training.clips import RENDERER


def write(folder: Path, text: str) -> Path:
    path = folder / "train.yaml"
    path.write_text(text)
    return path


def test_defaults_are_those_of_the_runs(tmp_path: Path) -> None:
    settings = RendererSettings(output=tmp_path, steps=5)
    assert renderer_run(settings) == RendererRun(RendererConfig(), 5)
    generator = GeneratorSettings(output=tmp_path, data=tmp_path, steps=5, start=tmp_path)
    run = GeneratorRun(GeneratorConfig(), 5)
    for name in ("seed", "batch", "learning_rate", "average", "precision", "accumulate"):
        assert getattr(generator, name) == getattr(run, name)
    assert Dropout(generator.dropout.now, generator.dropout.before) == run.dropout


def test_nothing_known_helps_with_photographs(tmp_path: Path) -> None:
    run = renderer_run(RendererSettings(output=tmp_path, steps=5, data="clips", batch=4))
    assert (run.references, run.targets, run.weights.routing, run.weights.codes) == (4, 1, 0, 0)


def test_flags_win_and_paths_stand_where_they_were_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    file = write(tmp_path, "output: out\ndata: clips\nvgg: vgg.pth\nsteps: 5\nbatch: 4\n")
    settings = load_settings(RendererSettings, file, {"steps": 7, "vgg": Path("mine.pth"), "data": None})
    assert (settings.steps, settings.batch) == (7, 4)
    assert (settings.output, settings.data) == (tmp_path / "out", str(tmp_path / "clips"))
    assert settings.vgg == tmp_path / "here" / "mine.pth"
    assert load_settings(RendererSettings, file, {"data": "avatars"}).data == "avatars"


def test_sizes_are_laid_over_the_presets(tmp_path: Path) -> None:
    tiny = PRESETS["imtalker-tiny"]
    document: dict[str, Any] = {"output": tmp_path, "steps": 1, "model": "imtalker-tiny"}
    settings = RendererSettings(**document, sizes={"dim_hidden": 96})
    assert settings.config == replace(tiny.renderer, dim_hidden=96)
    generator = GeneratorSettings(**document, data=tmp_path, sizes={"wav2vec2": {"hidden_size": 96}})
    assert generator.config.wav2vec2 == replace(tiny.generator.wav2vec2, hidden_size=96)
    assert RendererSettings(**document, sizes=RENDERER).config.channels == (16, 16, 8)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepps: 5", r"stepps: unknown key; did you mean 'steps'\?"),
        ("weights: {pixel: 1}", r"weights.pixel: unknown key; did you mean 'pixels'\?"),
        ("avatars: {world: wide}", r"avatars.world: Input should be 'full' or 'narrow', found 'wide'"),
        ("model: imtalkr", r"model: .*unknown model 'imtalkr'; known: imtalker"),
        ("sizes: {dim_motoin: 3}", r"sizes.dim_motoin: unknown size; known: resolution, channels"),
        ("sizes: {dim_motion: many}", r"sizes.dim_motion: Input should be a valid integer"),
        ("sizes: {resolution: 100}", r"sizes: resolution 100 must be a multiple of 128"),
        ("batch: 6\naccumulate: 4", r"batch 6 can't be cut into accumulate \* workers = 4 equal parts"),
        ("weights: {adversarial: 1}\nbatch: 3", r"batch of the discriminator .* found 6 pictures"),
        ("precision: float8", r"precision: Input should be 'float32', 'bfloat16' or 'float16'"),
        ("batch: 2\naccumulate: 2", "norms need two references or more in every part"),
        ("seed: -1", r"seed: Input should be greater than or equal to 0, found -1"),
        (
            "vgg: v.pth\nmodel: imtalker-tiny\nsizes: {resolution: 64, swin_res_threshold: 32}",
            "vgg needs pictures of 128 pixels or more, found 64",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(CannotRun, match=message) as raised:
        load_settings(RendererSettings, write(tmp_path, f"output: out\n{text}\n"), {"steps": 5, "batch": None})
    assert "train.yaml: not a valid training:" in str(raised.value)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotRun, match=r"command line: not a valid training:\n  output: required, but absent"):
        load_settings(RendererSettings, None, {"steps": 3})
    with pytest.raises(CannotRun, match=r"training file .*none.yaml: no such file"):
        load_settings(RendererSettings, tmp_path / "none.yaml", {})
    with pytest.raises(CannotRun, match="give audio_encoder"):
        load_settings(GeneratorSettings, None, {"output": tmp_path, "data": tmp_path, "steps": 1})

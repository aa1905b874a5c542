"""The recipe of the model that comes with the program is whole; and a small one is followed to its end."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from imtalker import load_generator, load_renderer
from imtalker.presets import PRESETS
from pipeline.errors import CannotRun
from pipeline.training.audio import AudioSettings
from pipeline.training.evaluate import EVALUATION, Score, table_text
from pipeline.training.recipe import RecipeRun, load_recipe
from pipeline.training.settings import GeneratorSettings, RendererSettings

SHIPPED = Path(__file__).parents[3] / "jobs" / "train_demo.yaml"

SMALL = {
    "model": "imtalker-tiny",
    "audio": {"steps": 2, "batch": 2, "lines": 4, "validation_lines": 2},
    "renderer": {"steps": 2, "batch": 2, "avatars": {"groups": 2, "states": 2}},
    "clips": {"lines": 140},
    "generator": {"steps": 2, "batch": 2},
    "evaluation": {"identities": 2, "lines": 2, "reader_steps": 20},
}


def test_the_shipped_recipe_fits_its_preset() -> None:
    recipe = load_recipe(SHIPPED)
    preset = PRESETS[recipe.model]
    common = {"model": recipe.model, "seed": recipe.seed, "output": "out"}
    places = {"data": "features", "audio_encoder": "audio"}
    assert AudioSettings.model_validate(common | recipe.audio).config == preset.generator.wav2vec2
    assert RendererSettings.model_validate(common | recipe.renderer).config == preset.renderer
    assert GeneratorSettings.model_validate(common | recipe.generator | places).config == preset.generator


def test_what_a_recipe_gets_wrong_is_named(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**SMALL, "oven": 200}))
    with pytest.raises(CannotRun, match="oven"):
        load_recipe(tmp_path / "recipe.yaml")
    wrong = {**SMALL, "audio": {"steps": 2, "speakers": 3}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(wrong))
    run = RecipeRun(load_recipe(tmp_path / "recipe.yaml"), tmp_path / "out", Console(file=io.StringIO()))
    with pytest.raises(CannotRun, match="speakers"):
        run.follow("audio")


def test_a_table_tells_what_is_reached() -> None:
    table = [Score("a", 2.0, least=1), Score("b", 2.0, most=1), Score("c", 2.0), Score("d", 0.0, least=-1, most=1)]
    assert [score.reached for score in table] == [True, False, None, True]
    assert table_text(table).splitlines()[2:] == [
        "| a | 2.000 | at least 1 | yes |",
        "| b | 2.000 | at most 1 | no |",
        "| c | 2.000 |  |  |",
        "| d | 0.000 | at least -1, at most 1 | yes |",
    ]


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_small_recipe_is_followed_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(SMALL))
    shown = io.StringIO()
    RecipeRun(load_recipe(tmp_path / "recipe.yaml"), tmp_path / "out", Console(file=shown)).follow()
    weights = tmp_path / "out" / "weights"
    tiny = PRESETS["imtalker-tiny"]
    assert load_renderer(weights / "renderer.safetensors").config == tiny.renderer
    assert load_generator(weights / "generator.safetensors").config == tiny.generator
    rows = json.loads((tmp_path / "out" / "evaluation" / EVALUATION).read_text())
    # Two steps teach nothing, and the table says so.
    assert any(row["reached"] is False for row in rows)
    assert (tmp_path / "out" / "evaluation" / "evaluation.png").stat().st_size > 10_000

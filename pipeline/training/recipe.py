"""A whole model from one file: every training in turn, each going on where it stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from rich.console import Console

from imtalker import load_generator, load_renderer
from imtalker.checkpoints import CheckpointError, save_generator, save_renderer
from imtalker.training import audio_run, generator_run, renderer_run
from imtalker.training.loop import steps_done
from pipeline.avatars.folder import AvatarFolder
from pipeline.avatars.production import produce
from pipeline.avatars.recipes import draw_script
from pipeline.config import RunSettings, Settings
from pipeline.document import parse_document, read_document
from pipeline.errors import CannotRun
from pipeline.execute import on_ray
from pipeline.progress import RunProgress
from pipeline.run import prepare
from pipeline.training.audio import AudioSettings, start_audio
from pipeline.training.evaluate import EvaluationSettings, judge, table_text
from pipeline.training.features import make_features
from pipeline.training.settings import AnySettings, GeneratorSettings, RendererSettings
from pipeline.training.start import start

_INTERVAL_S = 30.0

StepName = Literal["audio", "renderer", "clips", "features", "generator", "weights", "evaluation"]


class ClipSettings(Settings):
    """Talking avatars that the generator learns from; see ``imtalker avatars render``."""

    identities: int = Field(ge=1)
    clips: int = Field(ge=1)
    seed: int | None = Field(None, ge=0, description="else the recipe's")
    workers: int = Field(1, ge=1)


class EvaluationPart(Settings):
    identities: int = Field(24, ge=2)
    lines: int = Field(24, ge=2)


class Recipe(Settings):
    """Settings of each step as its own command takes them, without ``model``, ``seed`` and places of files."""

    model: str = Field(description="preset whose sizes are taken")
    seed: int = Field(0, ge=0, lt=4000)
    audio: dict[str, Any]
    renderer: dict[str, Any]
    clips: ClipSettings
    generator: dict[str, Any]
    evaluation: EvaluationPart = EvaluationPart()
    precision: Literal["float32", "bfloat16", "float16"] = Field("float16", description="of the finished weights")


def load_recipe(path: Path) -> Recipe:
    """Raises CannotRun naming every key that is unknown and every value that isn't allowed."""
    return parse_document(Recipe, read_document(path, "recipe"), str(path), kind="recipe")


@dataclass(frozen=True)
class RecipeRun:
    """A recipe and the folder it is followed in: ``audio/``, ``renderer/``, ``clips/``, ``features/``,
    ``generator/``, ``weights/`` and ``evaluation/``, a folder for each step."""

    recipe: Recipe
    folder: Path
    console: Console

    def follow(self, until: StepName = "evaluation") -> None:
        """Do what is missing, in order, up to the step ``until``.

        Raises CannotRun for the step that can't be done, and KeyboardInterrupt when it was stopped; run again, it
        goes on.
        """
        steps: dict[str, Callable[[], None]] = {
            "audio": self._audio,
            "renderer": self._renderer,
            "clips": self._clips,
            "features": self._features,
            "generator": self._generator,
            "weights": self._weights,
            "evaluation": self._evaluation,
        }
        for name, step in steps.items():
            self.console.print(f"step {name}", highlight=False)
            step()
            if name == until:
                return

    def _audio(self) -> None:
        settings = self._settings(AudioSettings, "audio", self.recipe.audio)
        self._train(settings, start_audio)

    def _renderer(self) -> None:
        settings = self._settings(RendererSettings, "renderer", self.recipe.renderer)
        self._train(settings, start)

    def _clips(self) -> None:
        wanted, size = self.recipe.clips, load_renderer(self._trained_renderer).config.resolution
        seed = self.recipe.seed if wanted.seed is None else wanted.seed
        script = draw_script(identities=wanted.identities, clips=wanted.clips, size=size, seed=seed)
        with RunProgress(self.console, _INTERVAL_S) as progress:
            produce(script, self._avatars, progress, workers=wanted.workers)

    def _features(self) -> None:
        # Avatars are faces, whatever a detector for photographs thinks of them.
        settings = RunSettings(
            model=self.recipe.model,
            driver_face="unchecked",
            weights={"renderer": str(self._trained_renderer), "wav2vec2": str(self._encoder)},
        )
        info = prepare(settings, features_only=True)
        with RunProgress(self.console, _INTERVAL_S) as progress:
            made = make_features(
                str(self._avatars.root / "clips"),
                self.folder / "features",
                settings,
                info,
                partial(on_ray, address=None),
                progress,
                states=self._avatars.root / "states",
            )
        if made.failed:
            raise CannotRun("\n".join(["features of some clips can't be made:", *made.lines()]))

    def _generator(self) -> None:
        places = {"data": self.folder / "features", "audio_encoder": self._encoder}
        settings = self._settings(GeneratorSettings, "generator", self.recipe.generator | places)
        self._train(settings, start)

    def _weights(self) -> None:
        precision = getattr(torch, self.recipe.precision)
        folder = self.folder / "weights"
        try:
            save_renderer(load_renderer(self._trained_renderer), folder / renderer_run.WEIGHTS, dtype=precision)
            trained = self.folder / "generator" / generator_run.WEIGHTS
            save_generator(load_generator(trained), folder / generator_run.WEIGHTS, dtype=precision)
        except CheckpointError as exc:
            raise CannotRun(str(exc)) from exc

    def _evaluation(self) -> None:
        weights = self.folder / "weights"
        settings = EvaluationSettings(
            output=self.folder / "evaluation",
            model=self.recipe.model,
            renderer=weights / renderer_run.WEIGHTS,
            generator=weights / generator_run.WEIGHTS,
            identities=self.recipe.evaluation.identities,
            lines=self.recipe.evaluation.lines,
        )
        with RunProgress(self.console, _INTERVAL_S) as progress:
            table = judge(settings, progress)
        self.console.print(table_text(table), highlight=False)

    @property
    def _trained_renderer(self) -> Path:
        return self.folder / "renderer" / renderer_run.WEIGHTS

    @property
    def _encoder(self) -> Path:
        return self.folder / "audio" / audio_run.WEIGHTS

    @property
    def _avatars(self) -> AvatarFolder:
        return AvatarFolder(self.folder / "clips")

    def _train(self, settings: AnySettings, begin: Callable[[AnySettings, Console], None]) -> None:
        """Preparing a training takes minutes; of one that is over there is no need."""
        if steps_done(settings.output) < settings.steps:
            begin(settings, self.console)

    def _settings(self, model: type[AnySettings], step: str, given: dict[str, Any]) -> AnySettings:
        common = {"model": self.recipe.model, "seed": self.recipe.seed, "output": self.folder / step}
        return parse_document(model, common | given, f"{step} in the recipe", kind="training")

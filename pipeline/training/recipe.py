"""A whole model from one file: every training in turn, each going on where it stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from rich.console import Console

from imtalker import load_generator, load_renderer
from imtalker.avatars.identity import World
from imtalker.checkpoints import CheckpointError, save_generator, save_renderer
from imtalker.training import audio_run, generator_run, renderer_run
from imtalker.training.loop import steps_done
from pipeline.config import Settings
from pipeline.document import parse_document, read_document
from pipeline.errors import CannotRun
from pipeline.progress import RunProgress
from pipeline.training.audio import AudioSettings, start_audio
from pipeline.training.evaluate import READER_STEPS, EvaluationSettings, judge, table_text
from pipeline.training.performances import PerformedClips
from pipeline.training.settings import AnySettings, GeneratorSettings, RendererSettings
from pipeline.training.start import start

_INTERVAL_S = 30.0

StepName = Literal["audio", "renderer", "clips", "generator", "weights", "evaluation"]


class ClipSettings(Settings):
    """Performances that the generator learns from."""

    lines: int = Field(ge=1, description="sentences that espeak-ng speaks")
    seed: int | None = Field(None, ge=0, description="else the recipe's")


class EvaluationPart(Settings):
    identities: int = Field(24, ge=2)
    lines: int = Field(24, ge=2)
    world: World = "full"
    reader_steps: int = Field(READER_STEPS, ge=1)


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
    """A recipe and the folder it is followed in: ``audio/``, ``renderer/``, ``clips/``, ``generator/``,
    ``weights/`` and ``evaluation/``, a folder for each step."""

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
        wanted = self.recipe.clips
        settings = self._generator_settings()
        performed = PerformedClips(
            settings.data,
            self._encoder,
            settings.config,
            wanted.lines,
            self.recipe.seed if wanted.seed is None else wanted.seed,
        )
        with RunProgress(self.console, _INTERVAL_S) as progress:
            performed.make(progress)

    def _generator(self) -> None:
        self._train(self._generator_settings(), start)

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
        # Both files carry their sizes, so no model has to be named; a seeded one would take no files.
        settings = EvaluationSettings(
            output=self.folder / "evaluation",
            renderer=weights / renderer_run.WEIGHTS,
            generator=weights / generator_run.WEIGHTS,
            identities=self.recipe.evaluation.identities,
            lines=self.recipe.evaluation.lines,
            world=self.recipe.evaluation.world,
            reader_steps=self.recipe.evaluation.reader_steps,
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

    def _generator_settings(self) -> GeneratorSettings:
        places = {"data": self.folder / "clips", "audio_encoder": self._encoder}
        return self._settings(GeneratorSettings, "generator", self.recipe.generator | places)

    def _train(self, settings: AnySettings, begin: Callable[[AnySettings, Console], None]) -> None:
        """Preparing a training takes minutes; of one that is over there is no need."""
        if steps_done(settings.output) < settings.steps:
            begin(settings, self.console)

    def _settings(self, model: type[AnySettings], step: str, given: dict[str, Any]) -> AnySettings:
        common = {"model": self.recipe.model, "seed": self.recipe.seed, "output": self.folder / step}
        return parse_document(model, common | given, f"{step} in the recipe", kind="training")

"""``imtalker train``: the trainings, data for them, and judging what came out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pipeline.commands.flags import Json
from pipeline.errors import INTERRUPTED

train_app = typer.Typer(help="Train the networks, make data for them, judge them.", no_args_is_help=True)

_MISSED = 3

Config = Annotated[Path | None, typer.Option("--config", help="settings (YAML); flags win over it")]
Output = Annotated[Path | None, typer.Option(help="folder of the checkpoint, the log and the weights")]
Model = Annotated[str | None, typer.Option(help="preset whose sizes are taken")]
Start = Annotated[Path | None, typer.Option(help="checkpoint whose weights a new training begins with")]
Steps = Annotated[int | None, typer.Option(min=1, help="updates in all")]
Batch = Annotated[int | None, typer.Option(min=1, help="size of an update, over all workers and parts")]
Accumulate = Annotated[int | None, typer.Option(min=1, help="parts that a batch is worked through in")]
Device = Annotated[Literal["auto", "cpu", "cuda"] | None, typer.Option(help="auto: a GPU where there is one")]
Precision = Annotated[Literal["float32", "bfloat16", "float16"] | None, typer.Option(help="of autocast")]
Workers = Annotated[int | None, typer.Option(min=1, help="processes that share every batch, through Ray Train")]
GpusPerWorker = Annotated[float | None, typer.Option(min=0, help="default: 1 where the cluster has GPUs")]


@train_app.command("renderer")
def train_renderer(
    config: Config = None,
    output: Output = None,
    data: Annotated[str | None, typer.Option(help="avatars, or a folder in the published layout")] = None,
    model: Model = None,
    start: Start = None,
    vgg: Annotated[Path | None, typer.Option(help="VGG-19 of torchvision for the perceptual loss")] = None,
    steps: Steps = None,
    batch: Batch = None,
    accumulate: Accumulate = None,
    device: Device = None,
    precision: Precision = None,
    workers: Workers = None,
    gpus_per_worker: GpusPerWorker = None,
) -> None:
    """Train the renderer, on drawn avatars or on frames of videos. Run it again to go on where it stopped."""
    _train("RendererSettings", config, {name: value for name, value in locals().items() if name != "config"})


@train_app.command("generator")
def train_generator(
    config: Config = None,
    output: Output = None,
    data: Annotated[Path | None, typer.Option(help="folder in the published layout")] = None,
    model: Model = None,
    start: Start = None,
    audio_encoder: Annotated[
        Path | None, typer.Option(help="wav2vec2 folder that made the clips' audio features")
    ] = None,
    steps: Steps = None,
    batch: Batch = None,
    accumulate: Accumulate = None,
    device: Device = None,
    precision: Precision = None,
    workers: Workers = None,
    gpus_per_worker: GpusPerWorker = None,
) -> None:
    """Train the motion generator, on motion and audio features. Run it again to go on where it stopped."""
    _train("GeneratorSettings", config, {name: value for name, value in locals().items() if name != "config"})


@train_app.command("audio")
def train_audio(
    config: Config = None,
    output: Output = None,
    model: Model = None,
    steps: Steps = None,
    batch: Annotated[int | None, typer.Option(min=1, help="parts of lines in an update")] = None,
    lines: Annotated[int | None, typer.Option(min=1, help="sentences that espeak-ng speaks to train with")] = None,
    device: Device = None,
) -> None:
    """Train a small audio encoder on synthetic speech; needs espeak-ng. Run it again to go on where it stopped."""
    flags = {name: value for name, value in locals().items() if name != "config"}
    from pipeline.progress import stderr_console
    from pipeline.training.audio import AudioSettings, start_audio
    from pipeline.training.settings import load_settings

    with _interruptible():
        start_audio(load_settings(AudioSettings, config, flags), stderr_console())


@train_app.command("recipe")
def recipe(
    recipe: Annotated[Path, typer.Argument(help="settings of every step (YAML), such as jobs/train_demo.yaml")],
    output: Annotated[Path, typer.Option(help="folder with a folder for each step")],
    until: Annotated[
        Literal["audio", "renderer", "clips", "generator", "weights", "evaluation"],
        typer.Option(help="last step"),
    ] = "evaluation",
) -> None:
    """Train a whole model, step by step; needs espeak-ng. Run it again to go on where it stopped."""
    from pipeline.progress import stderr_console
    from pipeline.training.recipe import RecipeRun, load_recipe

    with _interruptible():
        RecipeRun(load_recipe(recipe), output.absolute(), stderr_console()).follow(until)


@train_app.command("evaluate")
def evaluate(
    output: Annotated[Path, typer.Option(help="folder of the scores; what was fitted there is used again")],
    model: Annotated[str, typer.Option(help="preset with trained weights")] = "imtalker-demo",
    renderer: Annotated[Path | None, typer.Option(help="renderer.safetensors instead of the preset's")] = None,
    generator: Annotated[Path | None, typer.Option(help="generator.safetensors instead of the preset's")] = None,
    identities: Annotated[int, typer.Option(min=2, help="held-out avatars that are rendered")] = 24,
    lines: Annotated[int, typer.Option(min=2, help="held-out sentences that are spoken")] = 24,
    language: Annotated[list[str] | None, typer.Option(help="of the sentences; may be repeated; default: all")] = None,
    world: Annotated[Literal["full", "narrow"], typer.Option(help="kinds of avatars that it is judged by")] = "full",
    seed: Annotated[int, typer.Option(min=0, help="of states and sentences")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="print the scores as JSON on stdout")] = False,
) -> None:
    """Judge a model on avatars and speech never trained on; needs espeak-ng. Exit code 3: a target is missed."""
    from dataclasses import replace

    from pipeline.progress import RunProgress, stderr_console
    from pipeline.training.evaluate import EVALUATION, EvaluationSettings, judge, table_text

    settings = EvaluationSettings(
        output=output,
        model=model,
        renderer=renderer,
        generator=generator,
        world=world,
        identities=identities,
        lines=lines,
        seed=seed,
    )
    if language:
        settings = replace(settings, languages=tuple(language))
    with _interruptible(), RunProgress(stderr_console(), 30.0) as progress:
        table = judge(settings, progress)
    typer.echo((output / EVALUATION).read_text() if as_json else table_text(table))
    if any(score.reached is False for score in table):
        raise typer.Exit(_MISSED)


@train_app.command("features")
def train_features(
    videos: Annotated[str, typer.Argument(help="folder of talking videos with sound (URI)")],
    output: Annotated[Path, typer.Option(help="folder of the clips, on a local disk that every worker sees")],
    model: Annotated[str | None, typer.Option(help="preset")] = None,
    weights: Annotated[
        list[str] | None, typer.Option(metavar="PART=PATH", help="weights of a part; may be repeated")
    ] = None,
    audio_encoder: Annotated[Path | None, typer.Option(help="wav2vec2 folder of the hub")] = None,
    states: Annotated[
        Path | None, typer.Option(help="folder of avatars' states: pose, camera and gaze are then known")
    ] = None,
    driver_face: Annotated[
        Literal["checked", "unchecked"] | None, typer.Option(help="whether a video must show a face")
    ] = None,
    detector: Annotated[Literal["dlib", "s3fd"] | None, typer.Option(help="of that face")] = None,
    device: Device = None,
    precision: Annotated[
        Literal["float32", "bfloat16", "float16"] | None, typer.Option(help="of the renderer's networks")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, max=64, help="frames encoded at once")] = None,
    items_in_flight: Annotated[
        int | None, typer.Option(min=1, max=256, help="recordings encoded in one batch; default: 32 on GPUs, 1 without")
    ] = None,
    download: Annotated[
        bool | None, typer.Option("--download/--no-download", help="fetch missing published weights")
    ] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster to join; default: one of its own")] = None,
    as_json: Json = False,
) -> None:
    """Make the generator's data from videos: motion codes and audio features. Run it again to make what is missing."""
    from functools import partial

    from pipeline.on_ray import on_ray
    from pipeline.progress import RunProgress, stderr_console
    from pipeline.run import prepare
    from pipeline.training.features import feature_settings, make_features

    if "://" in str(output):
        raise typer.BadParameter(f"expected a folder on a local disk, found {output}")
    plain = {
        "model": model,
        "driver_face": driver_face,
        "detector": detector,
        "device": device,
        "precision": precision,
        "batch_size": batch_size,
        "items_in_flight": items_in_flight,
        "download": download,
    }
    settings = feature_settings(plain, weights or [], audio_encoder)
    with RunProgress(stderr_console(), settings.progress_seconds) as progress:
        summary = make_features(
            videos,
            output,
            settings,
            prepare(settings, features_only=True),
            partial(on_ray, address=address),
            progress,
            states=states,
        )
    if as_json:
        typer.echo(json.dumps(summary.as_dict(), indent=1))
    else:
        typer.echo("\n".join(summary.lines()), err=True)
    raise typer.Exit(summary.exit_code)


def _train(kind: Literal["RendererSettings", "GeneratorSettings"], config: Path | None, flags: dict[str, Any]) -> None:
    from pipeline.progress import stderr_console
    from pipeline.training import settings
    from pipeline.training.start import start

    with _interruptible():
        start(settings.load_settings(getattr(settings, kind), config, flags), stderr_console())


@contextmanager
def _interruptible() -> Iterator[None]:
    """A training that was stopped ends the program with the exit code of an interruption."""
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None

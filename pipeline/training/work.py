"""What a process of a training does, whether it is the only one or one of several."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from imtalker.checkpoints import CheckpointError
from imtalker.generator.generator import MotionGenerator
from imtalker.presets import find_preset
from imtalker.training.cpu import tune_cpu
from imtalker.training.flow_matching import Dropout
from imtalker.training.generator_run import GeneratorRun, fresh, started, train_generator
from imtalker.training.loop import Pace, Report, Watch
from imtalker.training.motion_clips import ClipError
from imtalker.training.motion_data import MotionData
from imtalker.training.perceptual import VGG19
from imtalker.training.picture_clips import PictureClipError, ReadPicture
from imtalker.training.picture_data import ClipPictures, PictureData
from imtalker.training.renderer import RendererWeights
from imtalker.training.renderer_run import RendererRun, avatar_pictures, train_renderer
from imtalker.training.share import ALONE, Share
from pipeline.config import InputLimits
from pipeline.errors import CannotRun, ItemError
from pipeline.media.image import load_image, resize_square
from pipeline.training.settings import AVATARS, GeneratorSettings, RendererSettings


def work(
    settings: RendererSettings | GeneratorSettings,
    device: torch.device,
    report: Report,
    watch: Watch | None = None,
    stop: Callable[[], bool] = lambda: False,
    share: Share = ALONE,
) -> None:
    """Train as the settings say; see `imtalker.training.loop.train`.

    Raises CannotRun for data and weights that can't be used, and KeyboardInterrupt when it was stopped.
    """
    if device.type == "cpu":
        tune_cpu()
    pace = Pace(settings.report_every, settings.checkpoint_every, settings.validate_every)
    with _explained():
        if isinstance(settings, RendererSettings):
            run = renderer_run(settings)
            train_renderer(
                run,
                settings.output,
                device,
                report,
                data=_pictures(settings, run, share),
                network=_perceptual(settings.vgg),
                start=settings.start,
                watch=watch,
                pace=pace,
                stop=stop,
                share=share,
            )
        else:
            generator_run = GeneratorRun(
                generator=settings.config,
                steps=settings.steps,
                seed=settings.seed,
                batch=settings.batch,
                learning_rate=settings.learning_rate,
                optimiser=settings.optimiser,
                dropout=Dropout(**settings.dropout.model_dump()),
                seam_weight=settings.seam_weight,
                distance=settings.distance,
                average=settings.average,
                precision=settings.precision,
                accumulate=settings.accumulate,
            )
            train_generator(
                generator_run,
                settings.output,
                device,
                report,
                data=MotionData(
                    settings.data,
                    settings.config,
                    seed=settings.seed,
                    rows=settings.batch,
                    reference=settings.reference,
                ),
                build=lambda: _generator(settings),
                watch=watch,
                pace=pace,
                stop=stop,
                share=share,
            )


def renderer_run(settings: RendererSettings) -> RendererRun:
    """The settings as `imtalker` takes them."""
    avatars = settings.avatars
    run = RendererRun(
        renderer=settings.config,
        steps=settings.steps,
        seed=settings.seed,
        references=settings.batch,
        targets=settings.targets,
        strangers=avatars.strangers,
        learning_rate=settings.learning_rate,
        optimiser=settings.optimiser,
        equalised_rate=settings.equalised_rate,
        floor=settings.floor,
        warmup=settings.warmup,
        again=tuple(settings.again),
        again_rate=settings.again_rate,
        weights=RendererWeights(**settings.weights.model_dump()),
        helped=settings.helped,
        codes_told=settings.codes_told,
        routes_told=settings.routes_told,
        routes_near=settings.routes_near,
        routes_part=settings.routes_part,
        codes_first=settings.codes_first,
        codes_rate=settings.codes_rate,
        codes_fixed=settings.codes_fixed,
        routes_first=settings.routes_first,
        routes_rate=settings.routes_rate,
        norms=settings.norms,
        norms_learn=settings.norms_learn,
        average=settings.average,
        precision=settings.precision,
        world=avatars.world,
        pool_groups=avatars.groups,
        pool_states=avatars.states,
        pool_steps=avatars.steps,
        discriminator_width=settings.discriminator_width,
        accumulate=settings.accumulate,
    )
    if settings.data == AVATARS:
        return run
    # Nothing is known of photographs, so nothing helps.
    return replace(run, weights=replace(run.weights, routing=0.0, codes=0.0))


def picture_reader(size: int, limits: InputLimits) -> ReadPicture:
    """Reads a picture file as float32 [3, size, size] in 0..1, whatever its own size; raises InputError."""

    def read(path: Path) -> Tensor:
        picture = resize_square(load_image(path, limits), size)
        return torch.from_numpy(picture.copy()).permute(2, 0, 1).float() / 255

    return read


def _pictures(settings: RendererSettings, run: RendererRun, share: Share) -> PictureData:
    if settings.data == AVATARS:
        return avatar_pictures(run, settings.output, share)
    read = picture_reader(run.renderer.resolution, settings.limits)
    return ClipPictures(Path(settings.data), read, seed=run.seed, rows=run.references)


def _perceptual(vgg: Path | None) -> nn.Module | None:
    if vgg is None:
        return None
    try:
        return VGG19.load(vgg)
    except (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as exc:
        raise CannotRun(f"vgg: {vgg} can't be used: {exc}") from exc


def _generator(settings: GeneratorSettings) -> MotionGenerator:
    if settings.start is not None:
        return started(settings.start, settings.config, settings.audio_encoder)
    return fresh(settings.config, settings.audio_encoder or find_preset(settings.model).seed)


@contextmanager
def _explained() -> Iterator[None]:
    """What data and weights can be wrong with, as one line."""
    try:
        yield
    except (ClipError, PictureClipError, CheckpointError) as exc:
        raise CannotRun(str(exc)) from exc
    except ItemError as exc:
        raise CannotRun(f"{exc.message} ({exc.hint})") from exc

"""Judging a trained model on avatars, sentences and voices that no training sees."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from imtalker import load_generator, load_renderer
from imtalker.avatars.identity import World
from imtalker.avatars.speech.espeak import EspeakError
from imtalker.avatars.speech.performance import Performance, perform
from imtalker.avatars.speech.texts import LANGUAGES, Split, lines
from imtalker.checkpoints import CheckpointError
from imtalker.generator.generator import MotionGenerator
from imtalker.renderer.renderer import Renderer
from imtalker.training.avatar_pictures import AvatarPool
from imtalker.training.cpu import tune_cpu
from imtalker.training.renderer_evaluation import RendererScores, evaluate_renderer, held_out_sheet
from imtalker.training.speech_evaluation import SpeechScores, evaluate_speech
from imtalker.training.state_reader import StateReader, fit_reader
from pipeline.errors import CannotRun
from pipeline.progress import RunProgress
from pipeline.weights import locate

EVALUATION = "evaluation.json"
PICTURES = "evaluation.png"
READER_STEPS = 8000
"""In which the reader learns what it can of its pictures."""

# Avatars that the reader learns from; their seed is above those of trainings.
_READER_SEED, _READER_GROUPS, _READER_STATES = 4000, 400, 6
_SILENCE_S = (1.0, 1.0)
_HEAD = ("yaw", "pitch", "roll")


@dataclass(frozen=True)
class EvaluationSettings:
    """What is judged, and how thoroughly."""

    output: Path
    """Folder of the reader and the scores."""
    model: str = "imtalker-demo"
    renderer: Path | None = None
    """Instead of the preset's."""
    generator: Path | None = None
    world: World = "full"
    identities: int = 24
    states: int = 8
    lines: int = 24
    languages: tuple[str, ...] = LANGUAGES
    reader_steps: int = READER_STEPS
    seed: int = 0


@dataclass(frozen=True)
class Score:
    """A row of the table. ``least`` and ``most`` are what a good model reaches; None where nothing is asked."""

    name: str
    value: float
    least: float | None = None
    most: float | None = None

    @property
    def reached(self) -> bool | None:
        if self.least is None and self.most is None:
            return None
        return (self.least is None or self.value >= self.least) and (self.most is None or self.value <= self.most)

    @property
    def target(self) -> str:
        bounds = [f"at least {self.least:g}" if self.least is not None else ""]
        bounds.append(f"at most {self.most:g}" if self.most is not None else "")
        return ", ".join(filter(None, bounds))


def judge(settings: EvaluationSettings, progress: RunProgress) -> list[Score]:
    """Judge the renderer, and the generator with it; the scores stand in ``output``, too.

    Raises CannotRun for weights that can't be used, and where espeak-ng is missing.
    """
    tune_cpu()
    renderer, generator = _networks(settings)
    performances = _performances(settings)
    settings.output.mkdir(parents=True, exist_ok=True)
    reader = _reader(settings, renderer.config.resolution, progress)
    progress.begin("pictures", settings.identities)
    pictures = evaluate_renderer(
        renderer,
        reader,
        identities=settings.identities,
        states=settings.states,
        seed=settings.seed,
        world=settings.world,
        report=lambda done, total: progress.advance(),
    )
    progress.begin("speech", len(performances))
    speech = evaluate_speech(
        renderer,
        generator,
        reader,
        performances,
        world=settings.world,
        report=lambda done, total: progress.advance(),
    )
    table = table_of(pictures, speech)
    rows = [asdict(score) | {"reached": score.reached} for score in table]
    (settings.output / EVALUATION).write_text(json.dumps(rows, indent=1) + "\n")
    sheet = held_out_sheet(renderer, world=settings.world)
    Image.fromarray((sheet * 255).round().byte().permute(1, 2, 0).numpy()).save(settings.output / PICTURES)
    return table


def table_of(pictures: RendererScores, speech: SpeechScores) -> list[Score]:
    """Every score with what is asked of it."""
    followed = {"mouth_open": 0.9, **dict.fromkeys(_HEAD, 0.9)}
    return [
        Score("own driver: PSNR (dB)", pictures.same_psnr_db, least=28),
        Score("own driver: SSIM", pictures.same_ssim, least=0.92),
        Score("another's driver: PSNR (dB)", pictures.other_psnr_db),
        Score("another's driver: SSIM", pictures.other_ssim),
        Score("another's driver: the portrait's head is the nearest", pictures.other_identified, least=0.95),
        Score("the portrait itself: PSNR (dB)", pictures.copied_psnr_db),
        *(
            Score(f"another's driver: {name} follows", value, least=followed.get(name))
            for name, value in pictures.other.items()
        ),
        *(Score(f"true pictures: {name} is read", value) for name, value in pictures.truth.items()),
        Score("speech: mouth opening follows, within a frame", speech.lip_correlation, least=0.75),
        Score("speech: lag of the mouth (frames)", speech.lip_lag, least=-1, most=1),
        Score("speech: the same with another line's truth", speech.wrong_correlation),
        Score("speech: mouth motion in silence, part of speech's", speech.silent_motion, most=0.2),
        Score("speech: lips of two seeds agree", speech.seeds_lips, least=0.9),
        Score("speech: heads of two seeds agree", speech.seeds_heads, most=0.5),
        Score("speech: heads turn, part of what true ones do", speech.head_motion),
        Score("speech: lids move, part of what true ones do", speech.lid_motion),
    ]


def table_text(table: list[Score]) -> str:
    """The scores as a Markdown table."""
    words = {None: "", True: "yes", False: "no"}
    rows = [f"| {s.name} | {s.value:.3f} | {s.target} | {words[s.reached]} |" for s in table]
    return "\n".join(["| score | value | asked | reached |", "|---|---|---|---|", *rows])


def _networks(settings: EvaluationSettings) -> tuple[Renderer, MotionGenerator]:
    named = {"renderer": settings.renderer, "generator": settings.generator}
    files = locate(settings.model, {part: str(path) for part, path in named.items() if path is not None})
    if files.renderer is None or files.generator is None:
        raise CannotRun(f"{settings.model} has no trained weights; name a model that has, or renderer and generator")
    try:
        return load_renderer(files.renderer), load_generator(files.generator, files.wav2vec2)
    except CheckpointError as exc:
        raise CannotRun(str(exc)) from exc


def _performances(settings: EvaluationSettings) -> list[Performance]:
    spoken = lines(
        settings.lines,
        seed=settings.seed,
        sentence_split=Split.HELD_OUT,
        voice_split=Split.HELD_OUT,
        languages=settings.languages,
    )
    try:
        return [
            perform(line.text, line.voice, seed=number, rate=line.rate, pitch=line.pitch, silence_s=_SILENCE_S)
            for number, line in enumerate(spoken)
        ]
    except EspeakError as exc:
        raise CannotRun(str(exc)) from exc


def _reader(settings: EvaluationSettings, resolution: int, progress: RunProgress) -> StateReader:
    """The reader in the output, else one that is fitted and kept there.

    Raises CannotRun for the file of a reader that was built otherwise.
    """
    path = settings.output / f"reader-{settings.world}-{resolution}-{settings.reader_steps}.safetensors"
    reader = StateReader(resolution)
    if path.exists():
        try:
            reader.load_state_dict(load_file(path))
        except (RuntimeError, SafetensorError, OSError) as exc:
            raise CannotRun(f"{path} is not a reader of this version: remove it, and one is fitted anew") from exc
        return reader.eval()
    progress.begin("avatars for the reader", 1)
    pool = AvatarPool.draw(_READER_SEED, _READER_GROUPS, _READER_STATES, resolution, settings.world)
    progress.advance()
    progress.begin("reader", settings.reader_steps)
    reader = fit_reader(pool, settings.reader_steps, report=lambda step, loss: progress.advance())
    save_file(reader.state_dict(), path)
    return reader

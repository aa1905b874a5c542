"""IMTalker behind the common interface, in the sizes of its presets or of files that carry their own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import TypeGuard

import numpy as np
import torch
from torch import Tensor

from imtalker import MotionGenerator, RenderEngine, Renderer, load_generator, load_renderer
from imtalker.audio.waveform import normalise
from imtalker.checkpoints import CheckpointError, load_audio_encoder
from imtalker.config import GeneratorConfig, RendererConfig
from imtalker.engine.audio import AudioBatches
from imtalker.engine.precision import usable
from imtalker.engine.sampler import MotionItem, MotionSampler
from imtalker.engine.source import PreparedSource
from imtalker.presets import Preset, find_preset, seeded_generator, seeded_renderer
from imtalker.safetensors_files import read_config, tensors_sha256
from pipeline.config import RunSettings
from pipeline.errors import CannotRun
from pipeline.machines.device import pick_device
from pipeline.reuse.fingerprint import digest
from pipeline.talker import Arrays, MotionRequest, TalkerInfo, Uses
from pipeline.weights import FEATURE_PARTS, PARTS, ModelFiles, locate, sha256_of

_VERSION = 2

_ENCODER = "audio_encoder"
"""Part of the weights: what hears, wherever it is stored."""

_USES = {
    # Motion codes are computed in float32 by networks that are not compiled, but packed otherwise beside compiled ones.
    "portrait": Uses(("renderer",), ("batch_size", "compile")),
    "driver": Uses(("renderer",), ("batch_size", "compile")),
    "audio": Uses((_ENCODER,), ("items_in_flight",)),
    "motion": Uses(("generator",), ("items_in_flight",)),
    "render": Uses(("renderer",), ("precision", "batch_size", "compile")),
}

_GPU_ITEMS_IN_FLIGHT = 32
"""Enough to fill a large GPU; on CPUs a batch gains little and unused rows cost as much as used ones."""

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def info(settings: RunSettings, *, features_only: bool = False) -> TalkerInfo:
    """Raises CannotRun when published weights are missing, or files can't be used together."""
    preset, files = _sized(find_preset(settings.model), settings, features_only)
    hashes = sha256_of(files)
    if hashes:
        hashes[_ENCODER] = _encoder_sha256(preset, files, hashes)
    return TalkerInfo(
        model=preset.name,
        version=_VERSION,
        resolution=preset.renderer.resolution,
        fps=int(preset.generator.fps),
        weights="random" if preset.weights == "seeded" else preset.weights,
        weights_sha256=hashes,
        features_only=features_only,
        uses=_USES,
        window=preset.generator.window,
    )


def load(settings: RunSettings, info: TalkerInfo) -> IMTalker:
    """Raises CannotRun for a device that is not there. Networks are loaded when first used."""
    return IMTalker(find_preset(settings.model), settings, info)


class IMTalker:
    """See `pipeline.talker.Talker` for what each method promises."""

    def __init__(self, preset: Preset, settings: RunSettings, info: TalkerInfo) -> None:
        self._preset, self._files = _sized(preset, settings, info.features_only)
        self._settings = settings
        self.info = info
        self.device = pick_device(settings.device)

    @property
    def precision(self) -> str:
        return str(usable(_DTYPES[self._settings.precision], self.device)).removeprefix("torch.")

    @property
    def shrunk(self) -> bool:
        made = (vars(self).get(name) for name in ("_engine", "_sampler", "_audio_batches"))
        return any(part.shrunk for part in made if part is not None)

    @cached_property
    def _renderer(self) -> Renderer:
        if self._preset.weights == "seeded":
            return seeded_renderer(self._preset).to(self.device)
        try:
            path = _needed(self._files.renderer)
            return load_renderer(path, config=self._preset.renderer).to(self.device)
        except CheckpointError as exc:
            raise CannotRun(str(exc)) from exc

    @cached_property
    def _hearing(self) -> MotionGenerator:
        """What hears: a generator with its audio encoder."""
        return self._load_generator(hears=True)

    @cached_property
    def _generator(self) -> MotionGenerator:
        """What moves. It takes features, and who makes motion has no room to give away."""
        return self._load_generator(hears=False)

    def _load_generator(self, *, hears: bool) -> MotionGenerator:
        if self._preset.weights == "seeded":
            return seeded_generator(self._preset, hears=hears).to(self.device)
        try:
            if self.info.features_only and self._files.generator is None:
                return self._untrained
            path, encoder = _needed(self._files.generator), self._files.wav2vec2
            return load_generator(path, encoder, config=self._preset.generator, hears=hears).to(self.device)
        except CheckpointError as exc:
            raise CannotRun(str(exc)) from exc

    @property
    def _untrained(self) -> MotionGenerator:
        """A generator that can only hear: its audio encoder is loaded, all else is new."""
        generator = MotionGenerator(self._preset.generator).eval()
        load_audio_encoder(generator, _needed(self._files.wav2vec2))
        return generator.to(self.device)

    @cached_property
    def _engine(self) -> RenderEngine:
        return RenderEngine(
            self._renderer,
            device=self.device,
            dtype=_DTYPES[self._settings.precision],
            batch_size=self._settings.batch_size,
            compile=self._settings.compile,
        )

    def warm(self, stage: str) -> None:
        if stage in ("features", "render"):
            self._renderer  # noqa: B018  (loads it)
        if stage == "features":
            self._hearing  # noqa: B018
        if stage == "motion":
            self._generator  # noqa: B018

    @cached_property
    def _rows(self) -> int:
        return self._settings.items_in_flight or (_GPU_ITEMS_IN_FLIGHT if self.device.type == "cuda" else 1)

    @cached_property
    def _sampler(self) -> MotionSampler:
        return MotionSampler(self._generator, device=self.device, rows=self._rows)

    @cached_property
    def _audio_batches(self) -> AudioBatches:
        return AudioBatches(self._hearing, device=self.device, rows=self._rows)

    def encode_portrait(self, image: np.ndarray) -> Arrays:
        """The portrait's own motion code, under ``motion`` [1, 32]."""
        return {"motion": self._engine.encode_motion(self._pictures(image[None])).cpu().numpy()}

    def encode_audio(self, waveforms: Sequence[np.ndarray]) -> list[Arrays]:
        """wav2vec2 features at the frame rate, under ``audio`` [T, 768]."""
        found = self._audio_batches.encode([normalise(torch.from_numpy(w)[None])[0] for w in waveforms])
        return [{"audio": features.cpu().numpy()} for features in found]

    def encode_driver(self, windows: Iterable[np.ndarray]) -> Arrays:
        """The motion code of every frame, under ``motion`` [T, 32]."""
        batches = rebatched(windows, self._settings.batch_size)
        codes = [self._engine.encode_motion(self._pictures(batch)).cpu().numpy() for batch in batches]
        width = self._preset.renderer.dim_motion
        return {"motion": np.concatenate(codes) if codes else np.zeros((0, width), np.float32)}

    def generate(self, requests: Sequence[MotionRequest]) -> list[Arrays]:
        """Flow matching on each recording's features with the portrait's code as reference."""
        items = [
            MotionItem(
                torch.from_numpy(request.audio["audio"]),
                torch.from_numpy(request.portrait["motion"])[0],
                request.seed,
                request.cfg_scale,
                request.nfe,
                **{name: torch.from_numpy(rows) for name, rows in request.controls.items()},
            )
            for request in requests
        ]
        return [{"motion": motion.cpu().numpy()} for motion in self._sampler.sample(items)]

    def prepare(self, image: np.ndarray, portrait: Arrays) -> PreparedSource:
        """All source-side work of the renderer."""
        return self._engine.prepare(self._pictures(image[None])[0])

    def render(self, prepared: PreparedSource, motion: Arrays) -> Iterator[np.ndarray]:
        """Frames in batches of the run's ``batch_size``."""
        for frames in self._engine.render(prepared, torch.from_numpy(motion["motion"])):
            yield frames.numpy()

    def inspect(self, frames: np.ndarray) -> Arrays:
        """``motion`` [n, 32] and ``identity`` [n, 512], the renderer's own."""
        motion, identity = self._engine.inspect(self._pictures(frames))
        return {"motion": motion.cpu().numpy(), "identity": identity.cpu().numpy()}

    def _pictures(self, images: np.ndarray) -> Tensor:
        """uint8 [n, R, R, 3] -> float [n, 3, R, R] in 0..1 on the device."""
        return torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2).float().div(255).contiguous()


def _sized(preset: Preset, settings: RunSettings, features_only: bool) -> tuple[Preset, ModelFiles]:
    """The files of a run, and the preset in the sizes that they carry; raises CannotRun if they can't go together."""
    files = locate(preset.name, settings.weights, parts=FEATURE_PARTS if features_only else PARTS)
    try:
        if _carries_sizes(files.renderer):
            preset = replace(preset, renderer=read_config(files.renderer, "renderer", RendererConfig, None))
        if _carries_sizes(files.generator):
            preset = replace(preset, generator=read_config(files.generator, "generator", GeneratorConfig, None))
    except CheckpointError as exc:
        raise CannotRun(str(exc)) from exc
    codes = preset.renderer.dim_motion, preset.generator.dim_motion
    if codes[0] != codes[1] and not features_only:
        raise CannotRun(
            f"the renderer {files.renderer} takes motion codes of {codes[0]} numbers, the generator {files.generator} "
            f"makes {codes[1]}; name two files that were trained together"
        )
    return preset, files


def _encoder_sha256(preset: Preset, files: ModelFiles, hashes: Mapping[str, str]) -> str:
    """Of the audio encoder and of its sizes: a generator that was trained on beside a frozen one keeps it."""
    own = None
    if _carries_sizes(files.generator):
        try:
            own = tensors_sha256(files.generator, "audio_encoder.")
        except CheckpointError as exc:
            raise CannotRun(str(exc)) from exc
    # In a checkpoint the encoder can't be told from the rest without loading it all; it wins over one beside it.
    stored = own or [hashes.get("generator"), hashes.get("wav2vec2")]
    return digest([stored, asdict(preset.generator.wav2vec2), preset.generator.fps])


def _carries_sizes(path: Path | None) -> TypeGuard[Path]:
    return path is not None and path.suffix == ".safetensors"


def _needed(path: Path | None) -> Path:
    if path is None:
        raise CannotRun("a part of the weights has no file; name it with --weights")
    return path


def rebatched(windows: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The same frames in batches of exactly ``size``, but for the last."""
    kept: list[np.ndarray] = []
    for window in windows:
        for frame in window:
            kept.append(frame)
            if len(kept) == size:
                yield np.stack(kept)
                kept = []
    if kept:
        yield np.stack(kept)

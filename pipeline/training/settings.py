"""Settings of trainings. A YAML file, flags and defaults all end as one `RendererSettings` or `GeneratorSettings`.

Those of the audio encoder are in `pipeline.training.audio`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import Field, PositiveInt, TypeAdapter, ValidationError, field_validator, model_validator

from imtalker.config import AudioEncoderConfig, GeneratorConfig, RendererConfig
from imtalker.presets import find_preset
from imtalker.training.discriminator import check_batch
from imtalker.training.losses import Distance
from imtalker.training.motion_clips import ReferenceFrame
from imtalker.training.perceptual import VGG_RESOLUTION
from imtalker.training.state_codes import StateCodes
from pipeline.config import InputLimits, Settings
from pipeline.document import parse_document, read_document

AVATARS = "avatars"
"""The data that are drawn, not read."""

Config = TypeVar("Config", RendererConfig, GeneratorConfig, AudioEncoderConfig)


class BasicSettings(Settings):
    """What every training has."""

    output: Path = Field(description="folder of the checkpoint, the log and the weights")
    steps: int = Field(ge=1, description="updates in all")
    model: str = Field("imtalker", description="preset whose sizes are taken")
    sizes: dict[str, Any] = Field(default_factory=dict, description="sizes that differ from the preset's")
    seed: int = Field(0, ge=0, lt=4000, description="of new weights, batches and noise")
    batch: int = Field(ge=1, description="samples in an update")
    learning_rate: float = Field(gt=0)
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU where there is one")
    report_every: int = Field(50, ge=1, description="steps between lines of the log")
    checkpoint_every: int = Field(500, ge=1, description="steps between checkpoints")
    validate_every: int = Field(1000, ge=1, description="steps between validations")
    progress_seconds: float = Field(30.0, gt=0, description="interval of progress lines where there is no terminal")

    @field_validator("model")
    @classmethod
    def _known(cls, name: str) -> str:
        find_preset(name)
        return name


class TrainingSettings(BasicSettings):
    """What the trainings have that may be spread over several processes."""

    start: Path | None = Field(None, description="checkpoint whose weights a new training begins with")
    accumulate: int = Field(1, ge=1, description="parts that a batch is worked through in")
    average: float = Field(gt=0, lt=1, description="decay of the running average of the weights")
    precision: Literal["float32", "bfloat16", "float16"] = Field("float32", description="of autocast")
    optimiser: Literal["adam", "muon"] = Field("adam", description="adam, as published, or muon")
    workers: int = Field(1, ge=1, description="processes that share every batch; more than one: Ray Train")
    gpus_per_worker: float | None = Field(None, ge=0, description="default: 1 where the cluster has GPUs, else 0")
    cpus_per_worker: float | None = Field(None, gt=0, description="default: a worker's share of the CPUs, at most 8")
    restarts: int = Field(0, ge=0, description="how often workers that died are replaced")
    address: str | None = Field(None, description="Ray cluster to join; default: one of its own")

    @model_validator(mode="after")
    def _divides(self) -> Self:
        parts = self.accumulate * self.workers
        if self.batch % parts:
            raise ValueError(f"batch {self.batch} can't be cut into accumulate * workers = {parts} equal parts")
        return self


class LossWeights(Settings):
    """Of the terms of the renderer's loss."""

    pixels: float = Field(1.0, ge=0)
    squares: float = Field(0.0, ge=0)
    perceptual: float = Field(0.5, ge=0)
    face: float = Field(0.05, ge=0)
    identity: float = Field(0.0, ge=0)
    adversarial: float = Field(0.0, ge=0)
    routing: float = Field(0.1, ge=0, description="avatars only")
    codes: float = Field(0.2, ge=0, description="avatars only")


class AvatarSettings(Settings):
    """Which avatars are drawn."""

    world: Literal["full", "narrow"] = Field("full", description="how much avatars differ")
    groups: int = Field(400, ge=2, description="groups of four avatars that are drawn at a time")
    states: int = Field(12, ge=2, description="pictures of each avatar")
    steps: int = Field(10_000, ge=1, description="steps after which new avatars are drawn")
    targets: int = Field(2, ge=1, description="pictures to make of each avatar in a batch")
    strangers: float = Field(0.5, ge=0, le=1, description="how often another avatar drives")


class RendererSettings(TrainingSettings):
    """A training of the renderer."""

    data: str = Field(AVATARS, min_length=1, description="avatars, or a folder in the published layout")
    batch: int = Field(8, ge=1, description="reference pictures in an update, over all workers and parts")
    learning_rate: float = Field(1e-3, gt=0)
    average: float = Field(0.999, gt=0, lt=1, description="decay of the running average of the weights")
    equalised_rate: float = Field(10.0, gt=0, description="times the learning rate, for layers of unit spread")
    floor: float = Field(2e-5, gt=0, description="learning rate at the end")
    warmup: int = Field(200, ge=0, description="steps up to the full learning rate")
    again: list[PositiveInt] = Field([], description="steps of each further fall of the rate, at the end")
    again_rate: float = Field(0.25, gt=0, description="of the learning rate, where such a part begins")
    weights: LossWeights = LossWeights()
    helped: int = Field(6000, ge=1, description="steps over which routing and codes fade")
    codes_told: int = Field(0, ge=0, description="steps at first with motion codes of the true states; avatars only")
    routes_told: int = Field(0, ge=0, description="steps at first in which the truth routes; avatars only")
    routes_near: int = Field(0, ge=0, description="steps up to which attention looks near the truth; avatars only")
    routes_part: int = Field(0, ge=0, description="steps up to which it is alone in a quarter; avatars only")
    codes_first: int = Field(
        0, ge=0, description="steps in which the motion encoder alone learns avatars' states, before"
    )
    codes_rate: float = Field(1e-3, gt=0, description="their learning rate")
    codes_fixed: bool = Field(False, description="leave the motion encoder afterwards as it is")
    routes_first: int = Field(0, ge=0, description="steps after those in which the routing alone learns")
    routes_rate: float = Field(1e-3, gt=0, description="their learning rate")
    norms: bool = Field(True, description="batch norms while training, folded away in the weights; not with start")
    norms_learn: int = Field(2000, ge=0, description="steps after which the norms keep their statistics")
    discriminator_width: int = Field(64, ge=1, description="most channels of the adversary; 512 as published")
    vgg: Path | None = Field(None, description="VGG-19 of torchvision (vgg19-*.pth) for the perceptual loss")
    avatars: AvatarSettings = AvatarSettings()
    limits: InputLimits = InputLimits()

    @property
    def config(self) -> RendererConfig:
        return sized(find_preset(self.model).renderer, self.sizes)

    @property
    def targets(self) -> int:
        """Pictures to make of each reference: a clip gives one."""
        return self.avatars.targets if self.data == AVATARS else 1

    @model_validator(mode="after")
    def _fits(self) -> Self:
        config = sized(find_preset(self.model).renderer, self.sizes)
        if self.vgg is not None and config.resolution < VGG_RESOLUTION:
            raise ValueError(f"vgg needs pictures of {VGG_RESOLUTION} pixels or more, found {config.resolution}")
        if self.norms and self.start is None and self.batch == self.accumulate * self.workers:
            raise ValueError(
                "norms need two references or more in every part of a batch: raise batch, or set norms: false"
            )
        if sum(self.again) >= self.steps:
            raise ValueError(f"again is a part of steps: expected less than {self.steps}, found {sum(self.again)}")
        helped = ("codes_first", "routes_first", "codes_told", "routes_told", "routes_near", "routes_part")
        if self.data != AVATARS and (wanted := [name for name in helped if getattr(self, name)]):
            raise ValueError(f"{', '.join(wanted)}: pictures whose states are known are needed, data: avatars")
        if (self.codes_first or self.codes_told) and config.dim_motion < StateCodes.SHORTEST:
            raise ValueError(f"codes that tell a state have dim_motion {StateCodes.SHORTEST} or more")
        if self.weights.adversarial:
            check_batch(self.batch // (self.accumulate * self.workers) * self.targets)
        return self


class DropoutSettings(Settings):
    """How often the generator's conditions are dropped."""

    now: float = Field(0.1, ge=0, le=1, description="of the frames to be made")
    before: float = Field(0.5, ge=0, le=1, description="of the context; its motion too")
    speech_only: float = Field(0.0, ge=0, le=1, description="pose, camera and gaze together, of all frames")


class GeneratorSettings(TrainingSettings):
    """A training of the motion generator."""

    data: Path = Field(description="folder in the published layout")
    batch: int = Field(16, ge=1, description="runs of frames in an update, over all workers and parts")
    learning_rate: float = Field(1e-4, gt=0)
    average: float = Field(0.9999, gt=0, lt=1, description="decay of the running average of the weights")
    dropout: DropoutSettings = DropoutSettings()
    seam_weight: float = Field(0.0, ge=0, description="of errors where a window's first frame joins its context")
    distance: Distance = Field("absolute", description="how errors are averaged, absolute (published) or squared")
    reference: ReferenceFrame = Field("run", description="whose frames are taken as reference: the run's or the clip's")
    audio_encoder: Path | None = Field(None, description="wav2vec2 folder that made the clips' audio features")

    @property
    def config(self) -> GeneratorConfig:
        return sized(find_preset(self.model).generator, self.sizes)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.start is None and self.audio_encoder is None and find_preset(self.model).weights != "seeded":
            raise ValueError(
                "give audio_encoder, the wav2vec2 folder that made the clips' audio features, or start, a checkpoint "
                "that holds it: it becomes part of the generator's file"
            )
        sized(find_preset(self.model).generator, self.sizes)
        return self


AnySettings = TypeVar("AnySettings", bound=BasicSettings)

_PATHS = ("output", "data", "start", "vgg", "audio_encoder")


def load_settings(model: type[AnySettings], config: Path | None, flags: Mapping[str, Any]) -> AnySettings:
    """Settings of a YAML file with flags laid over it; flags that are None were not given.

    Relative paths stand in the file's own folder, those of flags in the working folder. Raises CannotRun naming every
    unknown key and every value that isn't allowed.
    """
    document: dict[str, Any] = {}
    if config is not None:
        document = _located(read_document(config, "training file"), config.absolute().parent)
    given = {name: value for name, value in flags.items() if value is not None}
    document |= _located(given, Path.cwd())
    return parse_document(model, document, str(config or "command line"), kind="training")


def sized(base: Config, sizes: Mapping[str, Any]) -> Config:
    """``base`` with other sizes. Raises ValueError for unknown names and for values that don't go together."""
    _check_names(base, sizes)
    merged = asdict(base)
    for name, value in sizes.items():
        merged[name] = merged[name] | value if isinstance(value, Mapping) else value
    try:
        return TypeAdapter(type(base)).validate_python(merged)
    except ValidationError as exc:
        first: Any = exc.errors()[0]
        name = ".".join(map(str, ("sizes", *first["loc"])))
        raise ValueError(f"{name}: {first['msg'].removeprefix('Value error, ')}") from None


def _check_names(base: Any, sizes: Mapping[str, Any], prefix: str = "") -> None:
    known = {field.name: getattr(base, field.name) for field in fields(base)}
    for name, value in sizes.items():
        if name not in known:
            raise ValueError(f"sizes.{prefix}{name}: unknown size; known: {', '.join(known)}")
        if is_dataclass(known[name]):
            if not isinstance(value, Mapping):
                raise ValueError(f"sizes.{prefix}{name} holds sizes of its own, found {value!r}")
            _check_names(known[name], value, f"{prefix}{name}.")


def _located(document: dict[str, Any], folder: Path) -> dict[str, Any]:
    def absolute(name: str, value: Any) -> Any:
        return str(folder / value) if isinstance(value, str | Path) and value != AVATARS else value

    return {name: absolute(name, value) if name in _PATHS else value for name, value in document.items()}

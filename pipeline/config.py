"""Settings of a run. Job files, command-line flags and defaults all end as one `RunSettings`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pipeline.metrics.catalogue import Level
from pipeline.metrics.gates import Gate, check_names


class Settings(BaseModel):
    """Base of all settings: immutable, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class VideoSettings(Settings):
    """How the output is encoded: H.264 yuv420p in closed segments, AAC, MP4 with faststart."""

    encoder: Literal["libx264", "nvenc"] = Field(
        "libx264", description="nvenc: the GPU's own encoder; a run ends where a worker's GPU has none"
    )
    crf: int = Field(18, ge=0, le=51, description="H.264 quality; lower is better and larger")
    preset: Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower"] = Field(
        "veryfast", description="libx264 speed preset; nvenc takes its nearest"
    )
    threads: int = Field(1, ge=1, le=16, description="libx264 threads; part of the result, so it is fixed")
    segment_seconds: float = Field(10.0, gt=0, description="length of the closed segments")
    audio_bitrate: int = Field(128_000, ge=16_000, le=512_000, description="AAC bits a second")


class InputLimits(Settings):
    """What an input file may cost before it is refused, and where it may come from."""

    max_file_bytes: int = Field(2_000_000_000, gt=0)
    max_image_pixels: int = Field(64_000_000, gt=0)
    max_video_pixels: int = Field(3840 * 2160, gt=0, description="pixels of one frame of a driver")
    max_media_seconds: float = Field(4 * 3600.0, gt=0)
    max_video_frames: int = Field(4 * 3600 * 60, gt=0, description="frames stored in a driver")
    max_decoder_bytes: int = Field(
        4 << 30, ge=1 << 29, description="memory of a process that decodes inputs (address space)"
    )
    decode_floor_s: float = Field(60.0, gt=0, description="how long any file may take to decode")
    decode_s_per_s: float = Field(6.0, gt=0, description="and how much longer for each second that it lasts")
    max_fetch_s: float = Field(3600.0, gt=0, description="how long copying a file from its storage may take")
    local_files: bool | None = Field(
        None, description="whether rows may name files of the workers' disks; default: not in submitted jobs"
    )
    private_addresses: bool | None = Field(
        None, description="whether rows may name web servers in private networks; default: not in submitted jobs"
    )

    def decoding_s(self, media_s: float) -> float:
        """How long decoding so many seconds of media may take; 0 for a picture."""
        return self.decode_floor_s + self.decode_s_per_s * media_s


class RetrySettings(Settings):
    """How often a storage that is busy or out of reach is asked again, within a stage."""

    attempts: int = Field(4, ge=1, le=20, description="the first one included")
    first_wait_s: float = Field(1.0, ge=0, description="before the second attempt; twice as long before each further")
    longest_wait_s: float = Field(30.0, ge=0)


class CacheSettings(Settings):
    """What becomes of crops, features and motion, which a later run may want again."""

    keep: bool = Field(True, description="false: they are removed at the end of the run")
    max_bytes: int = Field(
        20_000_000_000, ge=0, description="size at the end of a run; the least recently used go first"
    )


class SigningSettings(Settings):
    """Who signs the videos' manifests; without a certificate each run makes one that it throws away."""

    certificate: str | None = Field(None, description="PEM file: the signer's certificate first, then its chain")
    key: str | None = Field(None, description="PEM file: the certificate's private key, without a pass phrase")

    @model_validator(mode="after")
    def _both(self) -> SigningSettings:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("expected both certificate and key, or neither")
        return self


class StageResources(Settings):
    """What each actor of a stage gets from Ray. Unset fields are filled from the machine at the plan."""

    actors: int | None = Field(None, ge=1)
    num_cpus: float | None = Field(None, ge=0)
    num_gpus: float | None = Field(None, ge=0)
    threads: int | None = Field(None, ge=1, description="torch threads; default: num_cpus, rounded up")


class RenderResources(StageResources):
    """What each actor of the render stage gets."""

    encoders: int | None = Field(
        None, ge=1, le=64, description="encoder threads; default: num_cpus up to 8 on GPUs, 1 without"
    )
    split_seconds: float | None = Field(
        300.0, gt=0, description="longer items are rendered in parts, by any of the actors; null: never"
    )


class Resources(Settings):
    crop: StageResources = StageResources()
    features: StageResources = StageResources()
    motion: StageResources = StageResources()
    render: RenderResources = RenderResources()


class MetricWeights(Settings):
    """Files of networks that only measure; nothing of them is fetched."""

    syncnet: str | None = Field(None, description="syncnet_v2.model, for lse_c and lse_d; a path on every worker")
    arcface: str | None = Field(None, description="backbone.pth of ArcFace's iResNet, for csim")
    lpips_backbone: str | None = Field(None, description="torchvision's AlexNet, for driver_lpips; with lpips")
    lpips: str | None = Field(None, description="alex.pth: LPIPS's weights of AlexNet's features; with lpips_backbone")

    @model_validator(mode="after")
    def _both(self) -> MetricWeights:
        if (self.lpips is None) != (self.lpips_backbone is None):
            raise ValueError("expected both lpips and lpips_backbone, or neither")
        return self


class RunSettings(Settings):
    """Everything that shapes a run except the manifest and where the output goes.

    A manifest row's own columns (``seed``, ``cfg_scale``, ``nfe``, ``crop``, ``motion_from``) win over these.
    """

    model: str = Field("imtalker", description="preset: imtalker, imtalker-demo, imtalker-tiny")
    weights: dict[str, str] = Field(
        default_factory=dict,
        description="paths of weights: renderer, generator, wav2vec2; else the model store",
    )
    # what the model is asked for
    cfg_scale: float = Field(3.0, ge=0, le=20, description="guidance: how strongly the audio shapes the motion")
    nfe: int = Field(10, ge=1, le=200, description="points of the motion solver's time grid")
    seed: int = Field(42, ge=0, description="the run seed; an item's own seed follows from it and its inputs")
    motion_from: Literal["audio", "driver"] | None = Field(
        None, description="where the motion comes from in rows that have both and don't say themselves"
    )
    max_seconds: float | None = Field(None, gt=0, description="cut every item to this length")
    # faces
    crop: bool = Field(True, description="find the face and cut around it; without, the picture is only resized")
    crop_rule: Literal["auto", "audio", "video", "app"] = Field(
        "auto", description="published crop rule; auto takes the one of the item's mode"
    )
    face: Literal["largest", "first"] = Field(
        "largest", description="which of several faces: the largest, or the surest"
    )
    detector: Literal["dlib", "s3fd"] = Field("dlib", description="face detector; s3fd needs the extra of that name")
    driver_face: Literal["checked", "unchecked"] = Field("checked", description="whether a driver must show a face")
    # numerics
    precision: Literal["float32", "bfloat16", "float16"] = Field("float32", description="of the renderer's networks")
    batch_size: int = Field(4, ge=1, le=64, description="frames rendered at once; part of the result")
    compile: bool = Field(
        False, description="let torch compile the renderer when an actor starts; minutes, for long runs on GPUs"
    )
    items_in_flight: int | None = Field(
        None,
        ge=1,
        le=256,
        description="recordings encoded, and motions made, in one batch; default: 32 on GPUs, 1 without",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU where the worker has one")
    # labels and provenance
    label: Literal["none", "eu", "cn"] = Field(
        "eu",
        description="how videos say that they are AI-generated; eu: signed and machine-readable; cn: visible too; "
        "none: in plain tags only",
    )
    producer: str | None = Field(None, min_length=1, description="who provides the videos, for their labels")
    require_consent: bool = Field(False, description="refuse rows whose column consent is empty")
    signing: SigningSettings = SigningSettings()
    # what is measured
    metrics: Level = Field(
        "basic", description="off, basic, or full: curves too, at the cost of encoding every frame again"
    )
    landmarks: Literal["auto", "always", "off"] = Field(
        "auto",
        description="mouth, pose, gaze and blinks by the extra of that name; auto: with metrics: full, if it is there",
    )
    metric_weights: MetricWeights = MetricWeights()
    gates: dict[str, Gate] = Field(default_factory=dict, description="bounds of metrics, over the default ones")
    # output, limits, machines
    video: VideoSettings = VideoSettings()
    limits: InputLimits = InputLimits()
    retries: RetrySettings = RetrySettings()
    cache: CacheSettings = CacheSettings()
    resources: Resources = Resources()
    storage_options: dict[str, Any] = Field(
        default_factory=dict, description="fsspec options by protocol, e.g. {s3: {endpoint_url: ...}}"
    )
    report: bool = Field(True, description="write `report.html` when the run has ended")
    download: bool = Field(True, description="fetch missing published weights before the run")
    progress_seconds: float = Field(30.0, gt=0, description="interval of progress lines where there is no terminal")

    @model_validator(mode="after")
    def _named(self) -> RunSettings:
        if self.label == "cn" and self.producer is None:
            raise ValueError("label: cn names who provides the videos: set producer, too")
        return self

    @field_validator("gates")
    @classmethod
    def _known_metrics(cls, gates: dict[str, Gate]) -> dict[str, Gate]:
        if wrong := list(check_names(gates)):
            raise ValueError("; ".join(wrong))
        return gates

    @model_validator(mode="after")
    def _gates_are_measured(self) -> RunSettings:
        if self.metrics == "off" and any(gate.action == "fail" for gate in self.gates.values()):
            raise ValueError("gates that fail items need metrics: basic or full, but metrics is off")
        return self

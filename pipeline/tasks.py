"""What travels between stages: small messages, as JSON in one column, so that no schema is ever guessed."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.accounting.usage import Share
from pipeline.errors import ErrorRecord
from pipeline.retry import Retries

Mode = Literal["audio", "driver"]
AssetKind = Literal["portrait", "audio", "driver"]

SMALLER_BATCHES = "smaller_batches"
"""Flag of an item that was made in smaller batches than asked for, since a device had too little memory."""

MIXED_DEVICES = "mixed_devices"
"""Flag of an item whose parts were rendered on devices of several kinds: equal frames are promised on one kind only."""


class Input(BaseModel):
    """One input file as it was read."""

    uri: str
    size: int
    sha256: str


class Worker(BaseModel):
    """Where and when a stage ran."""

    pid: int
    node: str
    gpus: str = Field(description="CUDA_VISIBLE_DEVICES of the process")
    gpu: str = Field("", description="name of the GPU that the process sees first; empty without GPU")
    threads: int | None = Field(None, description="torch threads of the stage")
    started_at: float | None = Field(None, description="Unix time, by the worker's clock")
    ended_at: float | None = None


class Part(BaseModel):
    """A range of a long item's frames, which is rendered by itself."""

    index: int
    count: int = Field(description="parts of the item")
    first: int = Field(description="index of its first frame, a whole number of closed segments")
    frames: int
    key: str | None = Field(None, description="store key of its file, once that is there")
    seconds: float = Field(0.0, description="of the worker that rendered it")
    device_s: float | None = Field(None, description="seconds that it had the device; None where it was there already")
    worker: Worker | None = None


class Task(BaseModel):
    """What every message carries."""

    model_config = ConfigDict(validate_assignment=False)

    key: str
    error: ErrorRecord | None = None
    seconds: dict[str, float] = Field(default_factory=dict)
    workers: dict[str, Worker] = Field(default_factory=dict)
    computed: list[str] = Field(default_factory=list, description="stages that computed rather than reused")
    claim: str | None = Field(None, description="store key of the claim to make before it is begun")
    retries: dict[str, Retries] = Field(default_factory=dict, description="what had to be tried again, by stage")


class AssetTask(Task):
    """A distinct portrait, recording or driver: made once a run, however many items name it."""

    kind: AssetKind
    uri: str
    crop: bool = False
    crop_rule: Literal["audio", "video", "app"] = "audio"
    needs_features: bool = True
    """False for a recording that only gives its sound."""
    items: int = Field(0, description="items of the run that name it; they share its cost")
    # filled in on the way
    input: Input | None = None
    picture: str | None = Field(None, description="store key of the cropped portrait, or of the look at the driver")
    arrays: str | None = Field(None, description="store key of codes, features or motion")
    frames: int | None = Field(None, description="length at the model's frame rate")
    samples: int | None = Field(None, description="length at 16 kHz")
    faces_seen: int | None = None
    facts: dict[str, Any] = Field(default_factory=dict)


class ItemTask(Task):
    """One video to make. ``key`` is the item's id."""

    index: int
    mode: Mode
    portrait: AssetTask
    audio: AssetTask | None = None
    driver: AssetTask | None = None
    pose: str | None = None
    camera: str | None = None
    gaze: str | None = None
    seed: int | None = None
    cfg_scale: float
    nfe: int
    settings: dict[str, Any] = Field(
        default_factory=dict, description="what shapes the result, the row's before the run's"
    )
    consent: str | None = Field(None, description="what the manifest says of the consent of who is shown and heard")
    same_identity: bool = Field(False, description="portrait and driver show one person, as the manifest says")
    request: str = Field(description="fingerprint of what was asked, before any input is read")
    identities: dict[str, str | None] = Field(default_factory=dict, description="inputs as the plan saw them")
    flags: list[str] = Field(default_factory=list)
    fence: int | None = Field(None, description="token of the run's lease")
    shares: dict[str, Share] = Field(default_factory=dict, description="what an actor of each stage has")
    # filled in on the way
    inputs: dict[str, Input] = Field(default_factory=dict)
    fingerprint: str | None = None
    motion: str | None = Field(None, description="store key of the motion")
    frames: int | None = None
    part: Part | None = Field(None, description="what of the item this task is to render; None for all of it")
    parts: list[Part] = Field(default_factory=list, description="what has been rendered of it, to be joined")
    video: dict[str, Any] | None = None
    metrics: dict[str, Any] = Field(default_factory=dict, description="by name, see pipeline.metrics.catalogue")

    def flag(self, name: str) -> None:
        """Note a flag, once."""
        if name not in self.flags:
            self.flags.append(name)

    @property
    def self_reenactment(self) -> bool:
        """Whether its frames should be the driver's."""
        return self.same_identity and self.mode == "driver"

    @property
    def uris(self) -> dict[str, str]:
        """The files that it is made from, by the manifest's names for them."""
        assets = {"image": self.portrait, "audio": self.audio, "driver": self.driver}
        named = {role: asset.uri for role, asset in assets.items() if asset is not None}
        controls = {"pose": self.pose, "camera": self.camera, "gaze": self.gaze}
        return named | {role: uri for role, uri in controls.items() if uri is not None}

    @property
    def due_frames(self) -> int:
        """How many frames the video will have, once the length of its sources is known; else 0."""
        lengths = [asset.frames for asset in (self.audio, self.driver) if asset is not None]
        return min((length or 0 for length in lengths), default=0)

"""Sizes of the networks. The defaults are the published model; every other size follows by changing a field."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class RendererConfig:
    """Sizes of the renderer (IMTalker, arXiv 2511.22167, section 3.2).

    Lists of maps run from coarse to fine. Level ``i`` has resolution ``coarsest << i``.
    """

    resolution: int = 512
    """Width and height of pictures, in pixels."""
    channels: tuple[int, ...] = (512, 512, 256, 128, 64, 32)
    """Width of the identity features at each level; the last level is half the picture's resolution."""
    motion_levels: int = 4
    """How many levels the motion decoder makes maps for; each is as wide as ``channels`` at that level."""
    motion_encoder_channels: tuple[int, ...] = (64, 128, 256, 512, 512, 512)
    """Widths of the motion encoder: the stem, then one per halving."""
    dim_motion: int = 32
    dim_identity: int = 512
    dim_hidden: int = 512
    """Width of the linear stacks of the motion encoder and of the identity-adaptive module."""
    num_heads: int = 8
    window_size: int = 8
    swin_res_threshold: int = 128
    """Below this resolution attention is full; from it on, windows (synthesis) and the resampler (transfer)."""

    synthesis_threshold: int | None = None
    """The resolution from which on the synthesis network attends in windows, if it is not ``swin_res_threshold``."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))
        object.__setattr__(self, "motion_encoder_channels", tuple(self.motion_encoder_channels))
        if self.resolution % (1 << (len(self.channels) + 1)):
            raise ValueError(
                f"resolution {self.resolution} must be a multiple of {1 << (len(self.channels) + 1)} "
                f"for {len(self.channels)} levels"
            )
        if self.motion_levels > len(self.channels):
            raise ValueError(f"motion_levels {self.motion_levels} exceeds the {len(self.channels)} levels")
        attending = [r for r in self.level_resolutions if r < self.swin_res_threshold]
        if not attending or len(attending) > self.motion_levels:
            raise ValueError(
                f"swin_res_threshold {self.swin_res_threshold} lets {len(attending)} of the levels "
                f"{self.level_resolutions} attend; it must be between 1 and motion_levels={self.motion_levels}"
            )
        if len(attending) < len(self.channels) and 2 * attending[-1] != self.swin_res_threshold:
            raise ValueError(
                f"swin_res_threshold {self.swin_res_threshold} must be twice a level's resolution "
                f"({self.level_resolutions})"
            )
        for width in self.channels:
            if width % self.num_heads:
                raise ValueError(f"channel width {width} is not a multiple of num_heads {self.num_heads}")

    @property
    def coarsest(self) -> int:
        """Resolution of level 0."""
        return self.resolution >> len(self.channels)

    @property
    def level_resolutions(self) -> tuple[int, ...]:
        return tuple(self.coarsest << i for i in range(len(self.channels)))

    @property
    def attention_levels(self) -> int:
        """How many levels of the motion transfer use attention; the finer ones follow its last map."""
        return sum(r < self.swin_res_threshold for r in self.level_resolutions)

    @property
    def first_windows(self) -> int:
        """Resolution from which on the synthesis network attends in windows."""
        return self.swin_res_threshold if self.synthesis_threshold is None else self.synthesis_threshold


@dataclass(frozen=True)
class AudioEncoderConfig:
    """Sizes of the wav2vec2 encoder, under transformers' own names (defaults: facebook/wav2vec2-base-960h)."""

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    conv_dim: tuple[int, ...] = (512,) * 7
    num_conv_pos_embeddings: int = 128
    num_conv_pos_embedding_groups: int = 16

    def __post_init__(self) -> None:
        object.__setattr__(self, "conv_dim", tuple(self.conv_dim))
        if len(self.conv_dim) != 7:
            raise ValueError(f"conv_dim has {len(self.conv_dim)} entries; the seven strides that make 50 Hz are fixed")


@dataclass(frozen=True)
class GeneratorConfig:
    """Sizes of the motion generator (IMTalker, arXiv 2511.22167, section 3.3), under the published names."""

    fps: float = 25.0
    sampling_rate: int = 16000
    wav2vec_sec: float = 2.0
    """Seconds of a window."""
    num_prev_frames: int = 10
    """Frames of the previous window that a window sees."""
    dim_motion: int = 32
    dim_c: int = 32
    """Width of the projected conditions."""
    dim_h: int = 512
    fmt_depth: int = 8
    num_heads: int = 8
    mlp_ratio: float = 4.0
    join_frames: int = 0
    """Frames at a window's begin that are bent to go on from the window before; 0, as published: none."""
    wav2vec2: AudioEncoderConfig = field(default_factory=AudioEncoderConfig)

    def __post_init__(self) -> None:
        if isinstance(self.wav2vec2, dict):
            object.__setattr__(self, "wav2vec2", AudioEncoderConfig(**self.wav2vec2))
        if self.join_frames and (not 2 <= self.join_frames <= self.window or self.num_prev_frames < 2):
            raise ValueError(
                f"join_frames {self.join_frames} must be 0, or 2 to the {self.window} of a window, with 2 or more "
                f"previous frames, found {self.num_prev_frames}"
            )
        if self.dim_h % self.num_heads or (self.dim_h // self.num_heads) % 2:
            raise ValueError(f"dim_h {self.dim_h} must split into {self.num_heads} heads of even size")
        if self.dim_h % 2:
            raise ValueError(f"dim_h {self.dim_h} must be even")

    @property
    def window(self) -> int:
        """Frames of a window."""
        return int(self.wav2vec_sec * self.fps)

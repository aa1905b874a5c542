"""The motion generator: speech and a reference in, motion out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from imtalker.audio.encoder import FRAME_SAMPLES, AudioEncoder
from imtalker.audio.waveform import frames_for
from imtalker.config import GeneratorConfig
from imtalker.generator.conditions import (
    CAMERA_WIDTH,
    GAZE_WIDTH,
    POSE_WIDTH,
    Conditions,
    fit_sequence,
    projection,
)
from imtalker.generator.sampling import draw_noise, sample_windows
from imtalker.generator.transformer import FlowMatchingTransformer


class MotionGenerator(nn.Module):
    """Flow matching from audio to motion (IMTalker, arXiv 2511.22167, section 3.3).

    Motion is sampled in windows of L frames that each see the P frames before them. Parameter names and shapes
    are those of the published checkpoint. Weights start as training starts; load trained ones before sampling.
    Inputs of sampling are moved to the module's device and dtype. Raises ValueError if the config's frame rate
    is not the audio encoder's.

    With ``hears`` False it has no audio encoder: it takes features that another one made, and `encode_audio` and
    `sample` raise ValueError.
    """

    def __init__(self, config: GeneratorConfig, *, hears: bool = True) -> None:
        super().__init__()
        if config.sampling_rate != config.fps * FRAME_SAMPLES:
            raise ValueError(
                f"the audio encoder gives one frame for {FRAME_SAMPLES} samples, so sampling_rate must be "
                f"{FRAME_SAMPLES} * fps; found sampling_rate={config.sampling_rate} and fps={config.fps}"
            )
        self.config = config
        if hears:
            self.audio_encoder = AudioEncoder(config.wav2vec2)
        self.fmt = FlowMatchingTransformer(config)
        self.audio_projection = projection(config.wav2vec2.hidden_size, config.dim_c)
        self.gaze_projection = projection(GAZE_WIDTH, config.dim_c)
        self.pose_projection = projection(POSE_WIDTH, config.dim_c)
        self.cam_projection = projection(CAMERA_WIDTH, config.dim_c)

    def forward(
        self,
        t: torch.Tensor,
        state: torch.Tensor,
        previous: torch.Tensor,
        reference: torch.Tensor,
        conditions: Conditions,
    ) -> torch.Tensor:
        """Velocity of one window without guidance, [B, L, dim_motion]; its target is ``motion - noise``.

        t: [B] or [1], 0 (noise) to 1 (motion). state: [B, L, dim_motion]. previous: [B, P, dim_motion].
        reference: [B, dim_motion]. conditions: of the P + L frames, from `project`.
        """
        motion = torch.cat([previous, state], dim=1)
        return self.fmt(t, motion, reference, conditions.total())[:, previous.shape[1] :]

    def project(
        self,
        features: torch.Tensor,
        *,
        pose: torch.Tensor | None = None,
        camera: torch.Tensor | None = None,
        gaze: torch.Tensor | None = None,
    ) -> Conditions:
        """Bring the conditions of n frames to a common width.

        features: [B, n, 768]. pose, camera: [B, n, 3]. gaze: [B, n, 2]. None stands for zeros after projection.
        """
        audio = self.audio_projection(features)
        absent = torch.zeros_like(audio)
        return Conditions(
            audio=audio,
            pose=absent if pose is None else self.pose_projection(pose),
            camera=absent if camera is None else self.cam_projection(camera),
            gaze=absent if gaze is None else self.gaze_projection(gaze),
        )

    def encode_audio(self, waveform: torch.Tensor) -> torch.Tensor:
        """Audio features at the video's rate: [B, N] at 16 kHz -> [B, T, 768], T = ceil(N * fps / 16000).

        The waveform must be normalised already (`imtalker.audio.waveform.normalise`). Raises ValueError unless
        it is floating point [B, N] with N >= 1 and finite, and there is an audio encoder.
        """
        heard = self.convolve_audio(waveform)
        return self.audio_encoder.transform(heard)

    def convolve_audio(self, waveform: torch.Tensor) -> torch.Tensor:
        """The first half of `encode_audio`: [B, N] -> [B, T, conv_dim]. Raises as it does."""
        if not hasattr(self, "audio_encoder"):
            raise ValueError("this generator was built without its audio encoder (hears=False): give it features")
        if waveform.ndim != 2 or 0 in waveform.shape or not waveform.is_floating_point():
            raise ValueError(
                "waveform must be floating point [B, N] with at least one row and one sample, "
                f"found {waveform.dtype} {list(waveform.shape)}"
            )
        if not torch.isfinite(waveform).all():
            raise ValueError("waveform must be finite, found NaN or infinity; check the decoded audio")
        frames = frames_for(waveform.shape[1], self.config.sampling_rate, self.config.fps)
        return self.audio_encoder.convolve(waveform.to(self._like.device), frames)

    def sample(
        self,
        waveform: torch.Tensor,
        reference: torch.Tensor,
        *,
        noise: torch.Tensor | None = None,
        pose: torch.Tensor | None = None,
        camera: torch.Tensor | None = None,
        gaze: torch.Tensor | None = None,
        cfg_scale: float = 3.0,
        nfe: int = 10,
        seed: int | Sequence[int] = 42,
    ) -> torch.Tensor:
        """Motion for speech: normalised 16 kHz waveform [B, N] and reference [B, 32] -> [B, T, 32].

        `encode_audio`, then `sample_from_features`, which explains the other arguments.
        """
        return self.sample_from_features(
            self.encode_audio(waveform),
            reference,
            noise=noise,
            pose=pose,
            camera=camera,
            gaze=gaze,
            cfg_scale=cfg_scale,
            nfe=nfe,
            seed=seed,
        )

    @torch.no_grad()
    def sample_from_features(
        self,
        features: torch.Tensor,
        reference: torch.Tensor,
        *,
        noise: torch.Tensor | None = None,
        pose: torch.Tensor | None = None,
        camera: torch.Tensor | None = None,
        gaze: torch.Tensor | None = None,
        cfg_scale: float = 3.0,
        nfe: int = 10,
        seed: int | Sequence[int] = 42,
    ) -> torch.Tensor:
        """Motion [B, T, 32] for audio features [B, T, 768] (`encode_audio`) and a reference motion [B, 32].

        noise: [windows, B, L, 32], windows = ceil(T / L); None draws it from ``seed``.
        pose, camera: [T', 3]; gaze: [T', 2] in radians; or with a batch axis of 1 or B. One row a frame, cut to T
        or filled up with zeros. Pose and camera are SMIRK's ``pose_params`` and ``cam``.
        cfg_scale: strength of guidance by the audio; 1 is none.
        nfe: points of the time grid, so ``nfe - 1`` evaluations; at least 1.
        seed: one int per row, or one for all rows, which gives them the same noise (see `draw_noise`).

        Windows only look back, so rows of unequal length may share a batch: fill a shorter row up by repeating
        its last features (conditions: fill to its own T, then repeat), and cut its result.

        Raises ValueError for shapes that don't fit, with what was expected and found.
        """
        conditions = self.conditions(features, pose=pose, camera=camera, gaze=gaze)
        B, T, _ = conditions.audio.shape
        reference = reference.to(self._like)
        _check_shape("reference", reference, (B, self.config.dim_motion))
        if not math.isfinite(cfg_scale):
            raise ValueError(f"cfg_scale must be finite, found {cfg_scale}")
        L = self.config.window
        windows = -(-T // L)
        if noise is None:
            noise = draw_noise(_seeds(seed, B), windows, L, self.config.dim_motion)
        _check_shape("noise", noise, (windows, B, L, self.config.dim_motion))
        motion = sample_windows(
            self.fmt,
            noise.to(self._like),
            reference,
            conditions,
            context=self.config.num_prev_frames,
            scale=cfg_scale,
            nfe=nfe,
            join_frames=self.config.join_frames,
        )
        return motion[:, :T]

    def conditions(
        self,
        features: torch.Tensor,
        *,
        pose: torch.Tensor | None = None,
        camera: torch.Tensor | None = None,
        gaze: torch.Tensor | None = None,
    ) -> Conditions:
        """`project` for sequences of any length, as `sample_from_features` takes them. Raises as it does."""
        features = features.to(self._like)
        _check_shape("features", features, (None, None, self.config.wav2vec2.hidden_size))
        B, T, _ = features.shape
        if not B or not T:
            raise ValueError(f"features must have at least one row and one frame, found {list(features.shape)}")
        return self.project(
            features,
            pose=self._fit("pose", pose, (B, T, POSE_WIDTH)),
            camera=self._fit("camera", camera, (B, T, CAMERA_WIDTH)),
            gaze=self._fit("gaze", gaze, (B, T, GAZE_WIDTH)),
        )

    @property
    def _like(self) -> torch.Tensor:
        """A parameter that has the module's device and dtype."""
        return self.fmt.c_embedder.weight

    def _fit(self, name: str, sequence: torch.Tensor | None, shape: tuple[int, int, int]) -> torch.Tensor | None:
        """A raw condition as [B, T, width], or None."""
        if sequence is None:
            return None
        B, T, width = shape
        rows = sequence if sequence.ndim == 3 else sequence[None]
        if rows.ndim != 3 or rows.shape[0] not in (1, B) or not rows.shape[1] or rows.shape[2] != width:
            raise ValueError(
                f"{name} must be [frames, {width}] with at least one frame, or that with a batch axis "
                f"of 1 or {B}; found {list(sequence.shape)}"
            )
        return fit_sequence(rows.to(self._like), T).expand(B, -1, -1)


def _check_shape(name: str, tensor: torch.Tensor, expected: tuple[int | None, ...]) -> None:
    fits = len(expected) == tensor.ndim and all(e in (None, n) for e, n in zip(expected, tensor.shape, strict=True))
    if not fits:
        wanted = ", ".join("any" if n is None else str(n) for n in expected)
        raise ValueError(f"{name} must have the shape [{wanted}], found {list(tensor.shape)}")


def _seeds(seed: int | Sequence[int], rows: int) -> list[int]:
    seeds = [seed] * rows if isinstance(seed, int) else list(seed)
    if len(seeds) != rows:
        raise ValueError(f"seed must be one int, or one per row of the batch ({rows}); found {len(seeds)}")
    return seeds

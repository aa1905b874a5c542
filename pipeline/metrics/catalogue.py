"""Every metric by name: its type, unit and direction, and the level at which it is measured.

``docs/metrics.md`` gives the formulas, and what each can't see.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["off", "basic", "full"]
"""What a run measures: nothing; what is nearly free; dense curves too, at the cost of encoding every frame again."""

VERSION = 3
"""Raised when a metric's definition changes: `imtalker metrics` then measures again."""


@dataclass(frozen=True)
class Metric:
    """One column of the results."""

    name: str
    type: Literal["double", "int64", "string"]
    unit: str = ""
    better: Literal["lower", "higher", "zero", "one", ""] = ""
    """Where good values lie: near which end, or near which number."""
    needs: Literal["basic", "driver", "weights", "extra"] = "basic"
    """``basic``: always there; ``driver``: a row that says `same_identity`; ``weights``: files that the user names;
    ``extra``: an optional package."""


METRICS: tuple[Metric, ...] = (
    Metric("metrics_level", "string"),
    Metric("metrics_version", "int64"),
    Metric("metrics_from", "string"),
    Metric("metrics_s", "double", "s", "lower"),
    Metric("frames_missing", "int64", "frames", "zero"),
    Metric("end_gap_s", "double", "s", "zero"),
    Metric("nonfinite_values", "int64", "values", "lower"),
    Metric("black_frames", "int64", "frames", "lower"),
    Metric("frozen_frames", "int64", "frames", "lower"),
    Metric("longest_freeze_s", "double", "s", "lower"),
    Metric("brightness_shift", "double", "grey levels", "zero"),
    Metric("brightness_jump", "double", "grey levels", "lower"),
    Metric("sharpness_ratio", "double", "", "one"),
    Metric("flicker", "double", "grey levels", "lower"),
    Metric("motion_jitter", "double", "", "lower"),
    Metric("seam_step", "double", "", "one"),
    Metric("seam_step_pixels", "double", "", "one"),
    Metric("largest_step_pixels", "double", "", "lower"),
    Metric("portrait_distance", "double", "grey levels", "lower"),
    Metric("head_range", "double", "picture widths"),
    Metric("mouth_from", "string"),
    Metric("mouth_range", "double", "grey levels", "higher"),
    Metric("mouth_silence_ratio", "double", "", "lower"),
    Metric("speech_from", "string"),
    Metric("speech_share", "double", ""),
    Metric("lip_lag_frames", "int64", "frames", "zero"),
    Metric("lip_correlation", "double", "", "higher"),
    Metric("lip_confidence", "double", "", "higher"),
    Metric("landmarks_found", "double", "", "higher", "extra"),
    Metric("lip_range", "double", "face heights", "higher", "extra"),
    Metric("yaw_range_deg", "double", "degrees", "", "extra"),
    Metric("pitch_range_deg", "double", "degrees", "", "extra"),
    Metric("roll_range_deg", "double", "degrees", "", "extra"),
    Metric("gaze_range", "double", "eye widths", "", "extra"),
    Metric("blinks_a_minute", "double", "1/min", "", "extra"),
    Metric("codes_checked", "int64", "frames"),
    Metric("code_distance", "double", "code units", "lower"),
    Metric("identity_distance", "double", "", "lower"),
    Metric("identity_worst", "double", "", "lower"),
    Metric("lse_d", "double", "", "lower", "weights"),
    Metric("lse_c", "double", "", "higher", "weights"),
    Metric("lse_offset_frames", "int64", "frames", "zero", "weights"),
    Metric("syncnet_sha256", "string", "", "", "weights"),
    Metric("dlib_distance", "double", "", "lower", "extra"),
    Metric("dlib_distance_worst", "double", "", "lower", "extra"),
    Metric("dlib_faces_missed", "int64", "frames", "lower", "extra"),
    Metric("csim", "double", "", "higher", "weights"),
    Metric("csim_worst", "double", "", "higher", "weights"),
    Metric("arcface_sha256", "string", "", "", "weights"),
    Metric("driver_frames_compared", "int64", "frames", "", "driver"),
    Metric("driver_psnr_db", "double", "dB", "higher", "driver"),
    Metric("driver_ssim", "double", "", "higher", "driver"),
    Metric("driver_lpips", "double", "", "lower", "weights"),
    Metric("lpips_backbone_sha256", "string", "", "", "weights"),
    Metric("lpips_sha256", "string", "", "", "weights"),
    Metric("audio_correlation", "double", "", "higher"),
    Metric("audio_level_db", "double", "dB", "zero"),
)

AGAINST_DRIVER = frozenset(
    {
        "driver_frames_compared",
        "driver_psnr_db",
        "driver_ssim",
        "driver_lpips",
        "lpips_backbone_sha256",
        "lpips_sha256",
    }
)
"""What only self-reenactment has."""

BY_NAME = {metric.name: metric for metric in METRICS}

Values = dict[str, Any]
"""Metrics of one item by name; what could not be measured is absent or None."""

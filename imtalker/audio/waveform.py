"""Waveforms as the audio encoder takes them: length in frames, normalisation, padding."""

from __future__ import annotations

from fractions import Fraction

import torch

_VARIANCE_FLOOR = 1e-7


def frames_for(samples: int, sampling_rate: int, fps: float) -> int:
    """Video frames that cover ``samples``: ceil(samples * fps / sampling_rate), without rounding error."""
    rate = Fraction(fps)
    return -(-samples * rate.numerator // (sampling_rate * rate.denominator))


def normalise(waveform: torch.Tensor) -> torch.Tensor:
    """Float [..., N] to mean 0 and variance 1 over the whole clip: ``(x - mean) / sqrt(var + 1e-7)``.

    The variance is the population's (the feature extractor of facebook/wav2vec2-base-960h). Silence becomes
    zeros. Normalise before padding, and before cutting a clip into parts.
    """
    variance, mean = torch.var_mean(waveform, dim=-1, correction=0, keepdim=True)
    return (waveform - mean) * torch.rsqrt(variance + _VARIANCE_FLOOR)


def pad(waveform: torch.Tensor, length: int) -> torch.Tensor:
    """[B, N] to [B, length] by repeating each row's last sample (published implementation)."""
    missing = length - waveform.shape[-1]
    return torch.cat([waveform, waveform[:, -1:].expand(-1, missing)], dim=-1) if missing else waveform

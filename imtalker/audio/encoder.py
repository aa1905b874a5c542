"""The audio encoder: wav2vec2 features, one vector per video frame, for audio of any length.

The weights and layers are those of transformers' ``Wav2Vec2Model``; they are run so that memory stays small. Only
every second of its 50 Hz frames survives the reduction to 25 Hz, and each survivor sees 400 samples of its own. So
frames are computed from their own windows, some windows at a time, and the wide inner layers take some frames at
a time.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from imtalker.audio.waveform import pad
from imtalker.config import AudioEncoderConfig

FRAME_SAMPLES = 640
"""Samples of a video frame: 16 kHz at 25 frames a second."""

_KERNELS = (10, 3, 3, 3, 3, 2, 2)
_STRIDES = (5, 2, 2, 2, 2, 2, 2)
_FIELD = 400
"""Samples that one output of the convolutions sees."""
_CHUNK_FRAMES = 64
"""Frames whose convolutions run together: 10 MB of first-layer activations at full width."""
_CHUNK_ROWS = 1024
"""Frames that pass a feed-forward layer together."""
_CHUNK_SAMPLES = 1 << 18
"""Samples whose moments are summed together."""


class AudioEncoder(nn.Module):
    """wav2vec2 (Baevski et al., 2020) at 25 Hz, frozen and always in evaluation mode (IMTalker, section 3.3).

    Frozen means that its parameters require no gradient; `imtalker.training.audio` lets them.

    Peak memory grows linearly with the audio's length, since no attention map and no full-rate activation is
    kept: about 60 MB a minute at the published size in float32. Attention's time grows with its square.
    """

    def __init__(self, config: AudioEncoderConfig) -> None:
        super().__init__()
        # Takes seconds to import, and most processes hear nothing.
        from transformers import Wav2Vec2Config, Wav2Vec2Model

        self.wav2vec2 = Wav2Vec2Model(
            Wav2Vec2Config(
                hidden_size=config.hidden_size,
                num_hidden_layers=config.num_hidden_layers,
                num_attention_heads=config.num_attention_heads,
                intermediate_size=config.intermediate_size,
                conv_dim=config.conv_dim,
                conv_kernel=_KERNELS,
                conv_stride=_STRIDES,
                num_conv_pos_embeddings=config.num_conv_pos_embeddings,
                num_conv_pos_embedding_groups=config.num_conv_pos_embedding_groups,
                attn_implementation="sdpa",
            )
        )
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> AudioEncoder:
        """Stay in evaluation mode, whatever ``mode`` is: the encoder is frozen while the generator learns."""
        return super().train(False)

    def forward(self, waveform: torch.Tensor, frames: int) -> torch.Tensor:
        """Encode normalised 16 kHz audio: [B, N] -> [B, frames, hidden_size].

        ``frames * 640`` must be at least N; the missing samples repeat the last one.
        """
        return self.transform(self.convolve(waveform, frames))

    def transform(self, heard: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
        """Outputs of `convolve`, [B, T, conv_dim] -> [B, T, hidden_size].

        valid: bool [B, T], False for fill behind the end of a clip; None for none. Fill changes nothing before it,
        and its own output carries no meaning.
        """
        hidden, _ = self.wav2vec2.feature_projection(heard)
        encoder = self.wav2vec2.encoder
        if valid is not None:
            # The positional convolution sees zeros behind the end of a clip that is not filled.
            hidden = hidden * valid[:, :, None]
        mask = None if valid is None else valid[:, None, None, :].expand(-1, 1, valid.shape[1], -1)
        hidden = encoder.layer_norm(hidden + encoder.pos_conv_embed(hidden))
        for layer in encoder.layers:
            hidden = layer.layer_norm(hidden + layer.attention(hidden, attention_mask=mask)[0])
            # The inner layer is four times as wide: it would be most of the memory of a long clip.
            parts = hidden.split(_CHUNK_ROWS, dim=1)
            hidden = torch.cat([layer.final_layer_norm(p + layer.feed_forward(p)) for p in parts], dim=1)
        return hidden

    def convolve(self, waveform: torch.Tensor, frames: int) -> torch.Tensor:
        """Outputs of the convolutions at 25 Hz: [B, N] -> [B, frames, conv_dim].

        Interpolating 2T - 1 frames to T with aligned corners samples exactly at 0, 2, 4, ..., so it is every
        second frame of the published implementation.
        """
        padded = pad(waveform, frames * FRAME_SAMPLES)
        return torch.stack([self._convolve_row(row) for row in padded])

    def _convolve_row(self, samples: torch.Tensor) -> torch.Tensor:
        first, *others = self.wav2vec2.feature_extractor.conv_layers
        weight, bias = _fold_norm(first.conv.weight, first.layer_norm, samples)
        windows = samples.to(weight.dtype).unfold(0, _FIELD, FRAME_SAMPLES)
        outputs = []
        for chunk in windows.split(_CHUNK_FRAMES):
            hidden = first.activation(F.conv1d(chunk[:, None], weight, bias, stride=_STRIDES[0]))
            for layer in others:
                hidden = layer(hidden)
            outputs.append(hidden[:, :, 0])
        return torch.cat(outputs)


def _fold_norm(weight: torch.Tensor, norm: nn.GroupNorm, samples: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """First convolution with its norm folded in, for one clip: weight [C, 1, 10] and bias [C].

    The norm takes each channel's mean and variance over the whole clip. A channel is ``w · window``, so they
    are ``w · m`` and ``w · K w`` with the mean ``m`` and covariance ``K`` of all windows: 10 and 10 x 10
    numbers, gathered in float64 without running the convolution.
    """
    mean, covariance = _window_moments(samples)
    taps = weight[:, 0].double()
    variance = ((taps @ covariance) * taps).sum(dim=1).clamp(min=0)
    scale = norm.weight.double() * torch.rsqrt(variance + norm.eps)
    bias = norm.bias.double() - scale * (taps @ mean)
    return (taps * scale[:, None])[:, None].to(weight.dtype), bias.to(weight.dtype)


def _window_moments(samples: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean [10] and covariance [10, 10], float64, of all windows that the first convolution visits."""
    kernel, stride = _KERNELS[0], _STRIDES[0]
    windows = samples.unfold(0, kernel, stride)
    total = samples.new_zeros(kernel, dtype=torch.float64)
    products = samples.new_zeros(kernel, kernel, dtype=torch.float64)
    for chunk in windows.split(_CHUNK_SAMPLES // kernel):
        chunk = chunk.double()
        total += chunk.sum(dim=0)
        products += chunk.T @ chunk
    mean = total / len(windows)
    return mean, products / len(windows) - torch.outer(mean, mean)

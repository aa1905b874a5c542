"""Stand-in weights that anyone can rebuild from a parameter's name, its shape and a seed.

The published weights are 1 GB and the shipped presets are small, so tests and the ``imtalker-tiny`` preset use
weights made here. Only integer arithmetic on numpy's PCG64 raw stream is used, which numpy keeps stable, so
every machine makes the same bits. The spreads keep activations of order one and attention maps peaked.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence

import numpy as np
import torch

# Buffers whose constructed value belongs to the architecture.
_CONSTRUCTED = frozenset({"kernel", "relative_position_index", "attn_mask", "inv_freq", "num_batches_tracked"})

# Both spellings of a weight-normalised convolution hash alike.
_WEIGHT_NORM = {
    "parametrizations.weight.original0": "weight_g",
    "parametrizations.weight.original1": "weight_v",
}

# Layers scaled by 1/sqrt(fan_in) at run time: their stored weight has spread `gain`.
_EQUALISED = re.compile(
    r"(^|\.)(equalconv|linear_layers\.\d+|final_linear|in_layer|modulation)\.weight$"
    r"|^latent_token_encoder\.res_blocks\."
    r"|^latent_token_decoder\.style_conv_layers\.\d+\.conv\.weight$"
    r"|^scale[12]\."
)

# Spread of a matrix is gain / sqrt(fan_in); the first matching name wins.
_GAINS = tuple(
    (re.compile(pattern), gain)
    for pattern, gain in (
        (r"^latent_token_encoder\.linear_layers\.", 1.4),
        (r"^latent_token_encoder\.final_linear\.", 1.0),
        (r"^adapt\.in_layer", 3.0),
        (r"^adapt\.(linear_layers|final_linear)", 1.4),
        (r"^imt\.\d+\.block_efc\.[qk]_proj\.weight$", 4.0),
        (r"\.attn\.(q_proj|k_proj|q|k)\.weight$", 1.4),
        (r"adaLN_modulation\.1\.weight$", 0.6),
        (r"^frame_decoder\.final_conv\.1\.weight$", 0.7),
        (r"^audio_encoder\.wav2vec2\.feature_extractor\.conv_layers\.0\.conv\.weight$", 1.0),
        (r"^audio_encoder\.wav2vec2\.feature_extractor\.", 1.6),
        (r"^audio_encoder\.wav2vec2\..*attention\.[qk]_proj\.weight$", 2.0),
        (r"^audio_encoder\.wav2vec2\..*(out_proj|output_dense)\.weight$", 0.4),
        (r"", 1.0),
    )
)


def raw_stream(label: str, count: int, seed: int) -> np.ndarray:
    """uint64 [count]: the PCG64 stream that ``label`` and ``seed`` select."""
    digest = hashlib.sha256(f"{seed}:{label}".encode()).digest()
    return np.random.PCG64(int.from_bytes(digest[:16], "little")).random_raw(count).astype("<u8", copy=False)


def drawn_between(name: str, bounds: Sequence[tuple[float, float]], seed: int) -> list[float]:
    """A number within each pair of bounds, lower one included, from the stream ``name`` of ``seed``."""
    draws = raw_stream(name, len(bounds), seed)
    return [low + (high - low) * (int(draw) >> 11) * 2.0**-53 for (low, high), draw in zip(bounds, draws, strict=True)]


def unit_noise(label: str, count: int, seed: int) -> np.ndarray:
    """float64 [count] of mean 0 and variance 1: centred sums of the four 16-bit quarters of a draw."""
    quarters = raw_stream(label, count, seed).view("<u2").reshape(count, 4).astype(np.int32)
    spread = np.sqrt(4.0 * (65536.0**2 - 1.0) / 12.0)
    return (quarters.sum(axis=1, dtype=np.int32) - 4.0 * 32767.5) / spread


def _value(key: str, shape: tuple[int, ...], noise: np.ndarray) -> np.ndarray:
    name = key.rsplit(".", 1)[-1]
    match name:
        case "running_var":
            return np.exp2(0.3 * noise)
        case "running_mean":
            return 0.1 * noise
        case "weight_g":
            return 0.6 * (1.0 + 0.1 * noise)
        case "weight_v" | "masked_spec_embed" | "const":
            return noise
        case "q_pos_embedding" | "k_pos_embedding":
            return 0.5 * noise
        case "relative_position_bias_table":
            return 0.3 * noise
        case "bias" if key.endswith("modulation.bias"):
            return 1.0 + 0.1 * noise
        case "bias":
            return (0.02 if key.startswith(("latent_token_encoder.", "latent_token_decoder.")) else 0.1) * noise
        case "weight" if shape == (1,):
            return 0.5 * noise
        case "weight" if len(shape) == 1:
            return 1.0 + 0.1 * noise
        case "weight":
            gain = next(g for pattern, g in _GAINS if pattern.search(key))
            return gain * noise if _EQUALISED.search(key) else noise * (gain / np.sqrt(float(np.prod(shape[1:]))))
    raise KeyError(f"no rule for the parameter {key!r} of shape {shape}")


def seeded_array(key: str, shape: Sequence[int], seed: int) -> np.ndarray:
    """float32 array for the parameter ``key``; raises KeyError for names it has no rule for."""
    for new, old in _WEIGHT_NORM.items():
        if key.endswith(new):
            key = key.removesuffix(new) + old
    shape = tuple(int(n) for n in shape)
    noise = unit_noise(key, int(np.prod(shape)), seed)
    return _value(key, shape, noise).astype(np.float32).reshape(shape)


def seeded_state_dict(state: Mapping[str, torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
    """``state`` with every learned tensor replaced; buffers that belong to the architecture stay.

    Keys are without a checkpoint prefix.
    """
    return {
        key: value if key.rsplit(".", 1)[-1] in _CONSTRUCTED else torch.from_numpy(seeded_array(key, value.shape, seed))
        for key, value in state.items()
    }

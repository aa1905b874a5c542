from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from imtalker.audio import encoder as encoder_module
from imtalker.audio.encoder import FRAME_SAMPLES, AudioEncoder
from imtalker.audio.waveform import frames_for, normalise, pad
from imtalker.config import AudioEncoderConfig
from imtalker.seeded import seeded_state_dict
from tests.imtalker import golden

PREFIX = "audio_encoder."
NARROW = AudioEncoderConfig(
    hidden_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=64,
    conv_dim=(16,) * 7,
    num_conv_pos_embedding_groups=4,
)


def seeded_encoder(config: AudioEncoderConfig, seed: int = 1) -> AudioEncoder:
    encoder = AudioEncoder(config)
    weights = seeded_state_dict({PREFIX + key: value for key, value in encoder.state_dict().items()}, seed)
    encoder.load_state_dict({key.removeprefix(PREFIX): value for key, value in weights.items()})
    return encoder


def noise(frames: int, rows: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(frames)
    return normalise(torch.randn(rows, frames * FRAME_SAMPLES, generator=generator))


@pytest.fixture(autouse=True)
def fixed_randomness() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def narrow() -> AudioEncoder:
    return seeded_encoder(NARROW)


@pytest.mark.parametrize(
    ("samples", "frames"),
    [(1, 1), (639, 1), (640, 1), (641, 2), (16000, 25), (52800, 83), (40000, 63), (16000 * 3600 + 1, 90001)],
)
def test_frames_cover_the_samples(samples: int, frames: int) -> None:
    assert frames_for(samples, 16000, 25.0) == frames


def test_frames_at_a_fractional_rate_have_no_rounding_error() -> None:
    assert frames_for(44100 * 3, 44100, 12.5) == 38
    assert frames_for(44100 * 2, 44100, 12.5) == 25


def test_normalise_against_the_formula() -> None:
    waveform = torch.tensor([[1.0, 2.0, 3.0, 6.0]])
    expected = (waveform - 3.0) / (3.5 + 1e-7) ** 0.5
    torch.testing.assert_close(normalise(waveform), expected)
    assert normalise(waveform).dtype == torch.float32


def test_silence_normalises_to_zeros() -> None:
    assert torch.equal(normalise(torch.full((2, 100), 0.25)), torch.zeros(2, 100))


def test_normalise_ignores_gain_and_offset() -> None:
    waveform = torch.randn(1, 16000)
    torch.testing.assert_close(normalise(0.1 * waveform + 0.3), normalise(waveform), atol=1e-4, rtol=0)


def test_padding_repeats_the_last_sample() -> None:
    waveform = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert pad(waveform, 4).tolist() == [[1.0, 2.0, 2.0, 2.0], [3.0, 4.0, 4.0, 4.0]]
    assert pad(waveform, 2) is waveform


def test_the_encoder_equals_the_stock_one(narrow: AudioEncoder) -> None:
    waveform = noise(90)
    stock = stock_convolutions(narrow, waveform, 90)[:, :, ::2].transpose(1, 2)
    with torch.no_grad():
        hidden = narrow.wav2vec2.encoder(narrow.wav2vec2.feature_projection(stock)[0]).last_hidden_state
    torch.testing.assert_close(narrow(waveform, 90), hidden, atol=2e-5, rtol=0)


@torch.no_grad()
def stock_convolutions(encoder: AudioEncoder, waveform: torch.Tensor, frames: int) -> torch.Tensor:
    """The whole clip through transformers' own front end, at 50 Hz: [B, conv_dim, 2 * frames - 1]."""
    return encoder.wav2vec2.feature_extractor(pad(waveform, frames * FRAME_SAMPLES))


@pytest.mark.parametrize("frames", [1, 2, 64, 65, 150])
def test_windowed_convolutions_equal_the_stock_ones(narrow: AudioEncoder, frames: int) -> None:
    waveform = noise(frames, rows=2)[:, : frames * FRAME_SAMPLES - 100]
    stock = stock_convolutions(narrow, waveform, frames)
    assert stock.shape[-1] == 2 * frames - 1
    with torch.no_grad():
        windowed = narrow.convolve(waveform, frames)
    torch.testing.assert_close(windowed, stock[:, :, ::2].transpose(1, 2), atol=2e-5, rtol=0)


def test_every_second_frame_is_the_published_interpolation(narrow: AudioEncoder) -> None:
    stock = stock_convolutions(narrow, noise(63), 63)
    interpolated = torch.nn.functional.interpolate(stock, size=63, mode="linear", align_corners=True)
    torch.testing.assert_close(stock[:, :, ::2], interpolated, atol=1e-5, rtol=0)


def test_features_do_not_depend_on_the_chunks(narrow: AudioEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    waveform = noise(40)
    whole = narrow(waveform, 40)
    monkeypatch.setattr(encoder_module, "_CHUNK_SAMPLES", 1000)
    monkeypatch.setattr(encoder_module, "_CHUNK_FRAMES", 7)
    monkeypatch.setattr(encoder_module, "_CHUNK_ROWS", 9)
    torch.testing.assert_close(narrow(waveform, 40), whole, atol=1e-5, rtol=0)


def test_norm_statistics_survive_an_offset(narrow: AudioEncoder) -> None:
    """A clip that wasn't normalised: the mean is far larger than the spread."""
    waveform = 3.0 + 0.01 * noise(20)
    stock = stock_convolutions(narrow.double(), waveform.double(), 20)
    with torch.no_grad():
        windowed = narrow.convolve(waveform.double(), 20)
    narrow.float()
    torch.testing.assert_close(windowed, stock[:, :, ::2].transpose(1, 2), atol=1e-7, rtol=0)


def test_rows_of_a_batch_do_not_meet(narrow: AudioEncoder) -> None:
    waveform = noise(30, rows=3)
    together = narrow(waveform, 30)
    apart = torch.cat([narrow(row[None], 30) for row in waveform])
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=0)


def test_silence_is_encoded(narrow: AudioEncoder) -> None:
    assert torch.isfinite(narrow(torch.zeros(1, 6400), 10)).all()


def test_the_encoder_stays_in_evaluation_mode_and_frozen(narrow: AudioEncoder) -> None:
    narrow.train()
    assert not any(module.training for module in narrow.modules())
    assert not any(parameter.requires_grad for parameter in narrow.parameters())


class LargestTensor(TorchDispatchMode):
    """Notes the most values that any operation's result holds in storage of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.numel = max(self.numel, leaf.untyped_storage().nbytes() // leaf.element_size())
        return result


def largest_tensor(encoder: AudioEncoder, frames: int) -> int:
    waveform = noise(frames)
    with LargestTensor() as largest:
        encoder(waveform, frames)
    return largest.numel


def test_no_tensor_grows_faster_than_the_audio(narrow: AudioEncoder) -> None:
    """Neither an attention map (4 * 2000 * 2000) nor a full-rate activation (16 * 128 * 2000) is ever made."""
    frames = 2000
    assert largest_tensor(narrow, frames) <= FRAME_SAMPLES * frames


def test_the_memory_check_would_see_an_attention_map() -> None:
    eager = seeded_encoder(NARROW)
    eager.wav2vec2.set_attn_implementation("eager")
    assert largest_tensor(eager, 600) >= 4 * 600 * 600


# Golden vectors: the full-size encoder.


@pytest.fixture(scope="module")
def file() -> golden.Golden:
    return golden.load("audio")


@pytest.fixture(scope="module")
def full(file: golden.Golden) -> AudioEncoder:
    return seeded_encoder(AudioEncoderConfig(), file.seed)


@pytest.fixture(scope="module")
def waveform(file: golden.Golden) -> torch.Tensor:
    return normalise(file["wave"].float()[None] / 32768)


@pytest.fixture(scope="module")
def outputs(file: golden.Golden, full: AudioEncoder, waveform: torch.Tensor) -> Iterator[dict[str, torch.Tensor]]:
    """Everything the golden file names, from one run of the encoder and one of the stock front end."""
    caught: dict[str, torch.Tensor] = {}
    model = full.wav2vec2

    def catch(name: str, module: torch.nn.Module) -> Any:
        def hook(module: Any, args: Any, result: Any) -> None:
            caught.setdefault(name, result[0] if isinstance(result, tuple) else result)

        return module.register_forward_hook(hook)

    handles = [
        catch("feature_projection", model.feature_projection),
        catch("pos_conv", model.encoder.pos_conv_embed),
        *(catch(f"layer_{k}", layer.final_layer_norm) for k, layer in enumerate(model.encoder.layers)),
    ]
    caught["last_hidden_state"] = full(waveform, 63)
    caught["interpolated"] = full.convolve(waveform, 63)
    for handle in handles:
        handle.remove()
    # In the encoder these layers only see windows, so the whole clip goes through them once more.
    handles = [catch(f"conv_{k}", layer) for k, layer in enumerate(model.feature_extractor.conv_layers)]
    stock_convolutions(full, waveform, 63)
    yield caught
    for handle in handles:
        handle.remove()


def test_golden_waveform(file: golden.Golden, waveform: torch.Tensor) -> None:
    torch.testing.assert_close(waveform[0, :64], file["normalised_head"], atol=1e-6, rtol=0)
    torch.testing.assert_close(waveform[0, -64:], file["normalised_tail"], atol=1e-6, rtol=0)
    frames = frames_for(waveform.shape[1], 16000, 25.0)
    assert pad(waveform, frames * FRAME_SAMPLES).shape[1] == file["padded_length"].item()


def test_golden_covers_every_tensor(file: golden.Golden, outputs: dict[str, torch.Tensor]) -> None:
    assert set(outputs) == set(file.tolerances)


@pytest.mark.parametrize("name", sorted(golden.load("audio").tolerances))
def test_golden(file: golden.Golden, outputs: dict[str, torch.Tensor], name: str) -> None:
    file.check(name, outputs[name])

"""Weights in and out: published Lightning checkpoints, hub audio encoders, and this package's safetensors files."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from imtalker.audio.encoder import AudioEncoder
from imtalker.config import AudioEncoderConfig, GeneratorConfig, RendererConfig
from imtalker.files import file_sha256
from imtalker.generator.generator import MotionGenerator
from imtalker.generator.transformer import RotaryEmbedding
from imtalker.renderer.renderer import Renderer
from imtalker.safetensors_files import (
    check_finite,
    differences,
    plain,
    read_config,
    read_metadata,
    read_safetensors,
    write_network,
)
from imtalker.torch_files import CheckpointError, listed, read_torch_file

__all__ = [
    "CheckpointError",
    "Kind",
    "checkpoint_kind",
    "encoder_file",
    "load_audio_encoder",
    "load_generator",
    "load_renderer",
    "save_audio_encoder",
    "save_generator",
    "save_renderer",
    "weights_sha256",
]

Kind = Literal["renderer", "generator"]
Config = TypeVar("Config", RendererConfig, GeneratorConfig)
Network = TypeVar("Network", bound=nn.Module)
State = dict[str, Tensor]


@dataclass(frozen=True)
class _Layout(Generic[Config]):
    """How a published checkpoint lays a network out."""

    kind: Kind
    config: type[Config]
    prefix: str
    """What the network is called in the training system."""
    skipped: tuple[str, ...]
    """Prefixes of what the training system holds beside it."""
    marker: str
    """Keys of this network alone begin with it."""


_RENDERER = _Layout("renderer", RendererConfig, "gen.", ("disc.", "criterion_vgg."), "imt.")
_GENERATOR = _Layout("generator", GeneratorConfig, "model.", (), "fmt.")

_AUDIO = "audio_encoder.wav2vec2."
_ENCODER_FILES = ("model.safetensors", "pytorch_model.bin")
_ENCODER_PREFIX = "wav2vec2."
# The head that a hub encoder was fine-tuned with.
_ENCODER_SKIPPED = ("lm_head.",)
# Names in the hub's config that change an encoder's numbers, some of them without changing any key or shape.
_ENCODER_TRAITS = (
    "conv_kernel",
    "conv_stride",
    "conv_bias",
    "feat_extract_norm",
    "feat_extract_activation",
    "hidden_act",
    "layer_norm_eps",
    "do_stable_layer_norm",
    "add_adapter",
)

# The two spellings of a weight-normalised convolution: torch.nn.utils.weight_norm and its parametrised successor.
_WEIGHT_NORM = {
    ".weight_g": ".parametrizations.weight.original0",
    ".weight_v": ".parametrizations.weight.original1",
}


def load_renderer(path: str | Path, *, config: RendererConfig | None = None) -> Renderer:
    """The renderer stored in ``path``: float32, on the CPU, in evaluation mode.

    ``path``: the published ``renderer.ckpt`` (Lightning, weights under ``gen.``), or a ``.safetensors`` file
    written by `save_renderer`. ``config``: sizes of a ``.ckpt`` (default: the published ones); a safetensors file
    carries its own. Discriminator, perceptual loss and trainer state are skipped by name.

    Tensors that are float32 in the file stay mapped to it, so replace such a file, never overwrite it. Raises
    CheckpointError if the file can't be read safely, a tensor is missing, unknown, of another shape or not finite,
    or the config differs.
    """
    path = Path(path)
    config, state = _read(path, _RENDERER, config)
    with torch.device("meta"):
        renderer = Renderer(config)
    return _fill(renderer, state, path)


def load_generator(
    path: str | Path,
    audio_encoder: str | Path | None = None,
    *,
    config: GeneratorConfig | None = None,
    hears: bool = True,
) -> MotionGenerator:
    """The motion generator stored in ``path``, with its audio encoder: float32, on the CPU, in evaluation mode.

    ``path``: the published ``generator.ckpt`` (Lightning, weights under ``model.``), or a ``.safetensors`` file
    written by `save_generator`. ``audio_encoder``: a hub folder of a wav2vec2 model (``config.json`` beside
    ``model.safetensors`` or ``pytorch_model.bin``), needed where ``path`` holds none; what ``path`` holds wins, as
    in the published implementation. ``hears`` False leaves the audio encoder out: see `MotionGenerator`. ``config``
    and errors: as for `load_renderer`.
    """
    path = Path(path)
    config, state = _read(path, _GENERATOR, config)
    if not hears:
        state = {key: tensor for key, tensor in state.items() if not key.startswith(_AUDIO)}
    elif audio_encoder is not None:
        state = _read_audio_encoder(Path(audio_encoder), config.wav2vec2) | state
    if hears and not any(key.startswith(_AUDIO) for key in state):
        raise CheckpointError(
            f"{path} holds no audio encoder (keys {_AUDIO}*); pass audio_encoder= with the folder of "
            "facebook/wav2vec2-base-960h"
        )
    with torch.device("meta"):
        generator = MotionGenerator(config, hears=hears)
    # Constructed, never loaded: the published implementation copies parameters only.
    generator.fmt.rotary_emb = RotaryEmbedding(config.dim_h // config.num_heads)
    state["fmt.rotary_emb.inv_freq"] = generator.fmt.rotary_emb.inv_freq
    if hears:
        _complete(state, config.wav2vec2)
    return _fill(generator, state, path)


def load_audio_encoder(generator: MotionGenerator, folder: str | Path) -> None:
    """Put the wav2vec2 of a hub folder into ``generator``, whose config says its sizes.

    Raises CheckpointError if the folder can't be read, or its model is another one than the config's.
    """
    state = _read_audio_encoder(Path(folder), generator.config.wav2vec2)
    _complete(state, generator.config.wav2vec2)
    _check(state, {key: x for key, x in generator.state_dict().items() if key.startswith(_AUDIO)}, Path(folder))
    generator.load_state_dict(state, strict=False)


def save_renderer(renderer: Renderer, path: str | Path, *, dtype: torch.dtype = torch.float32) -> None:
    """Write ``renderer`` and its config to the safetensors file ``path``, atomically.

    ``dtype``: float32, bfloat16 or float16, for parameters; buffers keep theirs. Loading gives float32 again.
    Raises CheckpointError when a value is not finite, or no longer is in ``dtype``.
    """
    write_network(renderer, "renderer", renderer.config, Path(path), dtype)


def save_generator(generator: MotionGenerator, path: str | Path, *, dtype: torch.dtype = torch.float32) -> None:
    """Write ``generator``, its audio encoder and its config to ``path``; otherwise as `save_renderer`."""
    write_network(generator, "generator", generator.config, Path(path), dtype)


def save_audio_encoder(encoder: AudioEncoder, folder: str | Path) -> None:
    """Write ``encoder`` as a hub folder, which `load_generator` and transformers read; each file atomically.

    Raises CheckpointError when a value is not finite.
    """
    folder = Path(folder)
    state = {key: tensor.detach().cpu().contiguous() for key, tensor in encoder.wav2vec2.state_dict().items()}
    check_finite(state, f"{folder} was not written: the network")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as partial:
        encoder.wav2vec2.config.to_json_file(Path(partial) / "config.json")
        save_file(state, Path(partial) / "model.safetensors", {"format": "pt"})
        for file in Path(partial).iterdir():
            file.chmod(0o644)
            file.replace(folder / file.name)


def checkpoint_kind(path: str | Path) -> Kind:
    """Which network a checkpoint holds; raises CheckpointError when it is neither."""
    path = Path(path)
    if path.suffix == ".safetensors":
        found = read_metadata(path)["kind"]
        fits = [layout.kind for layout in (_RENDERER, _GENERATOR) if layout.kind == found]
    else:
        keys = read_torch_file(path)
        found = f"checkpoint of {listed(keys)}"
        fits = [
            layout.kind
            for layout in (_RENDERER, _GENERATOR)
            if any(key.removeprefix(layout.prefix).startswith(layout.marker) for key in keys)
        ]
    if len(fits) != 1:
        raise CheckpointError(f"{path} holds a {found}; expected a renderer or a generator")
    return fits[0]


def encoder_file(folder: str | Path) -> Path:
    """The file that holds the weights in a hub folder; raises CheckpointError where there is none."""
    for name in _ENCODER_FILES:
        if (file := Path(folder) / name).is_file():
            return file
    raise CheckpointError(
        f"no audio encoder in {folder}: expected config.json and {' or '.join(_ENCODER_FILES)}, "
        "as in facebook/wav2vec2-base-960h"
    )


def weights_sha256(path: str | Path) -> str:
    """Hex SHA-256 of a file of weights; for a hub folder, of the file that is loaded from it."""
    path = Path(path)
    return file_sha256(encoder_file(path) if path.is_dir() else path)


def _read(path: Path, layout: _Layout[Config], config: Config | None) -> tuple[Config, State]:
    """The config and the state, under the network's own names, that ``path`` holds."""
    if path.suffix == ".safetensors":
        return read_config(path, layout.kind, layout.config, config), read_safetensors(path)
    weights = read_torch_file(path)
    kept = {key: value for key, value in weights.items() if not key.startswith(layout.skipped)}
    return config or layout.config(), _renamed(kept, layout.prefix, path)


def _renamed(weights: Mapping[str, Tensor], prefix: str, path: Path) -> State:
    """``weights`` without ``prefix`` and with the new spelling of weight norms."""
    state: State = {}
    for key, value in weights.items():
        name = key.removeprefix(prefix)
        for old, new in _WEIGHT_NORM.items():
            if name.endswith(old):
                name = name.removesuffix(old) + new
        if name in state:
            raise CheckpointError(f"{path} holds {name} twice, once as {key}")
        state[name] = value
    return state


def _read_audio_encoder(folder: Path, config: AudioEncoderConfig) -> State:
    """State of a hub folder's wav2vec2 under the generator's names."""
    file = encoder_file(folder)
    _check_encoder_config(folder / "config.json", config)
    weights = read_safetensors(file) if file.suffix == ".safetensors" else read_torch_file(file)
    kept = {key: value for key, value in weights.items() if not key.startswith(_ENCODER_SKIPPED)}
    return {_AUDIO + key: value for key, value in _renamed(kept, _ENCODER_PREFIX, file).items()}


def _complete(state: State, config: AudioEncoderConfig) -> None:
    # Unused in evaluation, and absent from encoders that were trained without masking.
    state.setdefault(_AUDIO + "masked_spec_embed", torch.zeros(config.hidden_size))


def _check_encoder_config(path: Path, config: AudioEncoderConfig) -> None:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} can't be read ({error}); expected the hub model's config.json") from error
    with torch.device("meta"):
        encoder = AudioEncoder(config)
    wanted = plain(encoder.wav2vec2.config.to_dict())
    named = [name for name in (*asdict(config), *_ENCODER_TRAITS) if name in found]
    if any(found[name] != wanted[name] for name in named):
        raise CheckpointError(
            f"{path} describes another audio encoder: "
            f"{differences({name: found[name] for name in named}, {name: wanted[name] for name in named})}"
        )


def _fill(network: Network, state: State, path: Path) -> Network:
    """Put copies of ``state`` into ``network``, which was built on the meta device, in place of its tensors."""
    expected = network.state_dict()
    _check(state, expected, path)
    # Copied, as tensors that are mapped to a file change with it, and lie where it has them: on some CPUs products
    # with weights off their alignment differ in the last bits, so equal weights would make other frames by their file.
    own = {key: state[key].to(tensor.dtype, copy=True) for key, tensor in expected.items()}
    network.load_state_dict(own, assign=True)
    return network.eval()


def _check(state: State, expected: Mapping[str, Tensor], path: Path) -> None:
    faults = {
        "missing": [key for key in expected if key not in state],
        "unexpected": [key for key in state if key not in expected],
        "of another shape": [
            f"{key} is {list(state[key].shape)}, expected {list(tensor.shape)}"
            for key, tensor in expected.items()
            if key in state and state[key].shape != tensor.shape
        ],
    }
    if any(faults.values()):
        found = "; ".join(f"{len(keys)} {fault}: {listed(keys)}" for fault, keys in faults.items() if keys)
        raise CheckpointError(
            f"{path} does not fit the network. {found}. Check that it is the right file, and pass the config= that "
            "it was trained with if it is not the published model"
        )
    check_finite(state, str(path))

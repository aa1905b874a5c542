"""Checkpoint files as they are published: what Lightning and transformers write around a network's tensors."""

from __future__ import annotations

import argparse
import collections
import json
import pathlib
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from imtalker.config import GeneratorConfig

State = dict[str, Tensor]

ENCODER = "audio_encoder.wav2vec2."
POSITIONAL = "encoder.pos_conv_embed.conv."
NEW_NORM = {"g": "parametrizations.weight.original0", "v": "parametrizations.weight.original1"}

_HUB_CONFIG = {
    "architectures": ["Wav2Vec2ForCTC"],
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "conv_bias": False,
    "do_stable_layer_norm": False,
    "feat_extract_norm": "group",
    "hidden_act": "gelu",
    "vocab_size": 32,
}


class AttributeDict(dict[str, Any]):
    """Lightning's container of hyper-parameters."""


@contextmanager
def _lightning_modules() -> Iterator[None]:
    """`AttributeDict` under Lightning's own name, which a file that Lightning wrote refers to."""
    name = "pytorch_lightning.utilities.parsing"
    modules = {key: types.ModuleType(key) for key in ("pytorch_lightning", "pytorch_lightning.utilities", name)}
    modules[name].AttributeDict = AttributeDict  # type: ignore[attr-defined]
    AttributeDict.__module__ = name
    sys.modules.update(modules)
    try:
        yield
    finally:
        for key in modules:
            del sys.modules[key]


def lightning(state: State, **more: object) -> dict[str, object]:
    """What Lightning stores around ``state``: settings, callbacks, optimiser, schedule and progress."""
    parameter = nn.Parameter(torch.ones(3))
    optimiser = torch.optim.Adam([parameter], lr=1e-4, betas=(0.5, 0.999))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=10)
    parameter.sum().backward()
    optimiser.step()
    schedule.step()
    saver = {
        "monitor": "val/loss",
        "best_model_score": torch.tensor(0.25),
        "dirpath": pathlib.Path("exps/debug/checkpoints"),
        "best_k_models": {},
    }
    return {
        "epoch": 3,
        "global_step": 120_000,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": collections.OrderedDict(state),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"current": {"ready": 4}}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'val/loss', 'mode': 'min'}": saver},
        "optimizer_states": [optimiser.state_dict()],
        "lr_schedulers": [schedule.state_dict()],
        "hparams_name": "args",
        "hyper_parameters": AttributeDict(
            args=argparse.Namespace(lr=1e-4, exp_path=pathlib.Path("exps"), best=np.float64(0.5), resume_ckpt=None),
            seen=collections.defaultdict(int, frames=7),
        ),
        **more,
    }


def save_checkpoint(content: object, path: Path, *, zipped: bool = True) -> None:
    """Write ``content`` as Lightning would; ``zipped=False`` gives torch's format from before 1.6."""
    with _lightning_modules():
        torch.save(content, path, _use_new_zipfile_serialization=zipped)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Everything in a file that a test wrote."""
    with _lightning_modules():
        return torch.load(path, weights_only=False)


def prefixed(state: State, prefix: str) -> State:
    return {prefix + key: value for key, value in state.items()}


def old_norm(state: State) -> State:
    """``state`` with the older spelling of weight norms."""
    renamed = {f"{POSITIONAL}{new}": f"{POSITIONAL}weight_{old}" for old, new in NEW_NORM.items()}
    out = {}
    for key, value in state.items():
        name = key.removeprefix(ENCODER)
        out[key.removesuffix(name) + renamed.get(name, name)] = value
    return out


def split(state: State) -> tuple[State, State]:
    """(the generator without its encoder, the encoder under transformers' names)."""
    own = {key: value for key, value in state.items() if not key.startswith(ENCODER)}
    encoder = {key.removeprefix(ENCODER): value for key, value in state.items() if key.startswith(ENCODER)}
    return own, encoder


def write_hub_folder(folder: Path, encoder: State, config: GeneratorConfig, *, file: str) -> Path:
    """A hub folder of a wav2vec2 with a head for speech recognition; ``file`` names and so formats its weights."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(_HUB_CONFIG | asdict(config.wav2vec2)))
    width = config.wav2vec2.hidden_size
    state = prefixed(encoder, "wav2vec2.")
    state |= {"lm_head.weight": torch.zeros(32, width), "lm_head.bias": torch.zeros(32)}
    if file.endswith(".safetensors"):
        save_file(state, folder / file, {"format": "pt"})
    else:
        torch.save(state, folder / file)
    return folder


def assert_same(network: nn.Module, expected: State) -> None:
    """``network`` is ready for use and holds exactly ``expected``, of the same types."""
    actual = network.state_dict()
    assert not network.training
    for key, value in expected.items():
        assert actual[key].dtype == value.dtype, key
        assert torch.equal(actual[key], value), key
    assert not any(tensor.is_meta for tensor in (*network.parameters(), *network.buffers()))

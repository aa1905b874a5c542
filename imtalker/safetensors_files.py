"""This package's own files of weights: safetensors with the network's kind and config in the metadata."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from imtalker.config import GeneratorConfig, RendererConfig
from imtalker.torch_files import CheckpointError, listed

Config = TypeVar("Config", RendererConfig, GeneratorConfig)

_VERSION = "1"
_PREFIX = "imtalker."
_FIELDS = ("kind", "version", "config")
_LATER = {"generator": {"join_frames": 0}}
"""What configs of a kind say since some files were written, and what holds for those files."""
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Raise what reading ``path`` fails with as a CheckpointError."""
    try:
        yield
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a whole safetensors file ({error}); fetch it again") from error


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of any safetensors file, mapped to it; raises CheckpointError if it is missing or not whole."""
    with _whole(path):
        return load_file(path)


def tensors_sha256(path: Path, prefix: str) -> str | None:
    """SHA-256 of the tensors whose names begin with ``prefix``, their names, types and shapes; None if there is none.

    Raises CheckpointError as `read_safetensors` does.
    """
    digest = hashlib.sha256()
    with _whole(path), safe_open(path, framework="pt") as file:
        names = sorted(name for name in file.keys() if name.startswith(prefix))  # noqa: SIM118  (no mapping)
        for name in names:
            tensor = file.get_tensor(name).contiguous()
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest() if names else None


def read_metadata(path: Path) -> dict[str, str]:
    """``kind``, ``version`` and ``config`` (JSON) of this package's file; raises CheckpointError if one is absent."""
    with _whole(path), safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    if absent := [_PREFIX + name for name in _FIELDS if _PREFIX + name not in metadata]:
        raise CheckpointError(
            f"the metadata of {path} has no {' and no '.join(absent)}, so its sizes are unknown; write the file from "
            "its checkpoint with `imtalker models convert`"
        )
    return {name: metadata[_PREFIX + name] for name in _FIELDS}


def read_config(path: Path, kind: str, config: type[Config], wanted: Config | None) -> Config:
    """The config that the file carries.

    Raises CheckpointError if the file is of another kind or format version, if a field of the config is absent or
    unknown, or if it differs from ``wanted``.
    """
    metadata = read_metadata(path)
    if metadata["kind"] != kind:
        raise CheckpointError(f"{path} holds a {metadata['kind']}; expected a {kind}")
    if metadata["version"] != _VERSION:
        raise CheckpointError(
            f"{path} has format version {metadata['version']}; this release reads {_VERSION}. Write it again with "
            "`imtalker models convert`"
        )
    try:
        found = _LATER.get(kind, {}) | json.loads(metadata["config"])
        carried = config(**found)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the config in {path} is not one of a {kind} ({error})") from error
    complete = plain(asdict(carried))
    if found != complete:
        raise CheckpointError(f"the config in {path} is not complete: {differences(found, complete)}")
    if wanted is not None and wanted != carried:
        raise CheckpointError(
            f"{path} has other sizes than were asked for: {differences(complete, plain(asdict(wanted)))}"
        )
    return carried


def write_network(
    network: nn.Module,
    kind: str,
    config: RendererConfig | GeneratorConfig,
    path: Path,
    dtype: torch.dtype,
) -> None:
    """Write ``network`` with its parameters as ``dtype`` and its buffers as they are, atomically.

    Raises ValueError for another dtype than float32, bfloat16 and float16, CheckpointError for values that are not
    finite in it.
    """
    if dtype not in _DTYPES:
        raise ValueError(f"dtype must be one of {listed([str(known) for known in _DTYPES])}; got {dtype}")
    parameters = {key for key, _ in network.named_parameters()}
    state = {
        key: tensor.detach().to("cpu", dtype if key in parameters else tensor.dtype).contiguous()
        for key, tensor in network.state_dict().items()
    }
    check_finite(state, f"{path} was not written: as {dtype} the network")
    own = {"kind": kind, "version": _VERSION, "config": json.dumps(asdict(config))}
    metadata = {"format": "pt"} | {_PREFIX + name: value for name, value in own.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file(state, temporary, metadata)
        temporary.chmod(0o644)  # safetensors leaves it to the owner alone; stores are shared
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_finite(state: Mapping[str, Tensor], holder: str) -> None:
    """Raise CheckpointError that begins with ``holder`` if a value is infinite or not a number."""
    # aminmax passes NaN on, and is an order of magnitude quicker than isfinite().all() on half a gigabyte.
    if broken := [key for key, tensor in state.items() if not all(map(torch.isfinite, torch.aminmax(tensor)))]:
        raise CheckpointError(f"{holder} holds values that are not finite, in {len(broken)} tensors: {listed(broken)}")


def differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """The fields in which two configs differ, for a message."""
    return "; ".join(
        f"{name} is {found.get(name, 'absent')}, expected {expected.get(name, 'absent')}"
        for name in {**expected, **found}
        if found.get(name, ...) != expected.get(name, ...)
    )


def plain(value: Any) -> Any:
    """``value`` as JSON gives it back: tuples are lists."""
    return json.loads(json.dumps(value))

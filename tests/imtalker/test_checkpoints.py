"""Weights in and out, on the small preset; the published files have their own test."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from imtalker.checkpoints import (
    CheckpointError,
    checkpoint_kind,
    load_generator,
    load_renderer,
    save_generator,
    save_renderer,
    weights_sha256,
)
from imtalker.config import RendererConfig
from imtalker.generator.generator import MotionGenerator
from imtalker.presets import PRESETS, build_seeded
from imtalker.renderer.renderer import Renderer
from tests.imtalker.published import (
    ENCODER,
    NEW_NORM,
    POSITIONAL,
    State,
    assert_same,
    lightning,
    old_norm,
    prefixed,
    read_checkpoint,
    save_checkpoint,
    split,
    write_hub_folder,
)

TINY = PRESETS["imtalker-tiny"]


@pytest.fixture(scope="module")
def tiny() -> tuple[Renderer, MotionGenerator]:
    return build_seeded(TINY)


@pytest.fixture
def renderer_ckpt(tiny: tuple[Renderer, MotionGenerator], tmp_path: Path) -> Path:
    path = tmp_path / "renderer.ckpt"
    save_checkpoint(lightning(prefixed(dict(tiny[0].state_dict()), "gen.")), path)
    return path


def edited(path: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    """A copy of a checkpoint whose ``state_dict`` went through ``edit``."""
    content = read_checkpoint(path)
    edit(content["state_dict"])
    target = path.with_name("edited.ckpt")
    save_checkpoint(content, target)
    return target


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: lightning(prefixed(state, "gen.")),
        lambda state: {"state_dict": prefixed(state, "gen.")},
        lambda state: {"state_dict": {"model": prefixed(state, "gen.")}},
        lambda state: {"model": state, "epoch": 3},
        lambda state: prefixed(state, "gen.") | {"epoch": 3, "optimizer_states": []},
        lambda state: state,
    ],
)
def test_every_published_nesting_gives_the_same_network(
    tiny: tuple[Renderer, MotionGenerator], tmp_path: Path, wrap: Callable[[State], object]
) -> None:
    state = dict(tiny[0].state_dict())
    save_checkpoint(wrap(state), tmp_path / "r.ckpt")
    assert checkpoint_kind(tmp_path / "r.ckpt") == "renderer"
    assert_same(load_renderer(tmp_path / "r.ckpt", config=TINY.renderer), state)


@pytest.mark.parametrize("spelling", [dict, old_norm])
def test_both_spellings_of_the_weight_norm_give_the_same_weight(
    tiny: tuple[Renderer, MotionGenerator], tmp_path: Path, spelling: Callable[[State], State]
) -> None:
    state = dict(tiny[1].state_dict())
    save_checkpoint(lightning(prefixed(spelling(state), "model.")), tmp_path / "g.ckpt")
    assert ("weight_g" in str(spelling(state).keys())) == (spelling is old_norm)
    generator = load_generator(tmp_path / "g.ckpt", config=TINY.generator)
    assert_same(generator, state)
    g, v = (state[ENCODER + POSITIONAL + NEW_NORM[name]] for name in "gv")
    expected = g * v / v.pow(2).sum(dim=(0, 1), keepdim=True).sqrt()
    weight = generator.audio_encoder.wav2vec2.encoder.pos_conv_embed.conv.weight
    torch.testing.assert_close(weight, expected, rtol=1e-6, atol=1e-7)


def test_a_weight_given_in_both_spellings_is_refused(tiny: tuple[Renderer, MotionGenerator], tmp_path: Path) -> None:
    state = dict(tiny[1].state_dict())
    save_checkpoint(prefixed(state | old_norm(state), "model."), tmp_path / "g.ckpt")
    with pytest.raises(CheckpointError, match="twice"):
        load_generator(tmp_path / "g.ckpt", config=TINY.generator)


@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.safetensors"])
def test_the_encoder_comes_from_a_hub_folder(tiny: tuple[Renderer, MotionGenerator], tmp_path: Path, file: str) -> None:
    own, encoder = split(dict(tiny[1].state_dict()))
    save_checkpoint(lightning(prefixed(own, "model.")), tmp_path / "g.ckpt")
    hub = write_hub_folder(tmp_path / "hub", old_norm(encoder), TINY.generator, file=file)
    assert_same(load_generator(tmp_path / "g.ckpt", hub, config=TINY.generator), dict(tiny[1].state_dict()))
    assert weights_sha256(hub) == weights_sha256(hub / file)


@pytest.mark.parametrize("beside", [True, False])
def test_a_generator_that_need_not_hear_loads_without_its_encoder(
    tiny: tuple[Renderer, MotionGenerator], tmp_path: Path, beside: bool
) -> None:
    own, _ = split(dict(tiny[1].state_dict()))
    save_checkpoint(prefixed(own if beside else dict(tiny[1].state_dict()), "model."), tmp_path / "g.ckpt")
    deaf = load_generator(tmp_path / "g.ckpt", config=TINY.generator, hears=False)
    assert_same(deaf, own)
    features, reference = torch.randn(1, 60, 64), torch.randn(1, 32)
    moved = deaf.sample_from_features(features, reference, nfe=3)
    assert torch.equal(moved, tiny[1].sample_from_features(features, reference, nfe=3))
    with pytest.raises(ValueError, match="without its audio encoder"):
        deaf.encode_audio(torch.randn(1, 16000))


def test_the_oldest_format_of_torch_loads(tiny: tuple[Renderer, MotionGenerator], tmp_path: Path) -> None:
    own, encoder = split(dict(tiny[1].state_dict()))
    save_checkpoint(own, tmp_path / "g.ckpt", zipped=False)
    hub = write_hub_folder(tmp_path / "hub", encoder, TINY.generator, file="pytorch_model.bin")
    save_checkpoint(prefixed(encoder, "wav2vec2."), hub / "pytorch_model.bin", zipped=False)
    assert_same(load_generator(tmp_path / "g.ckpt", hub, config=TINY.generator), dict(tiny[1].state_dict()))


def test_the_checkpoints_own_encoder_wins(tiny: tuple[Renderer, MotionGenerator], tmp_path: Path) -> None:
    state = dict(tiny[1].state_dict())
    _, encoder = split(state)
    other = {key: value + 1 for key, value in encoder.items()}
    hub = write_hub_folder(tmp_path / "hub", other, TINY.generator, file="model.safetensors")
    kept = {key: value for key, value in state.items() if not key.endswith("feature_projection.projection.bias")}
    save_checkpoint(prefixed(kept, "model."), tmp_path / "g.ckpt")
    loaded = load_generator(tmp_path / "g.ckpt", hub, config=TINY.generator)
    bias = "feature_projection.projection.bias"
    assert_same(loaded, kept | {ENCODER + bias: other[bias]})


def test_the_unused_mask_may_be_absent(tiny: tuple[Renderer, MotionGenerator], tmp_path: Path) -> None:
    state = dict(tiny[1].state_dict())
    del state[ENCODER + "masked_spec_embed"]
    save_checkpoint(prefixed(state, "model."), tmp_path / "g.ckpt")
    assert_same(load_generator(tmp_path / "g.ckpt", config=TINY.generator), state)


def test_the_generators_buffers_are_constructed(tiny: tuple[Renderer, MotionGenerator], tmp_path: Path) -> None:
    state = dict(tiny[1].state_dict())
    save_checkpoint(prefixed(state | {"fmt.rotary_emb.inv_freq": torch.zeros(8)}, "model."), tmp_path / "g.ckpt")
    assert_same(load_generator(tmp_path / "g.ckpt", config=TINY.generator), state)


def test_the_renderers_buffers_are_loaded(renderer_ckpt: Path) -> None:
    key = "dense_feature_encoder.initial_conv.1.running_mean"
    path = edited(renderer_ckpt, lambda state: state["gen." + key].fill_(0.125))
    loaded = load_renderer(path, config=TINY.renderer)
    assert (loaded.state_dict()[key] == 0.125).all()


def test_loaded_networks_give_the_numbers_of_the_saved_ones(
    tiny: tuple[Renderer, MotionGenerator], tmp_path: Path
) -> None:
    renderer, generator = tiny
    save_renderer(renderer, tmp_path / "r.safetensors")
    save_generator(generator, tmp_path / "g.safetensors")
    pictures = torch.rand(2, 1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    waveform = torch.sin(torch.arange(4000) * 0.03)[None]
    with torch.inference_mode():
        frames = renderer(*pictures)
        motion = generator.sample(waveform, renderer.encode_motion(pictures[0]))
        assert torch.equal(load_renderer(tmp_path / "r.safetensors")(*pictures), frames)
        loaded = load_generator(tmp_path / "g.safetensors")
        assert torch.equal(loaded.sample(waveform, renderer.encode_motion(pictures[0])), motion)


def test_loaded_networks_can_be_trained_without_touching_the_file(
    tiny: tuple[Renderer, MotionGenerator], tmp_path: Path
) -> None:
    path = tmp_path / "r.safetensors"
    save_renderer(tiny[0], path)
    before = weights_sha256(path)
    loaded = load_renderer(path)
    with torch.no_grad():
        for parameter in loaded.parameters():
            assert parameter.requires_grad
            parameter.add_(1)
    assert weights_sha256(path) == before


def test_a_loaded_network_does_not_change_with_its_file(tiny: tuple[Renderer, MotionGenerator], tmp_path: Path) -> None:
    path = tmp_path / "r.safetensors"
    save_renderer(tiny[0], path)
    loaded = load_renderer(path)
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    for name, tensor in tiny[0].state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


# Refusals


def test_missing_unknown_and_misshapen_keys_are_all_listed(renderer_ckpt: Path) -> None:
    def damage(state: State) -> None:
        del state["gen.adapt.in_layer.weight"]
        state["gen.adapt.in_layer.wight"] = torch.zeros(1)
        state["other.thing"] = torch.zeros(1)
        state["gen.adapt.final_linear.bias"] = torch.zeros(7)

    with pytest.raises(CheckpointError) as caught:
        load_renderer(edited(renderer_ckpt, damage), config=TINY.renderer)
    message = str(caught.value)
    assert "1 missing: adapt.in_layer.weight" in message
    assert "2 unexpected: adapt.in_layer.wight, other.thing" in message
    assert "1 of another shape: adapt.final_linear.bias is [7], expected [32]" in message
    assert "edited.ckpt" in message


def test_a_long_list_of_keys_is_shortened_and_counted(renderer_ckpt: Path) -> None:
    count = len(read_checkpoint(renderer_ckpt)["state_dict"])
    path = edited(renderer_ckpt, lambda state: state.clear())
    with pytest.raises(CheckpointError, match=rf"{count} missing: .* \.\.\. \({count - 10} more\)"):
        load_renderer(path, config=TINY.renderer)


def test_the_published_sizes_are_the_default(renderer_ckpt: Path) -> None:
    with pytest.raises(CheckpointError, match=r"of another shape.*config="):
        load_renderer(renderer_ckpt)


def test_values_that_are_not_finite_are_named(renderer_ckpt: Path) -> None:
    path = edited(renderer_ckpt, lambda state: state["gen.adapt.in_layer.bias"].view(-1)[3:4].fill_(torch.nan))
    with pytest.raises(CheckpointError, match=r"not finite, in 1 tensors: adapt\.in_layer\.bias"):
        load_renderer(path, config=TINY.renderer)


class Payload:
    """Touches a file when it is unpickled without care."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("where", ["state_dict", "hyper_parameters"])
def test_code_in_a_checkpoint_is_refused_by_name_and_never_run(tmp_path: Path, zipped: bool, where: str) -> None:
    content = lightning({})
    content[where] = {"x": Payload(tmp_path / "ran")}
    save_checkpoint(content, tmp_path / "evil.ckpt", zipped=zipped)
    for attempt in (load_renderer, load_generator, checkpoint_kind):
        with pytest.raises(CheckpointError, match=r"evil\.ckpt.*posix\.system"):
            attempt(tmp_path / "evil.ckpt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["builtins.eval", "builtins.getattr", "functools.partial"])
def test_globals_outside_the_list_are_refused(tmp_path: Path, name: str) -> None:
    module, _, function = name.rpartition(".")
    save_checkpoint({"state_dict": {}, "callbacks": getattr(sys.modules[module], function)}, tmp_path / "c.ckpt")
    with pytest.raises(CheckpointError, match=function):
        load_renderer(tmp_path / "c.ckpt")


@pytest.mark.parametrize("kept", [0.2, 0.6, 0.999])
def test_a_truncated_checkpoint_is_refused(renderer_ckpt: Path, kept: float) -> None:
    data = renderer_ckpt.read_bytes()
    renderer_ckpt.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(CheckpointError, match=r"renderer\.ckpt.*fetch it again"):
        load_renderer(renderer_ckpt, config=TINY.renderer)


@pytest.mark.parametrize(
    "data", [b"", b"<!DOCTYPE html><html>404</html>", b"\x89PNG\r\n\x1a\n" + bytes(64), b"PK\x03\x04"]
)
@pytest.mark.parametrize("name", ["x.ckpt", "x.safetensors"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, data: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(data)
    for load in (load_renderer, load_generator, checkpoint_kind):
        with pytest.raises(CheckpointError, match=rf"{name}.*fetch it again"):
            load(tmp_path / name)


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": 5}, {"state_dict": {"gen.a": "text"}}])
def test_a_checkpoint_without_tensors_is_refused(tmp_path: Path, content: object) -> None:
    save_checkpoint(content, tmp_path / "c.ckpt")
    with pytest.raises(CheckpointError, match="tensors"):
        load_renderer(tmp_path / "c.ckpt")


@pytest.mark.parametrize("name", ["x.ckpt", "x.safetensors"])
def test_a_file_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match=name):
        load_renderer(tmp_path / name)


def test_the_wrong_network_is_refused(
    tiny: tuple[Renderer, MotionGenerator], renderer_ckpt: Path, tmp_path: Path
) -> None:
    hub = write_hub_folder(
        tmp_path / "hub", split(dict(tiny[1].state_dict()))[1], TINY.generator, file="model.safetensors"
    )
    with pytest.raises(CheckpointError, match=r"missing: .*fmt\."):
        load_generator(renderer_ckpt, hub, config=TINY.generator)
    save_checkpoint({"wav2vec2.a": torch.zeros(1)}, tmp_path / "e.ckpt")
    with pytest.raises(CheckpointError, match="expected a renderer or a generator"):
        checkpoint_kind(tmp_path / "e.ckpt")


def test_an_encoder_of_another_build_is_refused(tiny: tuple[Renderer, MotionGenerator], tmp_path: Path) -> None:
    own, encoder = split(dict(tiny[1].state_dict()))
    save_checkpoint(own, tmp_path / "g.ckpt")
    hub = write_hub_folder(tmp_path / "hub", encoder, TINY.generator, file="model.safetensors")
    # The same keys and shapes as the right one: only the config tells.
    described = json.loads((hub / "config.json").read_text()) | {"do_stable_layer_norm": True}
    (hub / "config.json").write_text(json.dumps(described))
    with pytest.raises(CheckpointError, match="do_stable_layer_norm is True, expected False"):
        load_generator(tmp_path / "g.ckpt", hub, config=TINY.generator)
    (hub / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_generator(tmp_path / "g.ckpt", hub, config=TINY.generator)
    (hub / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"expected config\.json and model\.safetensors or pytorch_model\.bin"):
        load_generator(tmp_path / "g.ckpt", hub, config=TINY.generator)


# Our own files


@pytest.fixture
def renderer_file(tiny: tuple[Renderer, MotionGenerator], tmp_path: Path) -> Path:
    save_renderer(tiny[0], tmp_path / "r.safetensors")
    return tmp_path / "r.safetensors"


def with_metadata(path: Path, change: Callable[[dict[str, str]], object]) -> Path:
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata())
    change(metadata)
    save_file(load_file(path), path.with_name("changed.safetensors"), metadata)
    return path.with_name("changed.safetensors")


def test_a_safetensors_file_carries_kind_version_and_config(renderer_file: Path) -> None:
    with safe_open(renderer_file, framework="pt") as file:
        metadata = file.metadata()
    assert metadata["imtalker.kind"] == "renderer"
    assert metadata["imtalker.version"] == "1"
    assert RendererConfig(**json.loads(metadata["imtalker.config"])) == TINY.renderer
    assert checkpoint_kind(renderer_file) == "renderer"
    assert renderer_file.stat().st_mode & 0o777 == 0o644
    assert [file.name for file in renderer_file.parent.iterdir()] == ["r.safetensors"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.clear(), r"no imtalker\.kind and no imtalker\.version and no imtalker\.config.*models convert"),
        (lambda m: m.pop("imtalker.config"), r"no imtalker\.config"),
        (lambda m: m.update({"imtalker.kind": "generator"}), "holds a generator; expected a renderer"),
        (lambda m: m.update({"imtalker.version": "2"}), "format version 2; this release reads 1"),
        (lambda m: m.update({"imtalker.config": "{"}), "not one of a renderer"),
        (lambda m: m.update({"imtalker.config": '{"depth": 3}'}), "not one of a renderer"),
        (lambda m: m.update({"imtalker.config": '{"resolution": 128}'}), "not one of a renderer|not complete"),
        (lambda m: m.update({"imtalker.config": "{}"}), "not complete: resolution is absent, expected 512"),
    ],
)
def test_a_safetensors_file_without_its_own_metadata_is_refused(
    renderer_file: Path, change: Callable[[dict[str, str]], object], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_renderer(with_metadata(renderer_file, change))


def test_a_generators_file_from_before_windows_could_be_joined_does_not_join_them(
    tiny: tuple[Renderer, MotionGenerator], tmp_path: Path
) -> None:
    def forget(metadata: dict[str, str]) -> None:
        config = json.loads(metadata["imtalker.config"])
        assert config.pop("join_frames") == 0
        metadata["imtalker.config"] = json.dumps(config)

    save_generator(tiny[1], tmp_path / "g.safetensors")
    assert load_generator(with_metadata(tmp_path / "g.safetensors", forget)).config == TINY.generator


def test_a_safetensors_file_of_other_sizes_than_asked_for_is_refused(renderer_file: Path) -> None:
    load_renderer(renderer_file, config=TINY.renderer)
    with pytest.raises(CheckpointError, match="window_size is 8, expected 4"):
        load_renderer(renderer_file, config=replace(TINY.renderer, window_size=4))


def test_a_safetensors_file_whose_config_is_not_its_tensors_is_refused(renderer_file: Path) -> None:
    other = json.dumps(asdict(replace(TINY.renderer, dim_hidden=16)))
    with pytest.raises(CheckpointError, match="of another shape"):
        load_renderer(with_metadata(renderer_file, lambda m: m.update({"imtalker.config": other})))


def test_a_truncated_safetensors_file_is_refused(renderer_file: Path) -> None:
    data = renderer_file.read_bytes()
    renderer_file.write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match=r"r\.safetensors.*fetch it again"):
        load_renderer(renderer_file)


@pytest.mark.parametrize(("dtype", "step"), [(torch.float16, 2**-11), (torch.bfloat16, 2**-8)])
def test_half_precision_files_round_parameters_and_nothing_else(
    tiny: tuple[Renderer, MotionGenerator], tmp_path: Path, dtype: torch.dtype, step: float
) -> None:
    save_renderer(tiny[0], tmp_path / "r.safetensors", dtype=dtype)
    save_generator(tiny[1], tmp_path / "g.safetensors", dtype=dtype)
    loaded = (load_renderer(tmp_path / "r.safetensors"), load_generator(tmp_path / "g.safetensors"))
    for before, after in zip(tiny, loaded, strict=True):
        assert_same(after, dict(before.named_buffers()))
        for key, parameter in before.named_parameters():
            stored = after.get_parameter(key)
            assert stored.dtype == torch.float32
            # Half a unit in the last place, or half the smallest subnormal number of float16.
            assert (stored - parameter).abs().le(parameter.abs() * step + 2**-25).all(), key
            assert torch.equal(stored, parameter.to(dtype).float()), key


def test_a_network_that_does_not_fit_half_precision_is_not_written(
    tiny: tuple[Renderer, MotionGenerator], tmp_path: Path
) -> None:
    renderer = Renderer(TINY.renderer)
    with torch.no_grad():
        renderer.adapt.in_layer.bias[0] = 1e6
    with pytest.raises(CheckpointError, match=r"not finite.*adapt\.in_layer\.bias"):
        save_renderer(renderer, tmp_path / "r.safetensors", dtype=torch.float16)
    with pytest.raises(ValueError, match="float64"):
        save_renderer(renderer, tmp_path / "r.safetensors", dtype=torch.float64)
    assert list(tmp_path.iterdir()) == []

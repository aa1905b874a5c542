"""The renderer against the published model's numbers, and at other sizes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from imtalker import Renderer, RendererConfig
from imtalker.seeded import seeded_state_dict
from tests.imtalker.golden import Golden, load, state_spec
from tests.imtalker.pictures import seeded_picture

SMALL = RendererConfig(
    resolution=64,
    channels=(32, 16, 8),
    motion_levels=2,
    motion_encoder_channels=(8, 16, 16),
    dim_identity=24,
    dim_hidden=20,
    dim_motion=12,
    num_heads=2,
    window_size=4,
    swin_res_threshold=32,
)


def seeded_renderer(config: RendererConfig, seed: int) -> Renderer:
    renderer = Renderer(config).eval()
    renderer.load_state_dict(seeded_state_dict(renderer.state_dict(), seed))
    return renderer


@pytest.fixture(scope="module")
def golden() -> Golden:
    return load("renderer")


@pytest.fixture(scope="module")
def renderer(golden: Golden) -> Iterator[Renderer]:
    yield seeded_renderer(RendererConfig(), golden.seed)


def test_keys_shapes_and_order_are_the_published_ones(renderer: Renderer) -> None:
    assert {k: tuple(v.shape) for k, v in renderer.state_dict().items()} == state_spec("renderer")
    assert list(renderer.state_dict()) == list(state_spec("renderer"))
    assert sum(p.numel() for p in renderer.parameters()) == 124_137_625


class Capture:
    """Outputs of named modules during a forward pass."""

    def __init__(self, modules: dict[str, nn.Module]) -> None:
        self.outputs: dict[str, Tensor] = {}
        self._handles = [
            module.register_forward_hook(lambda _m, _i, out, name=name: self.outputs.__setitem__(name, out))
            for name, module in modules.items()
        ]

    def __enter__(self) -> dict[str, Tensor]:
        return self.outputs

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()


def top_keys(renderer: Renderer, maps: list[Tensor], source_maps: list[Tensor]) -> Tensor:
    """int64 [N]: the best key of the last attention level from the whole map, the plain way."""
    last = renderer.config.attention_levels - 1
    attention = renderer.imt[last].block_efc
    q = attention.split(attention.q_proj(maps[last].flatten(2).transpose(1, 2)))
    k = attention.keys(source_maps[last].flatten(2).transpose(1, 2))
    weights = (q @ k.transpose(2, 3) * q.shape[-1] ** -0.5).softmax(-1)
    return weights.mean(1)[0].argmax(-1)


@torch.inference_mode()
def test_meets_the_golden_vectors(renderer: Renderer, golden: Golden) -> None:
    source = seeded_picture("source", golden.seed)
    features, identity = renderer.encode_identity(source)
    golden.check("identity", identity)
    for i, feature in enumerate(features):
        golden.check(f"feature_{i}", feature)
    source_motion = renderer.encode_motion(source)
    golden.check("latent_src", source_motion)
    golden.check("adapted_src", renderer.adapt(source_motion, identity))
    source_maps = renderer.motion_maps(source_motion, identity)
    for i, level in enumerate(source_maps):
        golden.check(f"motion_src_{i}", level)
    prepared = renderer.prepare(source)

    for name in ("drv0", "drv1"):
        motion = renderer.encode_motion(seeded_picture(f"driving{name[-1]}", golden.seed))
        golden.check(f"latent_{name}", motion)
        golden.check(f"adapted_{name}", renderer.adapt(motion, identity))
        maps = renderer.motion_maps(motion, identity)
        for i, level in enumerate(maps):
            golden.check(f"motion_{name}_{i}", level)
        aligned = renderer.imt(maps, prepared.maps)
        for i, level in enumerate(aligned):
            golden.check(f"aligned_{name}_{i}", level)
        stored = golden[f"argmax_{name}"].flatten().long()
        clear = golden[f"margin_{name}"].flatten() > 1e-4
        best = top_keys(renderer, maps, source_maps)
        assert torch.equal(best[clear], stored[clear])
        decoder = renderer.frame_decoder
        parts = {"up": decoder.upconv_blocks, "res": decoder.resblocks, "attn": decoder.transformer_blocks}
        modules = {f"synth_{part}_{i}": m for part, ms in parts.items() for i, m in enumerate(ms)}
        with Capture(modules) as outputs:
            frame = decoder(aligned)
        if name == "drv0":
            for part, output in outputs.items():
                golden.check(part, output)
        golden.check(f"frame_{name}", frame)
    # Every stored tensor has been looked at.
    assert set(golden.tolerances) - set(golden.deviations) == {"argmax_drv0", "argmax_drv1"}


@torch.inference_mode()
def test_forward_of_a_batch_is_forward_of_each(renderer: Renderer, golden: Golden) -> None:
    source, driving = seeded_picture("source", golden.seed), seeded_picture("driving1", golden.seed)
    frames = renderer(torch.cat([source, driving]), torch.cat([driving, source]))
    golden.check("frame_drv1", frames[1:])


@torch.inference_mode()
def test_published_options_meet_the_golden_vectors() -> None:
    golden = load("renderer_options")
    renderer = seeded_renderer(RendererConfig(**json.loads(golden.metadata["options"])), golden.seed)
    # Checkpoints keep the layers of levels that this option resamples instead.
    assert "latent_token_decoder.style_conv_layers.12.conv.weight" in renderer.state_dict()
    prepared = renderer.prepare(seeded_picture("source", golden.seed), golden["latent_src"])
    golden.check("identity", prepared.identity)
    golden.check("adapted_src", renderer.adapt(golden["latent_src"], prepared.identity))
    golden.check("adapted_drv0", renderer.adapt(golden["latent_drv0"], prepared.identity))
    maps = renderer.motion_maps(golden["latent_drv0"], prepared.identity)
    aligned = renderer.imt(maps, prepared.maps)
    for i, level in enumerate(aligned):
        golden.check(f"aligned_drv0_{i}", level)
    blocks = renderer.frame_decoder.transformer_blocks
    with Capture({f"synth_attn_{i}": block for i, block in enumerate(blocks)}) as outputs:
        frame = renderer.frame_decoder(aligned)
    for name, output in outputs.items():
        golden.check(name, output)
    golden.check("frame_drv0", frame)


@torch.inference_mode()
@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        replace(SMALL, resolution=128, channels=(32, 24, 16, 8), motion_encoder_channels=(8, 8, 16, 16)),
        replace(SMALL, num_heads=4, window_size=8),
        replace(SMALL, swin_res_threshold=64, motion_levels=3),  # every level attends
        replace(SMALL, swin_res_threshold=64, motion_levels=3, synthesis_threshold=16),
    ],
    ids=["small", "one level more", "heads and window", "no resampler", "windows earlier"],
)
def test_other_sizes_work_by_config_alone(config: RendererConfig) -> None:
    renderer = seeded_renderer(config, seed=3)
    side = config.resolution
    pictures = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    features, identity = renderer.encode_identity(pictures)
    assert [tuple(f.shape[1:]) for f in features] == [
        (c, r, r) for c, r in zip(config.channels, config.level_resolutions, strict=True)
    ]
    assert identity.shape == (2, config.dim_identity)
    frames = renderer(pictures, pictures.flip(0))
    assert frames.shape == pictures.shape
    assert frames.isfinite().all()
    assert frames.min() >= 0
    assert frames.max() <= 1
    # Motion matters, identity matters.
    assert (frames[0] - frames[1]).abs().mean() > 1e-3
    still = renderer(pictures[:1], pictures.flip(0)[:1])
    torch.testing.assert_close(still, frames[:1], atol=1e-5, rtol=0)


def test_gradients_reach_every_used_parameter() -> None:
    renderer = seeded_renderer(SMALL, seed=5).train()
    pictures = torch.rand(2, 3, 64, 64)
    renderer(pictures, pictures.flip(0)).square().mean().backward()
    unused = {name for name, p in renderer.named_parameters() if p.grad is None}
    assert {name.rsplit(".", 2)[-2] for name in unused} == {"equalconv", "noise"}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"resolution": 100}, "multiple of"),
        ({"motion_levels": 9}, "motion_levels"),
        ({"swin_res_threshold": 8}, "swin_res_threshold"),
        ({"swin_res_threshold": 100}, "swin_res_threshold"),
        ({"num_heads": 7}, "num_heads"),
    ],
)
def test_impossible_sizes_are_refused(change: dict[str, int], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        replace(RendererConfig(), **change)


def test_a_picture_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[B, 3, 64, 64\].*\[1, 3, 32, 32\]"):
        Renderer(SMALL).encode_motion(torch.zeros(1, 3, 32, 32))

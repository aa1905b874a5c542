"""The render engine gives the renderer's frames, whatever the batch, the type and the size of the networks."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
import torch._inductor.config
from torch import Tensor

from imtalker import RenderEngine, RendererConfig
from imtalker.engine import engine as engine_module
from imtalker.engine import transfer
from imtalker.engine.flips import count_flips
from imtalker.renderer.renderer import Renderer
from tests.imtalker.golden import load
from tests.imtalker.pictures import seeded_picture
from tests.imtalker.test_renderer import SMALL, seeded_renderer

CONFIGS = {
    "small": SMALL,
    "one level more": replace(SMALL, resolution=128, channels=(32, 24, 16, 8), motion_encoder_channels=(8, 8, 16, 16)),
    "heads and window": replace(SMALL, num_heads=4, window_size=8),
    "one level attends": replace(SMALL, swin_res_threshold=16),
    "no resampler": replace(SMALL, swin_res_threshold=64, motion_levels=3),
    "windows earlier": replace(SMALL, swin_res_threshold=64, motion_levels=3, synthesis_threshold=16),
}


@pytest.fixture(scope="module")
def engine() -> RenderEngine:
    return RenderEngine(seeded_renderer(SMALL, 3), device="cpu", batch_size=3)


def codes(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, SMALL.dim_motion, generator=torch.Generator().manual_seed(seed))


def picture(side: int = 64) -> Tensor:
    return torch.rand(3, side, side, generator=torch.Generator().manual_seed(9))


@pytest.fixture(scope="module")
def source() -> Tensor:
    return picture()


def plain_frames(renderer: Renderer, source: Tensor, motion: Tensor) -> Tensor:
    with torch.inference_mode():
        return renderer.render(renderer.prepare(source[None]), motion)


def engine_frames(engine: RenderEngine, source: Tensor, motion: Tensor) -> Tensor:
    return torch.cat(list(engine.frames(engine.prepare(source), motion)))


def psnr(frames: Tensor, reference: Tensor) -> Tensor:
    """[n] in dB."""
    return -10 * (frames - reference).double().square().mean((1, 2, 3)).log10()


def test_frames_are_the_renderers(engine: RenderEngine, source: Tensor) -> None:
    motion = codes(7)
    chunks = list(engine.frames(engine.prepare(source), motion))
    assert [len(c) for c in chunks] == [3, 3, 1]
    assert all(c.dtype == torch.float32 and c.is_contiguous() for c in chunks)
    expected = plain_frames(engine.renderer, source, motion)
    torch.testing.assert_close(torch.cat(chunks), expected, atol=5e-6, rtol=0)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_every_size_gives_the_same_picture(config: RendererConfig) -> None:
    renderer, source, motion = seeded_renderer(config, 3), picture(config.resolution), codes(3)
    expected = plain_frames(renderer, source, motion)
    for dtype, worst in ((torch.float32, 100.0), (torch.bfloat16, 45.0), (torch.float16, 60.0)):
        engine = RenderEngine(renderer, device="cpu", dtype=dtype, batch_size=3)
        assert psnr(engine_frames(engine, source, motion), expected).min() > worst


def test_half_precision_chooses_the_same_matches(source: Tensor) -> None:
    renderer, motion = seeded_renderer(SMALL, 3), codes(8)
    for dtype in (torch.float32, torch.bfloat16):
        engine = RenderEngine(renderer, device="cpu", dtype=dtype, batch_size=4)
        assert count_flips(renderer, engine, source, motion) == (0, 8 * 16 * 16)


def test_a_flip_is_counted(engine: RenderEngine, source: Tensor) -> None:
    other = seeded_renderer(SMALL, 4)
    flips, total = count_flips(other, engine, source, codes(2))
    assert 0 < flips <= total == 2 * 16 * 16


def test_a_renderer_without_choices_says_so() -> None:
    engine = RenderEngine(seeded_renderer(CONFIGS["no resampler"], 3), device="cpu", batch_size=1)
    with pytest.raises(ValueError, match="every level attends"):
        engine.best_matches(engine.prepare(picture()), codes(1))


def test_a_frame_does_not_depend_on_the_clip_around_it(engine: RenderEngine, source: Tensor) -> None:
    prepared, motion = engine.prepare(source), codes(9)
    whole = torch.cat(list(engine.frames(prepared, motion)))
    other = codes(9, seed=5)
    other[4] = motion[4]
    assert torch.equal(torch.cat(list(engine.frames(prepared, other)))[4], whole[4])
    assert torch.equal(torch.cat(list(engine.frames(prepared, motion[3:8])))[:5], whole[3:8])


def test_batches_split_over_several_network_calls_are_whole(source: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "_CPU_PIXELS", 2 * SMALL.resolution**2)
    engine = RenderEngine(seeded_renderer(SMALL, 3), device="cpu", batch_size=5)
    motion = codes(8)
    prepared = engine.prepare(source)
    chunks = list(engine.frames(prepared, motion))
    assert [len(c) for c in chunks] == [5, 3]
    expected = plain_frames(engine.renderer, source, motion)
    torch.testing.assert_close(torch.cat(chunks), expected, atol=5e-6, rtol=0)
    assert torch.equal(next(iter(engine.frames(prepared, motion[5:]))), chunks[1])


def test_bytes_are_truncated(engine: RenderEngine, source: Tensor) -> None:
    prepared, motion = engine.prepare(source), codes(4)
    frames = torch.cat(list(engine.frames(prepared, motion)))
    chunks = list(engine.render(prepared, motion))
    assert [len(c) for c in chunks] == [3, 1]
    pixels = torch.cat(chunks)
    assert pixels.dtype == torch.uint8
    assert pixels.shape == (4, 64, 64, 3)
    assert torch.equal(pixels, (frames * 255).floor().byte().permute(0, 2, 3, 1))


def test_no_motion_is_no_frames(engine: RenderEngine, source: Tensor) -> None:
    assert not list(engine.render(engine.prepare(source), codes(0)))


def test_motion_codes_are_the_renderers(engine: RenderEngine) -> None:
    images = torch.rand(5, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        expected = engine.renderer.encode_motion(images)
    motion = engine.encode_motion(images)
    torch.testing.assert_close(motion, expected, atol=1e-5, rtol=0)
    assert torch.equal(engine.encode_motion(images[:4]), motion[:4])
    assert engine.encode_motion(images[:0]).shape == (0, SMALL.dim_motion)


def test_looking_at_pictures_gives_their_codes_and_identities(engine: RenderEngine) -> None:
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        expected = engine.renderer.encode_motion(images), engine.renderer.encode_identity(images)[1]
    for found, wanted in zip(engine.inspect(images), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert [len(part) for part in engine.inspect(images[:0])] == [0, 0]
    assert not engine.shrunk


def test_golden_frames_and_motion_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    golden = load("renderer")
    engine = RenderEngine(seeded_renderer(RendererConfig(), golden.seed), device="cpu", batch_size=2)
    motion = torch.cat([golden["latent_drv0"], golden["latent_drv1"]])
    prepared = engine.prepare(seeded_picture("source", golden.seed)[0])
    golden.check("latent_src", prepared.motion)
    best = engine.best_matches(prepared, motion)
    assert golden.check_argmax("drv0", best[0]) + golden.check_argmax("drv1", best[1]) <= 2
    frames = next(iter(engine.frames(prepared, motion)))
    ranked = transfer.ranked_attention
    for name, code, frame in zip(("drv0", "drv1"), motion.split(1), frames.split(1), strict=True):

        def settled(q: Tensor, k: Tensor, v: Tensor, name: str = name) -> tuple[Tensor, Tensor]:
            mixed, chosen = ranked(q, k, v)
            return mixed, golden.ties_settled(name, chosen)

        with monkeypatch.context() as patch:
            patch.setattr(transfer, "ranked_attention", settled)
            (alone,) = engine.frames(prepared, code)
        golden.check(f"frame_{name}", alone)
        assert psnr(frame, alone) > 60
    half = RenderEngine(engine.renderer, device="cpu", dtype=torch.bfloat16, batch_size=2)
    values = psnr(engine_frames(half, seeded_picture("source", golden.seed)[0], motion), frames)
    assert values.mean() >= 45 and values.min() >= 38


@pytest.fixture
def overflowing() -> Renderer:
    """A renderer whose last features are finite in float32 and not in float16."""
    renderer = seeded_renderer(SMALL, 3)
    state = renderer.state_dict()
    for key, factor in (("transformer_blocks.1.blocks.1.mlp.2.weight", 1e6), ("final_conv.1.weight", 1e-6)):
        state[f"frame_decoder.{key}"].mul_(factor)
    return renderer


def test_frames_that_overflow_are_redone_in_float32(
    overflowing: Renderer, source: Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    engine = RenderEngine(overflowing, device="cpu", dtype=torch.float16, batch_size=2)
    motion = codes(3)
    prepared = engine.prepare(source)
    with caplog.at_level(logging.WARNING):
        frames = torch.cat(list(engine.frames(prepared, motion)))
    assert "redone in float32" in caplog.text
    expected = plain_frames(overflowing, source, motion)
    torch.testing.assert_close(frames, expected, atol=1e-5, rtol=0)
    pixels = torch.cat(list(engine.render(prepared, motion)))
    assert torch.equal(pixels, (frames * 255).byte().permute(0, 2, 3, 1))


def test_a_frame_that_no_precision_saves_is_an_error(engine: RenderEngine, source: Tensor) -> None:
    motion = codes(4)
    motion[1, 0] = torch.nan
    with pytest.raises(FloatingPointError, match="1 of 3 frames"):
        next(engine.frames(engine.prepare(source), motion))


@pytest.fixture
def no_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    with torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",), "force_disable_caches": True}):
        yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_rendering_goes_on(source: Tensor, caplog: pytest.LogCaptureFixture) -> None:
    engine = RenderEngine(seeded_renderer(SMALL, 3), device="cpu", batch_size=2, compile=True)
    motion = codes(3)
    with caplog.at_level(logging.WARNING):
        frames = engine_frames(engine, source, motion)
    assert caplog.text.count("without compilation") == 1
    torch.testing.assert_close(frames, plain_frames(engine.renderer, source, motion), atol=5e-6, rtol=0)


def test_wrong_shapes_are_refused(engine: RenderEngine, source: Tensor) -> None:
    with pytest.raises(ValueError, match=r"\[3, R, R\]"):
        engine.prepare(source[None])
    with pytest.raises(ValueError, match=r"\[n, 3, R, R\] with R = 64.*\[3, 64, 64\]"):
        engine.encode_motion(source)
    with pytest.raises(ValueError, match=r"\[T, 12\].*\[4, 32\]"):
        next(engine.frames(engine.prepare(source), torch.zeros(4, 32)))
    with pytest.raises(ValueError, match="dtype"):
        RenderEngine(engine.renderer, device="cpu", dtype=torch.float64, batch_size=1)
    with pytest.raises(ValueError, match="batch_size"):
        RenderEngine(engine.renderer, device="cpu", batch_size=0)

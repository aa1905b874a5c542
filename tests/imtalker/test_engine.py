"""The render engine gives the renderer's frames, whatever the batch."""

from __future__ import annotations

import pytest
import torch

from imtalker import RenderEngine
from tests.imtalker.golden import load
from tests.imtalker.pictures import seeded_picture
from tests.imtalker.test_renderer import SMALL, seeded_renderer


@pytest.fixture(scope="module")
def engine() -> RenderEngine:
    return RenderEngine(seeded_renderer(SMALL, 3), device="cpu", batch_size=3)


def codes(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, SMALL.dim_motion, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def source() -> torch.Tensor:
    return torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(9))


def test_frames_are_the_renderers(engine: RenderEngine, source: torch.Tensor) -> None:
    motion = codes(7)
    chunks = list(engine.frames(engine.prepare(source), motion))
    assert [len(c) for c in chunks] == [3, 3, 1]
    with torch.inference_mode():
        expected = engine.renderer.render(engine.renderer.prepare(source[None]), motion)
    torch.testing.assert_close(torch.cat(chunks), expected, atol=1e-5, rtol=0)


def test_a_frame_does_not_depend_on_the_clip_around_it(engine: RenderEngine, source: torch.Tensor) -> None:
    prepared, motion = engine.prepare(source), codes(9)
    whole = torch.cat(list(engine.frames(prepared, motion)))
    other = codes(9, seed=5)
    other[4] = motion[4]
    assert torch.equal(torch.cat(list(engine.frames(prepared, other)))[4], whole[4])
    assert torch.equal(torch.cat(list(engine.frames(prepared, motion[3:8])))[:5], whole[3:8])


def test_bytes_are_truncated(engine: RenderEngine, source: torch.Tensor) -> None:
    prepared, motion = engine.prepare(source), codes(4)
    frames = torch.cat(list(engine.frames(prepared, motion)))
    pixels = torch.cat(list(engine.render(prepared, motion)))
    assert pixels.dtype == torch.uint8
    assert pixels.shape == (4, 64, 64, 3)
    assert torch.equal(pixels, (frames * 255).floor().byte().permute(0, 2, 3, 1))


def test_golden_frames_in_a_batch() -> None:
    golden = load("renderer")
    engine = RenderEngine(seeded_renderer(type(SMALL)(), golden.seed), device="cpu", dtype=torch.float32, batch_size=2)
    motion = torch.cat([golden["latent_drv0"], golden["latent_drv1"]])
    frames = next(iter(engine.frames(engine.prepare(seeded_picture("source", golden.seed)[0]), motion)))
    golden.check("frame_drv0", frames[:1])
    golden.check("frame_drv1", frames[1:])


def test_half_precision_is_close(source: torch.Tensor) -> None:
    renderer = seeded_renderer(SMALL, 3)
    exact = RenderEngine(renderer, device="cpu", batch_size=2)
    half = RenderEngine(renderer, device="cpu", dtype=torch.bfloat16, batch_size=2)
    motion = codes(2)
    a, b = (torch.cat(list(e.frames(e.prepare(source), motion))) for e in (exact, half))
    assert b.dtype == torch.float32
    assert not torch.equal(a, b)
    assert (a - b).abs().mean() < 0.02


def test_wrong_shapes_are_refused(engine: RenderEngine, source: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"\[3, R, R\]"):
        engine.prepare(source[None])
    with pytest.raises(ValueError, match=r"\[T, 12\].*\[4, 32\]"):
        next(engine.frames(engine.prepare(source), torch.zeros(4, 32)))
    with pytest.raises(ValueError, match="dtype"):
        RenderEngine(engine.renderer, device="cpu", dtype=torch.float64, batch_size=1)

"""Too little memory on the device: calls become smaller, and everything is made."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from imtalker import RenderEngine
from imtalker.audio.encoder import AudioEncoder
from imtalker.engine.audio import AudioBatches
from imtalker.engine.call_size import CallSize
from imtalker.engine.encoders import FoldedMotionEncoder
from imtalker.engine.flow import WindowFlow
from imtalker.engine.network import RenderNetwork
from imtalker.engine.sampler import MotionSampler
from imtalker.generator.generator import MotionGenerator
from imtalker.seeded import seeded_state_dict
from tests.imtalker.test_audio_batches import speech
from tests.imtalker.test_engine import codes, picture
from tests.imtalker.test_renderer import SMALL, seeded_renderer
from tests.imtalker.test_sampler import CONFIG, item, steered


def crowded(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, room: int) -> list[int]:
    """Let a method run out of memory for more than ``room`` rows; returns what it was asked for, as it goes on."""
    asked: list[int] = []
    call: Callable[..., Any] = getattr(owner, name)

    def limited(self: object, first: Tensor, *rest: object) -> Any:
        asked.append(len(first))
        if len(first) > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return call(self, first, *rest)

    monkeypatch.setattr(owner, name, limited)
    return asked


def test_a_size_is_halved_until_it_fits_and_stays(caplog: pytest.LogCaptureFixture) -> None:
    def call(rows: int) -> int:
        if rows > 3:
            raise torch.OutOfMemoryError("too much")
        return rows

    size = CallSize(16)
    assert not size.shrunk
    with caplog.at_level(logging.WARNING):
        assert [size.run(call), size.run(call)] == [2, 2]
    assert size.shrunk and len(caplog.records) == 3


def test_one_row_too_many_is_an_error_and_others_pass_through() -> None:
    def call(error: Exception) -> Callable[[int], None]:
        def fail(rows: int) -> None:
            raise error

        return fail

    with pytest.raises(torch.OutOfMemoryError):
        CallSize(4).run(call(torch.OutOfMemoryError("no room at all")))
    size = CallSize(4)
    with pytest.raises(RuntimeError, match="other"):
        size.run(call(RuntimeError("other")))
    assert not size.shrunk
    with pytest.raises(ValueError, match="at least 1"):
        CallSize(0)


def test_frames_are_rendered_in_smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    renderer, source, motion = seeded_renderer(SMALL, 3), picture(), codes(11)
    roomy = RenderEngine(renderer, device="cpu", batch_size=8)
    expected = torch.cat(list(roomy.frames(roomy.prepare(source), motion)))
    asked = crowded(monkeypatch, RenderNetwork, "pictures", 3)
    engine = RenderEngine(renderer, device="cpu", batch_size=8)
    chunks = list(engine.frames(engine.prepare(source), motion))
    assert [len(chunk) for chunk in chunks] == [8, 3], "what comes out is as wished"
    assert asked == [8, 4, 2, 2, 2, 2, 2, 2], "the limit is remembered"
    assert engine.shrunk and not roomy.shrunk
    torch.testing.assert_close(torch.cat(chunks), expected, atol=5e-6, rtol=0)


def test_pictures_are_encoded_in_smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    renderer = seeded_renderer(SMALL, 3)
    pictures = torch.stack([picture() * scale for scale in (1.0, 0.8, 0.6, 0.4, 0.2)])
    expected = RenderEngine(renderer, device="cpu", batch_size=4).encode_motion(pictures)
    crowded(monkeypatch, FoldedMotionEncoder, "forward", 2)
    engine = RenderEngine(renderer, device="cpu", batch_size=4)
    torch.testing.assert_close(engine.encode_motion(pictures), expected, atol=1e-5, rtol=0)
    assert engine.shrunk


@pytest.fixture(scope="module")
def generator() -> MotionGenerator:
    model = MotionGenerator(CONFIG)
    model.load_state_dict(seeded_state_dict(model.state_dict(), 7))
    return model.eval()


def test_motion_is_made_in_smaller_batches(generator: MotionGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory runs out in the middle of a step: windows that are done stay done, and no item is lost."""
    items = [item(30, 1), item(10, 2), steered(8, 3), item(20, 4), item(44, 5)]
    expected = MotionSampler(generator, device="cpu", rows=4).sample(items)
    asked = crowded(monkeypatch, WindowFlow, "__call__", 2)
    sampler = MotionSampler(generator, device="cpu", rows=4)
    for found, wanted in zip(sampler.sample(items), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=2e-5, rtol=0)
    assert sampler.shrunk and asked.count(4) == 1


def test_recordings_are_encoded_in_smaller_batches(generator: MotionGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    waveforms = [speech(n, seed) for seed, n in enumerate((30_000, 25_000, 70_001, 41_000, 31_000))]
    expected = AudioBatches(generator, device="cpu", rows=4).encode(waveforms)
    crowded(monkeypatch, AudioEncoder, "transform", 2)
    batches = AudioBatches(generator, device="cpu", rows=4)
    for found, wanted in zip(batches.encode(waveforms), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=2e-5, rtol=0)
    assert batches.shrunk

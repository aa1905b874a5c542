"""Named sizes of the model."""

from __future__ import annotations

import pytest
import torch

from imtalker.config import GeneratorConfig, RendererConfig
from imtalker.presets import PRESETS, build_seeded, find_preset


def test_the_published_preset_has_the_default_sizes() -> None:
    preset = find_preset("imtalker")
    assert (preset.renderer, preset.generator) == (RendererConfig(), GeneratorConfig())
    assert preset.weights == "published"
    with pytest.raises(ValueError, match="published, not seeded"):
        build_seeded(preset)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'imtalker-huge'; known: imtalker, imtalker-tiny"):
        find_preset("imtalker-huge")


def test_seeded_networks_are_small_ready_and_the_same_each_time() -> None:
    preset = PRESETS["imtalker-tiny"]
    renderer, generator = build_seeded(preset)
    again, _ = build_seeded(preset)
    assert not renderer.training
    assert not generator.training
    count = sum(p.numel() for network in (renderer, generator) for p in network.parameters())
    assert count * 4 < 8_000_000  # bytes
    for key, value in renderer.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key


def test_the_seeded_model_moves_with_its_audio() -> None:
    renderer, generator = build_seeded(PRESETS["imtalker-tiny"])
    resolution = renderer.config.resolution
    source = torch.linspace(0, 1, 3 * resolution**2).reshape(1, 3, resolution, resolution)
    waveform = torch.sin(torch.arange(8000) * 0.05)[None]
    with torch.inference_mode():
        motion = generator.sample(waveform, renderer.encode_motion(source))
        frames = renderer.render(renderer.prepare(source), motion[0])
    assert motion.shape == (1, 13, 32)  # ceil(8000 * 25 / 16000)
    assert frames.shape == (13, 3, resolution, resolution)
    assert ((frames >= 0) & (frames <= 1)).all()
    assert (frames[1:] - frames[:-1]).abs().amax(dim=(1, 2, 3)).min() > 1 / 255

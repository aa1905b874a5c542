"""Batched motion: the plain sampler's numbers, whoever shares the batch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from imtalker.config import AudioEncoderConfig, GeneratorConfig
from imtalker.engine import flow
from imtalker.engine.sampler import MotionItem, MotionSampler
from imtalker.generator.generator import MotionGenerator
from imtalker.generator.sampling import joined
from imtalker.seeded import seeded_state_dict

CONFIG = GeneratorConfig(
    wav2vec_sec=0.4,
    num_prev_frames=4,
    dim_h=64,
    fmt_depth=2,
    num_heads=4,
    wav2vec2=AudioEncoderConfig(
        hidden_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        conv_dim=(16,) * 7,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
    ),
)


@pytest.fixture(scope="module")
def generator() -> MotionGenerator:
    model = MotionGenerator(CONFIG)
    model.load_state_dict(seeded_state_dict(model.state_dict(), 7))
    return model.eval()


def item(frames: int, seed: int, **changes: object) -> MotionItem:
    draw = torch.Generator().manual_seed(seed)
    features = torch.randn(frames, CONFIG.wav2vec2.hidden_size, generator=draw)
    reference = torch.randn(CONFIG.dim_motion, generator=draw)
    return replace(MotionItem(features, reference, seed, nfe=5), **changes)


def steered(frames: int, seed: int) -> MotionItem:
    draw = torch.Generator().manual_seed(1000 + seed)
    # Fewer rows than frames, and more: both are the sampler's business.
    return item(
        frames,
        seed,
        pose=torch.randn(frames // 2, 3, generator=draw),
        camera=torch.randn(frames + 9, 3, generator=draw),
        gaze=torch.randn(frames, 2, generator=draw),
    )


def plain(generator: MotionGenerator, item: MotionItem) -> torch.Tensor:
    return generator.sample_from_features(
        item.features[None],
        item.reference[None],
        pose=item.pose,
        camera=item.camera,
        gaze=item.gaze,
        cfg_scale=item.cfg_scale,
        nfe=item.nfe,
        seed=item.seed,
    )[0]


MIXED = [
    item(23, 1),
    item(1, 2, cfg_scale=2.0),
    steered(31, 3),
    item(10, 4, cfg_scale=1.0),
    item(44, 5, nfe=2),
    item(9, 6, gaze=torch.ones(9, 2)),
    item(12, 7, nfe=1),
]


@pytest.mark.parametrize("rows", [1, 3])
def test_items_of_any_kind_get_the_plain_samplers_motion(generator: MotionGenerator, rows: int) -> None:
    found = MotionSampler(generator, device="cpu", rows=rows).sample(MIXED)
    for one, motion in zip(MIXED, found, strict=True):
        torch.testing.assert_close(motion, plain(generator, one), atol=2e-5, rtol=0)


def test_joined_windows_are_the_plain_samplers(generator: MotionGenerator) -> None:
    joining = MotionGenerator(replace(CONFIG, join_frames=3))
    joining.load_state_dict(generator.state_dict())
    items = [item(23, 1), item(10, 4)]
    found = MotionSampler(joining.eval(), device="cpu", rows=2).sample(items)
    for motion, one in zip(found, items, strict=True):
        torch.testing.assert_close(motion, plain(joining, one), atol=1e-4, rtol=1e-4)
        published = plain(generator, one)
        assert torch.equal(plain(joining, one)[: CONFIG.window], published[: CONFIG.window])
    assert (found[0] - plain(generator, items[0])).abs().max() > 0.1
    assert torch.equal(found[1], MotionSampler(generator, device="cpu", rows=2).sample(items[1:])[0])


def test_a_joined_window_goes_on_from_the_one_before() -> None:
    ramp = torch.arange(8.0)[:, None].expand(8, 3)
    previous, window = ramp[:4], ramp[4:] + torch.tensor([0.0, 5.0, -2.0])
    torch.testing.assert_close(joined(window, previous, 4)[0], ramp[4])
    assert torch.equal(joined(window, previous, 0), window)
    bent = joined(window, previous, 3)
    assert torch.equal(bent[3:], window[3:])
    assert torch.equal(bent[:, 0], window[:, 0]), "what goes on already stays"
    left = (bent - ramp[4:])[:, 1]
    assert (left.diff() > 0).all() and left[0] == 0 and left[-1] == 5
    rows = joined(torch.stack([window, window + 1]), torch.stack([previous, previous]), 3)
    torch.testing.assert_close(rows[0], bent)
    torch.testing.assert_close(rows[1, 0], bent[0])


@pytest.mark.parametrize("changes", [{"join_frames": 1}, {"join_frames": 11}, {"join_frames": 3, "num_prev_frames": 1}])
def test_a_join_has_room(changes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="join_frames"):
        replace(CONFIG, **changes)


def test_motion_of_the_published_sizes() -> None:
    model = MotionGenerator(replace(GeneratorConfig(), wav2vec2=CONFIG.wav2vec2))
    model.load_state_dict(seeded_state_dict(model.state_dict(), 3))
    items = [item(60, 1, nfe=10), item(20, 2, nfe=10)]
    for one, motion in zip(items, MotionSampler(model, device="cpu", rows=2).sample(items), strict=True):
        torch.testing.assert_close(motion, plain(model, one), atol=4e-5, rtol=0)


def test_neighbours_order_and_row_change_no_bit(generator: MotionGenerator) -> None:
    sampler = MotionSampler(generator, device="cpu", rows=4)
    for kind in (item, steered):
        mine = kind(27, 1)
        alone = sampler.sample([mine])[0]
        for before in range(6):
            crowd = [kind(5 + 8 * n, 10 + n) for n in range(before)]
            rest = [kind(60, 50), kind(3, 51)]
            assert torch.equal(sampler.sample([*crowd, mine, *rest])[before], alone)


def test_every_call_has_the_same_number_of_rows(generator: MotionGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = MotionSampler(generator, device="cpu", rows=3)
    seen = []
    call = flow.WindowFlow.__call__

    def counted(self: flow.WindowFlow, noise: torch.Tensor, *args: object) -> torch.Tensor:
        seen.append(len(noise))
        return call(self, noise, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(flow.WindowFlow, "__call__", counted)
    # 3 + 1 + 1 + 2 windows: the row of the first short item goes to the next at once.
    sampler.sample([item(30, 1), item(10, 2), item(8, 3), item(20, 4)])
    assert seen == [3, 3, 3]


def test_few_steps_at_a_time_give_the_same(generator: MotionGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    one = steered(23, 1)
    whole = MotionSampler(generator, device="cpu", rows=1).sample([one])[0]
    monkeypatch.setattr(flow, "_MODULATION_BYTES", 1)
    stepwise = MotionSampler(generator, device="cpu", rows=1).sample([one])[0]
    torch.testing.assert_close(stepwise, whole, atol=1e-5, rtol=0)


def test_no_items_no_motion(generator: MotionGenerator) -> None:
    assert MotionSampler(generator, device="cpu", rows=2).sample([]) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reference": torch.zeros(31)}, r"reference must have the shape \[32\]"),
        ({"features": torch.zeros(0, 48)}, "at least one row and one frame"),
        ({"features": torch.zeros(5, 47)}, "features must have the shape"),
        ({"nfe": 0}, "at least 1"),
        ({"cfg_scale": float("nan")}, "finite"),
        ({"pose": torch.zeros(4, 2)}, "pose must be"),
    ],
)
def test_what_does_not_fit_is_refused(generator: MotionGenerator, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MotionSampler(generator, device="cpu", rows=2).sample([item(5, 1), item(5, 2, **changes)])


def test_a_sampler_without_rows_is_refused(generator: MotionGenerator) -> None:
    with pytest.raises(ValueError, match="rows"):
        MotionSampler(generator, device="cpu", rows=0)

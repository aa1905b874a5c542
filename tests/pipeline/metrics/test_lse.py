"""The protocol of LSE-C and LSE-D, by networks whose answers are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.errors import CannotRun
from pipeline.metrics.lse import MOST_FRAMES, Expert, LseMeter, agreement, cut
from pipeline.metrics.mfcc import mfcc
from pipeline.metrics.regions import FRAMED_FACE
from pipeline.metrics.syncnet import SyncNet, load_syncnet

# python_speech_features 0.6, mfcc(samples, 16000) of `tone`: rows 0, 1, 12 at columns 0, 50, 98.
TONE = {
    (0, 0): 13.9648637,
    (0, 50): 21.1149713,
    (0, 98): 22.2033224,
    (1, 0): -9.30023,
    (1, 50): -8.0147646,
    (1, 98): -5.4970087,
    (12, 0): -41.3123134,
    (12, 50): -50.1791884,
    (12, 98): -45.0748406,
}


def tone() -> np.ndarray:
    """A second of three tones that swell."""
    t = np.arange(16_000) / 16_000
    return (t * sum(np.sin(2 * np.pi * hertz * t) for hertz in (220, 1330, 3570)) / 6).astype(np.float32)


def test_cepstra_are_those_of_the_published_package() -> None:
    found = mfcc(tone())
    assert found.shape == (13, 99)
    for (row, column), value in TONE.items():
        assert found[row, column] == pytest.approx(value, abs=1e-6)
    assert mfcc(tone()[:300]).shape == (13, 1)


def by_the_letter(pictures: Tensor, sounds: Tensor) -> tuple[float, float, int]:
    """Window after window, as the protocol's authors write it down."""
    zeros = torch.zeros(15, sounds.shape[1])
    padded = torch.cat([zeros, sounds, zeros])
    rows = [[(one - other + 1e-6).norm() for other in padded[i : i + 31]] for i, one in enumerate(pictures)]
    means = torch.tensor(rows).mean(0)
    least, at = means.min(0)
    return float(least), float(means.median() - least), 15 - int(at)


@pytest.mark.parametrize("late", [-6, 0, 4])
def test_shifted_embeddings_agree_best_at_their_shift(late: int) -> None:
    draw = torch.Generator().manual_seed(0)
    sounds = torch.randn(120, 16, generator=draw)
    pictures = sounds.roll(late, 0) + 0.1 * torch.randn(120, 16, generator=draw)
    found = agreement(pictures, sounds)
    least, confidence, offset = by_the_letter(pictures, sounds)
    assert found.distance == pytest.approx(least, rel=1e-5)
    assert found.confidence == pytest.approx(confidence, rel=1e-4)
    assert found.offset == offset == late
    assert agreement(torch.randn(120, 16, generator=draw), sounds).confidence < 0.1 * found.confidence


def brightness(windows: Tensor) -> Tensor:
    """The mean of the middle picture, [n, 1]."""
    return windows[:, :, 2].mean((1, 2, 3))[:, None] / 25


def loudness(sounds: Tensor) -> Tensor:
    """What the log energy of a window's middle says of the level, [n, 1]."""
    return (sounds[:, 0, 0, 8:12].mean(1, keepdim=True) / 2).exp() / 1e4


def made_up() -> Expert:
    return Expert(brightness, loudness, torch.device("cpu"), "5" * 64)


def swelling(frames: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pictures whose grey goes with the level of a sound."""
    level = np.random.default_rng(seed).uniform(0.1, 1, frames + 10)
    sound = np.repeat(level, 640) * np.sin(2 * np.pi * 440 * np.arange((frames + 10) * 640) / 16_000) / 2
    pictures = np.broadcast_to((level[:frames] * 250).astype(np.uint8)[:, None, None, None], (frames, 64, 64, 3))
    return pictures, sound[: frames * 640].astype(np.float32)


def test_a_clip_agrees_with_its_own_sound_in_any_batches() -> None:
    pictures, sound = swelling(90)
    whole, parts = LseMeter(made_up(), FRAMED_FACE), LseMeter(made_up(), FRAMED_FACE)
    whole.add(pictures)
    for begin, end in ((0, 3), (3, 4), (4, 40), (40, 90)):
        parts.add(pictures[begin:end])
    right = whole.values(sound)
    assert right == pytest.approx(parts.values(sound))
    assert right["lse_offset_frames"] == 0
    wrong = whole.values(swelling(90, seed=1)[1])
    assert right["lse_d"] < wrong["lse_d"]
    assert right["lse_c"] > wrong["lse_c"]
    late = whole.values(np.concatenate([np.zeros(3 * 640, np.float32), sound]))
    assert abs(late["lse_offset_frames"]) == 3


def test_a_clip_without_sound_or_of_five_frames_has_the_hash_alone() -> None:
    pictures, sound = swelling(5)
    meter = LseMeter(made_up(), FRAMED_FACE)
    meter.add(pictures)
    assert meter.values(sound) == meter.values(None) == {"syncnet_sha256": "5" * 64}


def test_of_a_long_item_the_first_minutes_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.metrics.lse.MOST_FRAMES", 40)
    pictures, sound = swelling(90)
    whole, short = LseMeter(made_up(), FRAMED_FACE), LseMeter(made_up(), FRAMED_FACE)
    whole.add(pictures)
    short.add(pictures[:40])
    assert whole.values(sound) == short.values(sound)
    assert MOST_FRAMES == 7500


def test_the_face_is_cut_as_the_protocol_cuts_it() -> None:
    """Of a face of 0.625 of the height: from its top, 0.1875, down to 1.0625, and so a sixteenth below the picture."""
    picture = np.zeros((1, 128, 128, 3), np.uint8)
    picture[:, 24:, :, 0] = 200
    found = cut(picture, FRAMED_FACE)
    assert found.shape == (1, 3, 224, 224)
    assert found[0, 2, 0].min() == 200 and found[0, :2, :200].max() == 0
    assert (found[0, :, -14:] == 110).all()


def test_the_network_reads_weights_of_its_shapes_and_no_others(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = SyncNet().eval()
    weights = {name: value for name, value in network.state_dict().items() if "num_batches" not in name}
    torch.save(weights, tmp_path / "syncnet_v2.model")
    read = load_syncnet(tmp_path / "syncnet_v2.model")
    with torch.inference_mode():
        pictures, sounds = torch.rand(2, 3, 5, 224, 224) * 255, torch.randn(2, 1, 13, 20)
        assert torch.equal(read.see(pictures), network.see(pictures))
        assert torch.equal(read.hear(sounds), network.hear(sounds))
        assert read.see(pictures).shape == read.hear(sounds).shape == (2, 1024)
    weights["netfclip.3.weight"] = torch.zeros(512, 512)
    torch.save(weights, tmp_path / "other.model")
    with pytest.raises(CannotRun, match=r"doesn't hold SyncNet as published.*netfclip\.3\.weight"):
        load_syncnet(tmp_path / "other.model")

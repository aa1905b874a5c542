"""What batches are made of: the same rows whoever shares them, and pictures of what came out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from imtalker.checkpoints import CheckpointError
from imtalker.config import RendererConfig
from imtalker.generator.generator import MotionGenerator
from imtalker.seeded import seeded_state_dict
from imtalker.training.chance import chance
from imtalker.training.contact_sheet import contact_sheet
from imtalker.training.generator import GeneratorTrainer
from imtalker.training.generator_run import fresh
from imtalker.training.motion_clips import ClipError, MotionClip, write_clip
from imtalker.training.motion_data import MotionData
from imtalker.training.picture_clips import TRAINED_ON
from imtalker.training.picture_data import ClipPictures
from imtalker.training.renderer_run import RendererRun
from imtalker.training.schedule import scheduled
from imtalker.training.share import Share
from tests.imtalker.published import split, write_hub_folder
from tests.imtalker.test_sampler import CONFIG
from tests.imtalker.training.test_losses import batch
from tests.imtalker.training.test_picture_clips import make_clip, read


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clips")
    widths = {"motion": 32, "audio": CONFIG.wav2vec2.hidden_size, "pose": 3, "camera": 3, "gaze": 2}
    for number in range(103):
        draw = torch.Generator().manual_seed(number)
        sequences = {name: torch.randn(20, width, generator=draw) for name, width in widths.items()}
        write_clip(root, f"{number:03}", MotionClip(**sequences))
    return root


def test_chance_follows_from_all_of_its_purpose() -> None:
    purposes = ((1, 2), (1, 2), (12,), (2, 1), (1, 2 + (1 << 32)))
    drawn = [float(torch.rand((), generator=chance(*purpose))) for purpose in purposes]
    assert drawn[0] == drawn[1] and len(set(drawn)) == 4


def test_parts_of_motion_make_up_the_batch(clips: Path) -> None:
    data = MotionData(clips, CONFIG, seed=3, rows=8)
    (whole,) = data.parts(5, [0], 1)
    parts = data.parts(5, [0, 1, 2, 3], 4)
    for name in ("motion", "audio", "reference"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))
    assert len(whole.motion[:, 0, 0].unique()) > 4
    assert not torch.equal(data.parts(6, [0], 1)[0].motion, whole.motion)
    assert torch.equal(data.held_out(4).audio, data.held_out(4).audio)


def test_parts_of_pictures_make_up_the_batch(tmp_path: Path) -> None:
    for name in "abc":
        make_clip(tmp_path, name, 26)
    data = ClipPictures(tmp_path, read, seed=3, rows=4)
    (whole,) = data.parts(5, [0], 1)
    parts = data.parts(5, [0, 1], 2)
    for name in ("reference", "target", "negative", "face"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))
    assert TRAINED_ON > 3 and data.held_out(4) is None


def test_widths_that_dont_fit_are_named(clips: Path) -> None:
    with pytest.raises(ClipError, match="motion is 32 wide, but the generator's sizes say 16"):
        MotionData(clips, replace(CONFIG, dim_motion=16), seed=0, rows=4)


def test_a_share_takes_every_turn_of_its_own() -> None:
    shares = [Share(rank, 3) for rank in range(3)]
    assert [share.parts(2) for share in shares] == [[0, 3], [1, 4], [2, 5]]
    rows = torch.arange(12).view(6, 2)
    assert torch.equal(torch.cat([share.rows(rows) for share in shares]), rows)
    assert [share.first for share in shares] == [True, False, False]


def test_alone_nothing_is_averaged() -> None:
    tensor = torch.tensor([1.0, 2.0])
    Share().average([tensor])
    assert tensor.tolist() == [1.0, 2.0]
    assert Share().means({"a": 2.0}, "cpu") == {"a": 2.0}
    assert Share().any(True, "cpu") and not Share().any(False, "cpu")


def test_the_rate_warms_up_and_falls_along_a_cosine() -> None:
    rates = [scheduled(step, 104, rate=1.0, floor=0.2, warmup=4) for step in (0, 3, 4, 54, 104, 200)]
    assert rates == pytest.approx([0.25, 1.0, 1.0, 0.6, 0.2, 0.2])


def test_the_renderers_rate_falls_again_at_the_end() -> None:
    run = RendererRun(RendererConfig(), 174, learning_rate=1.0, floor=0.2, warmup=4, again=(50, 20), again_rate=0.6)
    assert run.restarts == [104, 154]
    assert [run.rate(step) for step in (0, 54, 104, 129, 154, 164)] == pytest.approx([0.25, 0.6, 0.6, 0.4, 0.6, 0.4])
    assert 0.2 < run.rate(153) < 0.201 and 0.2 < run.rate(173) < 0.203


def test_the_generators_rate_is_that_of_its_step() -> None:
    generator = MotionGenerator(CONFIG)
    trainer = GeneratorTrainer(generator, total_steps=4, learning_rate=1e-2)
    rates = [trainer.step([batch(2)])["learning_rate"] for _ in range(4)]
    assert rates == pytest.approx([scheduled(step, 4, 1e-2, 1e-5) for step in range(4)])


def test_a_sheet_has_columns_beside_each_other() -> None:
    red, grey = torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 0.5)
    red[:, 0] = 2.0
    sheet = contact_sheet([red, grey])
    assert sheet.shape == (3, 2 * 6 + 2, 2 * 6 + 2)
    assert sheet[:, 3, 3].tolist() == [1, 0, 0] and sheet[:, 9, 9].tolist() == [0.5, 0.5, 0.5]
    assert (sheet[:, :2] == 1).all() and (sheet[:, :, 6:8] == 1).all()


def test_new_weights_come_with_the_encoder_that_made_the_features(tmp_path: Path) -> None:
    known = MotionGenerator(CONFIG)
    known.load_state_dict(seeded_state_dict(known.state_dict(), 5))
    encoder = split(known.state_dict())[1]
    folder = write_hub_folder(tmp_path / "encoder", encoder, CONFIG, file="model.safetensors")
    torch.manual_seed(0)
    made = fresh(CONFIG, folder)
    for key, value in known.audio_encoder.state_dict().items():
        if not key.endswith("masked_spec_embed"):
            assert torch.equal(made.audio_encoder.state_dict()[key], value), key
    torch.manual_seed(0)
    assert all(map(torch.equal, made.fmt.parameters(), MotionGenerator(CONFIG).fmt.parameters()))
    stand_in = fresh(CONFIG, 5).audio_encoder.state_dict()
    assert all(torch.equal(stand_in[key], value) for key, value in known.audio_encoder.state_dict().items())
    with pytest.raises(CheckpointError, match="no audio encoder in"):
        fresh(CONFIG, tmp_path)

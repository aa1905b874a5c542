"""Trainings from their settings to weights that load: data layouts, logs, resuming, a process that is killed."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from imtalker import Renderer, load_generator, load_renderer
from imtalker.training.norms import add_norms
from imtalker.training.perceptual import VGG19
from pipeline.config import InputLimits
from pipeline.errors import CannotRun, InputError
from pipeline.training.record import RECORD
from pipeline.training.settings import GeneratorSettings, RendererSettings
from pipeline.training.start import start
from pipeline.training.work import picture_reader
from tests.imtalker.training.test_trainers import same
from tests.pipeline.training.clips import (
    RENDERER,
    generator_document,
    motion_clips,
    picture_clips,
    renderer_document,
    train_two_steps,
)

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return motion_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums of another number of threads are others in their last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def train(model: type[RendererSettings] | type[GeneratorSettings], document: dict[str, Any]) -> list[str]:
    console = Console(file=io.StringIO(), width=500)
    start(model.model_validate(document), console)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def checkpoint(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "checkpoint.pt", weights_only=True)


def log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_renderer_learns_from_avatars_in_two_stretches(tmp_path: Path) -> None:
    pace = {"report_every": 2, "validate_every": 2, "progress_seconds": 1e-6}
    whole, parts = (renderer_document(tmp_path / name, steps=4, **pace) for name in ("whole", "parts"))
    said = train(RendererSettings, whole)
    train_two_steps(RendererSettings.model_validate(parts))
    again = train(RendererSettings, parts)
    assert said[0].startswith("perceptual loss: gradients and local contrast, as no VGG-19")
    assert said[1] == f"drawing 8 avatars in 3 states each; they are kept in {tmp_path / 'whole' / 'pools'}"
    assert again[1] == f"going on from the checkpoint in {tmp_path / 'parts'}"
    assert same(checkpoint(tmp_path / "parts"), checkpoint(tmp_path / "whole"))
    written = load_renderer(tmp_path / "parts" / "renderer.safetensors")
    seen = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    averaged = Renderer(written.config)
    add_norms(averaged)
    kept = {key.removeprefix("module."): x for key, x in checkpoint(tmp_path / "parts")["average"].items()}
    averaged.load_state_dict({key: x for key, x in kept.items() if key != "n_averaged"})
    torch.testing.assert_close(written(seen, seen.flip(0)), averaged.eval()(seen, seen.flip(0)), atol=1e-4, rtol=1e-3)
    picture = np.asarray(Image.open(tmp_path / "parts" / "pictures" / "00000004.png"))
    assert picture.shape == (6 * 66 + 2, 4 * 66 + 2, 3) and picture.std() > 10
    lines = [line for line in log(tmp_path / "parts") if "total" in line]
    assert [line["step"] for line in lines] == [2, 4]
    assert {"pixels", "perceptual", "face", "routing", "codes", "learning_rate"} <= lines[0].keys()
    assert any(line.startswith("renderer: 2/4, loss ") and line.endswith(" s left") for line in said)


def test_a_training_that_is_over_is_lengthened_as_if_that_had_been_planned(tmp_path: Path, one_thread: None) -> None:
    planned = renderer_document(tmp_path / "planned", steps=5, again=[2, 1], report_every=1)
    later = renderer_document(tmp_path / "later", steps=2, report_every=1)
    train(RendererSettings, planned)
    train(RendererSettings, later)
    train(RendererSettings, later | {"steps": 5, "again": [2, 1]})
    assert same(checkpoint(tmp_path / "later"), checkpoint(tmp_path / "planned"))
    rates = [line["learning_rate"] for line in log(tmp_path / "later") if "total" in line]
    assert rates == pytest.approx([1e-3, 1e-3, 2.5e-4, 1.35e-4, 2.5e-4])


def test_events_hold_terms_rates_and_pictures_once(tmp_path: Path) -> None:
    """Steps that come again after a crash are not there twice."""
    document = renderer_document(tmp_path, steps=3, report_every=1, validate_every=3)
    train(RendererSettings, document | {"steps": 1, "checkpoint_every": 1})
    kept = (tmp_path / "checkpoint.pt").read_bytes()
    train(RendererSettings, document)
    (tmp_path / "checkpoint.pt").write_bytes(kept)
    train(RendererSettings, document)
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    scalars = events.Tags()["scalars"]
    assert {"training/total", "training/learning_rate", "training/steps_a_second", "validation/psnr_db"} <= set(scalars)
    assert [event.step for event in events.Scalars("training/total")] == [1, 2, 3]
    assert [line["step"] for line in log(tmp_path) if "total" in line] == [1, 2, 3]
    (image,) = [event for event in events.Images("pictures") if event.step == 3]
    shown = np.asarray(Image.open(io.BytesIO(image.encoded_image_string)))
    assert np.abs(shown.astype(int) - np.asarray(Image.open(tmp_path / "pictures" / "00000003.png"))).max() <= 1


def test_without_tensorboard_the_log_alone_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    said = train(RendererSettings, renderer_document(tmp_path, steps=1))
    assert "TensorBoard is not installed (pip install 'imtalker[train]'): log.jsonl alone is written" in said
    assert len(log(tmp_path)) == 2 and not (tmp_path / "tensorboard").exists()


def test_a_renderer_learns_from_frames_with_vgg_and_an_adversary(tmp_path: Path) -> None:
    clips = picture_clips(tmp_path / "clips")
    torch.save(VGG19().state_dict(), tmp_path / "vgg.pth")
    weights = {"pixels": 1, "perceptual": 10, "face": 100, "identity": 1, "adversarial": 1}
    sizes = RENDERER | {
        "resolution": 128,
        "channels": [16, 16, 8, 8],
        "motion_encoder_channels": [8, 8, 16, 16, 16],
    }
    document = renderer_document(tmp_path / "out", steps=1, data=str(clips), vgg=tmp_path / "vgg.pth", weights=weights)
    document |= {"sizes": sizes, "norms": False, "precision": "bfloat16", "accumulate": 2, "discriminator_width": 8}
    said = train(RendererSettings, document)
    assert not any("VGG" in line for line in said)
    (line,) = log(tmp_path / "out")
    assert {"discriminator", "adversarial", "identity", "face"} <= line.keys()
    start_again = renderer_document(tmp_path / "next", steps=1, start=tmp_path / "out" / "renderer.safetensors")
    train(RendererSettings, start_again | {"sizes": sizes, "learning_rate": 1e-9, "floor": 1e-9})
    one, two = (load_renderer(tmp_path / name / "renderer.safetensors") for name in ("out", "next"))
    for (name, before), after in zip(one.named_parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(after, before, atol=1e-7, rtol=0, msg=name)


def test_pictures_are_read_at_the_models_size(tmp_path: Path) -> None:
    Image.new("RGB", (40, 48), (255, 51, 0)).save(tmp_path / "a.png")
    picture = picture_reader(64, InputLimits())(tmp_path / "a.png")
    assert picture.shape == (3, 64, 64)
    torch.testing.assert_close(picture[:, 7, 9], torch.tensor([1.0, 0.2, 0.0]))
    with pytest.raises(InputError, match="at most 100 pixels"):
        picture_reader(64, InputLimits(max_image_pixels=100))(tmp_path / "a.png")


def test_a_broken_frame_is_named(tmp_path: Path) -> None:
    clips = picture_clips(tmp_path / "clips")
    for frame in (clips / "video_frame").rglob("*.png"):
        frame.write_bytes(b"no picture")
    with pytest.raises(CannotRun, match=r"expected an intact JPEG, PNG or WebP picture, found: clip\d_\d+\.png"):
        train(RendererSettings, renderer_document(tmp_path / "out", steps=1, data=str(clips)))


def test_other_settings_are_not_mixed_into_a_training(data: Path, tmp_path: Path) -> None:
    document = generator_document(data, tmp_path / "out", steps=1)
    train(GeneratorSettings, document)
    with pytest.raises(
        CannotRun, match=r"holds a training with other settings:\n  learning_rate: 0.01 there, 0.5 here"
    ):
        train(GeneratorSettings, document | {"learning_rate": 0.5})
    train(GeneratorSettings, document | {"steps": 2, "accumulate": 2, "report_every": 7})
    assert checkpoint(tmp_path / "out")["steps"] == 2


@pytest.mark.parametrize("text", ["[]", "7", "{"])
def test_a_record_that_was_damaged_is_named(data: Path, tmp_path: Path, text: str) -> None:
    document = generator_document(data, tmp_path / "out", steps=1)
    train(GeneratorSettings, document)
    (tmp_path / "out" / RECORD).write_text(text)
    with pytest.raises(CannotRun, match="out can't be used: "):
        train(GeneratorSettings, document | {"steps": 2})


def test_a_setting_that_an_older_version_did_not_know_counts_as_its_default(data: Path, tmp_path: Path) -> None:
    document = generator_document(data, tmp_path / "out", steps=1)
    train(GeneratorSettings, document)
    record = tmp_path / "out" / RECORD
    facts = json.loads(record.read_text())
    del facts["distance"], facts["dropout"]["speech_only"]
    record.write_text(json.dumps(facts))
    with pytest.raises(CannotRun, match=r"with other settings:\n  distance: 'absolute' there, 'squared' here\n"):
        train(GeneratorSettings, document | {"steps": 2, "distance": "squared"})
    train(GeneratorSettings, document | {"steps": 2})
    assert checkpoint(tmp_path / "out")["steps"] == 2


def test_a_start_that_came_to_nothing_may_be_corrected(data: Path, tmp_path: Path) -> None:
    document = generator_document(tmp_path / "nowhere", tmp_path / "out", steps=1)
    with pytest.raises(CannotRun, match="0 clips, 0 of them with 14 frames or more"):
        train(GeneratorSettings, document)
    with pytest.raises(CannotRun, match="audio is 64 wide, but the generator's sizes say 48"):
        sizes = document["sizes"] | {"wav2vec2": {"hidden_size": 48}}
        train(GeneratorSettings, document | {"data": data, "sizes": sizes})
    train(GeneratorSettings, document | {"data": data})
    assert load_generator(tmp_path / "out" / "generator.safetensors").config.dim_h == 32


def test_a_process_that_is_killed_goes_on_to_the_same_weights(data: Path, tmp_path: Path, one_thread: None) -> None:
    steps = 50
    pace = {"steps": steps, "report_every": 5, "progress_seconds": 1e-6, "validate_every": 1000}
    train(GeneratorSettings, generator_document(data, tmp_path / "whole", **pace))
    killed = generator_document(str(data), str(tmp_path / "killed"), **pace)
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(killed))
    command = [sys.executable, str(ROOT / "cli.py"), "train", "generator", "--config", str(tmp_path / "train.yaml")]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("generator: 5/"):
            process.send_signal(signal.SIGTERM)
            break
    rest = process.stderr.read()
    assert process.wait(timeout=60) == 130, rest
    assert "interrupted; what is done is kept, run the same command again to go on" in rest
    assert 5 <= checkpoint(tmp_path / "killed")["steps"] < steps
    train(GeneratorSettings, killed)
    assert same(checkpoint(tmp_path / "killed"), checkpoint(tmp_path / "whole"))
    one, two = (load_generator(tmp_path / name / "generator.safetensors") for name in ("killed", "whole"))
    assert same(one.state_dict(), two.state_dict())

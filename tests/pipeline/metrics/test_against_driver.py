"""Self-reenactment: frames against the driver's, as they are rendered, from the stored video, and of items in parts."""

from __future__ import annotations

from collections.abc import Iterator
from math import log10
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config import RunSettings
from pipeline.errors import InputError
from pipeline.inputs.fetch import file_sha256
from pipeline.ledger import Ledger, Record
from pipeline.metrics.again import _is_missing
from pipeline.metrics.against_driver import DriverMeter
from pipeline.metrics.catalogue import VERSION
from pipeline.metrics.lpips import PerceptionExpert
from pipeline.parts import gathered, split
from pipeline.stages import measure, render
from pipeline.stages.join import JoinStage
from pipeline.stages.measure import MeasureStage, MeasureTask
from pipeline.storage import Store
from pipeline.tasks import AssetTask, Input, ItemTask
from tests.media_files import grey_frame, smooth_picture, write_video
from tests.pipeline.metrics.walker import FRAMES, INFO, PORTRAIT, SETTINGS, Walker, stage, task, walk

CPU = torch.device("cpu")


def meter(truth: np.ndarray, every: int = 1, judge: PerceptionExpert | None = None) -> DriverMeter:
    return DriverMeter([truth[::every]], every, CPU, judge)


def test_scores_of_flat_pictures_are_those_of_the_formulas() -> None:
    ours, theirs = (np.stack([grey_frame(level, 32, 32)] * 3) for level in (105, 100))
    found = meter(theirs)
    found.add(ours)
    values = found.values(None)
    a, b, c1 = 105 / 255, 100 / 255, 0.01**2
    assert values["driver_frames_compared"] == 3
    assert values["driver_psnr_db"] == pytest.approx(20 * log10(255 / 5), abs=1e-3)
    assert values["driver_ssim"] == pytest.approx((2 * a * b + c1) / (a * a + b * b + c1), abs=1e-4)


def test_equal_frames_count_as_a_hundred_decibels() -> None:
    frames = np.stack([smooth_picture(seed, 32, 32) for seed in range(4)])
    found = meter(frames)
    found.add(frames)
    assert found.values(None) == pytest.approx(
        {"driver_frames_compared": 4, "driver_psnr_db": 100, "driver_ssim": 1}, abs=1e-5
    )


@pytest.mark.parametrize("every", [1, 10])
def test_every_frame_meets_its_own_in_any_batches(every: int) -> None:
    theirs = np.stack([smooth_picture(seed, 32, 32) for seed in range(37)])
    ours = theirs // 2 + 40
    whole, parts = meter(theirs, every), meter(theirs, every)
    whole.add(ours)
    for begin, end in ((0, 1), (1, 9), (9, 10), (10, 30), (30, 37)):
        parts.add(ours[begin:end])
    assert whole.values(None)["driver_frames_compared"] == len(range(0, 37, every))
    assert whole.values(None) == pytest.approx(parts.values(None))


def test_the_driver_is_read_in_step_and_may_be_shorter_or_longer() -> None:
    given: list[int] = []

    def windows() -> Iterator[np.ndarray]:
        for index in range(4):
            given.append(index)
            yield np.stack([grey_frame(100, 32, 32)] * 5)

    found = DriverMeter(windows(), 1, CPU)
    ours = np.stack([grey_frame(100, 32, 32)] * 3)
    found.add(ours)
    assert given == [0]
    found.add(ours)
    assert given == [0, 1]
    for _ in range(10):
        found.add(ours)
    assert found.values(None)["driver_frames_compared"] == 20


def test_a_driver_that_breaks_on_the_way_gives_no_scores() -> None:
    def windows() -> Iterator[np.ndarray]:
        yield np.stack([grey_frame(100, 32, 32)] * 2)
        raise InputError("cut off", hint="")

    found = DriverMeter(windows(), 1, CPU)
    for _ in range(3):
        found.add(np.stack([grey_frame(100, 32, 32)] * 2))
    assert found.values(None) == {"driver_frames_compared": 0}


def test_a_judge_adds_its_distance_and_its_hashes() -> None:
    hashes = {"lpips_backbone_sha256": "1" * 64, "lpips_sha256": "2" * 64}
    judge = PerceptionExpert(lambda a, b: (a - b).mean((1, 2, 3)), CPU, hashes)
    found = meter(np.stack([grey_frame(0, 32, 32)] * 2), judge=judge)
    found.add(np.stack([grey_frame(51, 32, 32)] * 2))
    values = found.values(None)
    assert values["driver_lpips"] == pytest.approx(0.2)
    assert values.items() >= hashes.items()


@pytest.fixture(autouse=True)
def _walkers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "load", lambda model, settings, info: Walker())
    monkeypatch.setattr(measure, "load", lambda model, settings, info: Walker())


def reenacted(folder: Path, late: int = 0, **changes: Any) -> ItemTask:
    """An item whose driver shows what the model renders, some frames ``late``."""
    frames = [np.roll(PORTRAIT, int(step), axis=1) for step in np.roll(walk()[:, 0], late)]
    path = write_video(folder / "driver.mp4", frames)
    driver = AssetTask(key="driver", kind="driver", uri=str(path), frames=FRAMES, facts={"has_audio": False})
    read = Input(uri=str(path), size=path.stat().st_size, sha256=file_sha256(path))
    known = {"mode": "driver", "audio": None, "driver": driver, "inputs": {"driver": read}, "same_identity": True}
    return task(folder).model_copy(update=known | changes)


def settings(**changes: Any) -> RunSettings:
    return RunSettings.model_validate(SETTINGS.model_dump() | changes)


def record(folder: Path) -> Record:
    return Ledger(Store(str(folder), {})).read(["a"])["a"]


@pytest.mark.parametrize(("level", "compared"), [("basic", FRAMES // 10), ("full", FRAMES)])
def test_a_rendered_item_is_compared_with_its_driver(tmp_path: Path, level: str, compared: int) -> None:
    stage(tmp_path, settings(metrics=level)).run(reenacted(tmp_path))
    found = record(tmp_path)
    assert (found.status, found.same_identity, found.metrics["driver_frames_compared"]) == ("ok", True, compared)
    assert found.metrics["driver_psnr_db"] > 28
    assert found.metrics["driver_ssim"] > 0.9
    stage(tmp_path, settings(metrics=level)).run(reenacted(tmp_path, late=1))
    assert record(tmp_path).metrics["driver_psnr_db"] < found.metrics["driver_psnr_db"] - 4


@pytest.mark.parametrize("changes", [{"same_identity": False}, {"mode": "audio"}], ids=["another", "sound"])
def test_no_other_item_is_compared(tmp_path: Path, changes: dict[str, Any]) -> None:
    stage(tmp_path).run(reenacted(tmp_path, **changes))
    found = record(tmp_path)
    assert found.metrics["black_frames"] == 0
    assert not any(name.startswith("driver_") for name in found.metrics)


@pytest.mark.parametrize("gone", [True, False], ids=["gone", "another"])
def test_a_driver_that_is_no_longer_what_it_was_costs_its_scores_alone(tmp_path: Path, gone: bool) -> None:
    item = reenacted(tmp_path)
    driver = tmp_path / "driver.mp4"
    if gone:
        driver.unlink()
    else:
        write_video(driver, [grey_frame(9, 64, 64)] * FRAMES)
    stage(tmp_path).run(item)
    found = record(tmp_path)
    assert (found.status, found.flags, found.metrics["driver_frames_compared"]) == ("ok", [], 0)
    assert "driver_psnr_db" not in found.metrics
    assert found.metrics["codes_checked"] == FRAMES // 40


def test_a_finished_item_is_compared_from_its_video(tmp_path: Path) -> None:
    stage(tmp_path, settings(metrics="off")).run(reenacted(tmp_path))
    again = MeasureStage(settings(), INFO, str(tmp_path), 1)
    assert again.run(MeasureTask(key="a")).error is None
    found = record(tmp_path).metrics
    assert (found["metrics_from"], found["driver_frames_compared"]) == ("video", FRAMES // 10)
    assert found["driver_psnr_db"] > 24
    (tmp_path / "driver.mp4").unlink()
    assert again.run(MeasureTask(key="a")).error is None
    found = record(tmp_path).metrics
    assert (found["driver_frames_compared"], found.get("driver_psnr_db")) == (0, None)


def test_only_what_can_be_compared_is_missing_when_it_is_not() -> None:
    weights = {"lpips_sha256": "2" * 64, "arcface_sha256": "3" * 64}
    known = {"metrics_level": "basic", "metrics_version": VERSION, "arcface_sha256": "3" * 64}
    plain = Record(id="a", index=0, status="ok", mode="driver", metrics=known)
    assert not _is_missing(plain, settings(), weights)
    marked = plain.model_copy(update={"same_identity": True})
    assert _is_missing(marked, settings(), {})
    compared = marked.model_copy(update={"metrics": known | {"driver_frames_compared": 0}})
    assert not _is_missing(compared, settings(), {})
    assert _is_missing(compared, settings(), weights)


def test_an_item_in_parts_is_compared_when_they_are_joined(tmp_path: Path) -> None:
    chosen = settings(
        video={"preset": "ultrafast", "segment_seconds": 1.0}, resources={"render": {"split_seconds": 2.0}}
    )
    parts = split(reenacted(tmp_path), chosen, INFO.fps)
    assert len(parts) > 1
    renderer = stage(tmp_path, chosen)
    item = gathered([renderer.run(part) for part in parts])
    assert JoinStage(chosen, INFO, str(tmp_path), 1, 1).run(item).error is None
    found = record(tmp_path).metrics
    assert (found["metrics_from"], found["driver_frames_compared"]) == ("video", FRAMES // 10)
    assert found["driver_psnr_db"] > 24

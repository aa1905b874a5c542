"""The whole benchmark: every promised row, and what the whole is compared with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imtalker.engine.bench.measure import Measurement, threads
from imtalker.engine.bench.options import NetworkOptions
from pipeline.bench.material import rows as manifest_rows
from pipeline.bench.media import bench_media
from pipeline.bench.options import PARTS, BenchOptions, bench_options
from pipeline.bench.suite import measure, whole_rows
from pipeline.bench.whole import StageUse, WholeRun, stage_uses
from pipeline.config import InputLimits
from pipeline.errors import CannotRun
from pipeline.machines.resources import Pool
from pipeline.media.audio import decode_mono_16k
from pipeline.tasks import AssetTask, ItemTask, Worker

ROOT = Path(__file__).parent.parent.parent
STAGES = ["crop", "features", "motion", "render", "encode"]
WHOLE_ROWS = ["whole pipeline", "whole pipeline, videos phase"]
SUM_ROWS = ["sum of the parts, in turn", "sum of the parts, overlapped"]
MEDIA_ROWS = ["crop", "decode driver", "decode audio", "encode"]
TINY = BenchOptions(
    NetworkOptions(model="imtalker-tiny", batch_size=2, rounds=1, threads=1), media_seconds=0.4, items=2,
    item_seconds=0.4, executor="process",
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with threads(1):
        yield


@pytest.fixture(scope="module")
def printed() -> dict[str, Any]:
    """The command line's JSON, all parts in their smallest size."""
    arguments = ["--model", "imtalker-tiny", "--frames", "2", "--batch-size", "2", "--audio-seconds", "0.4"]
    arguments += ["--in-flight", "2", "--rounds", "1", "--threads", "1", "--matrix-size", "64", "--media-seconds"]
    arguments += ["0.4", "--items", "2", "--item-seconds", "0.4", "--executor", "process", "--device", "cpu", "--json"]
    process = subprocess.run(
        [sys.executable, "-m", "cli", "bench", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert process.returncode == 0, process.stderr
    found: dict[str, Any] = json.loads(process.stdout)
    return found


def test_one_call_leaves_every_row(printed: dict[str, Any]) -> None:
    names = [row["name"] for row in printed["rows"]]
    assert names == [
        "matrix product float32",
        "matrix product bfloat16",
        "render published",
        "render plain",
        "render engine float32",
        "render engine bfloat16",
        "audio encoder",
        "motion generator",
        "audio and motion, one by one",
        "audio and motion, 2 in flight",
        *MEDIA_ROWS,
        *WHOLE_ROWS,
        *SUM_ROWS,
        *(f"stage {stage}" for stage in STAGES),
    ]
    assert all(row["rate"] > 0 for row in printed["rows"])


def test_it_says_what_it_was_measured_on(printed: dict[str, Any]) -> None:
    facts = printed["environment"]
    assert facts["whole_executor"].startswith("this process")
    assert (facts["whole_items"], facts["whole_frames"], facts["whole_precision"]) == (2, 20, "bfloat16")
    assert (facts["device"], facts["threads"], facts["batch_size"], facts["weights"]) == ("cpu", 1, 2, "random")
    assert facts["torch"]
    assert facts["whole_startup_s"] > 0


def test_the_whole_is_compared_with_the_render_ceiling_of_its_precision(printed: dict[str, Any]) -> None:
    rows = {row["name"]: row for row in printed["rows"]}
    ceiling = rows["render engine bfloat16"]["rate"]
    for name in WHOLE_ROWS + SUM_ROWS:
        assert rows[name]["ratio"] == pytest.approx(rows[name]["rate"] / ceiling)
    assert rows["whole pipeline"]["rate"] < rows["whole pipeline, videos phase"]["rate"]
    assert rows["sum of the parts, in turn"]["rate"] < rows["sum of the parts, overlapped"]["rate"]
    facts = printed["environment"]
    assert rows["whole pipeline"]["rate"] == pytest.approx(facts["whole_frames"] / facts["whole_steady_s"], rel=0.01)
    assert all(0 <= rows[f"stage {stage}"]["waited_share"] <= 1 for stage in STAGES)


def pool(actors: int) -> Pool:
    return Pool(actors, 1, 0, 1)


def worker(started_at: float, ended_at: float) -> Worker:
    return Worker(pid=1, node="here", gpus="", started_at=started_at, ended_at=ended_at)


def made_up_tasks() -> list[AssetTask | ItemTask]:
    """Two assets from 100 s to 110 s, two items from 200 s to 220 s on two renderers."""
    assets = [
        AssetTask(key="a", kind="portrait", uri="a.png", seconds={"crop": 2.0, "features": 5.0}),
        AssetTask(key="b", kind="audio", uri="b.wav", seconds={"crop": 0.0, "features": 3.0}),
    ]
    assets[0].workers = {"crop": worker(100, 102), "features": worker(102, 107)}
    assets[1].workers = {"crop": worker(102, 102), "features": worker(107, 110)}
    portrait = AssetTask(key="a", kind="portrait", uri="a.png", seconds={"crop": 2.0, "features": 5.0})
    common: dict[str, Any] = {"mode": "audio", "portrait": portrait, "cfg_scale": 3, "nfe": 10, "request": ""}
    items = [
        ItemTask(
            key="1",
            index=0,
            **common,
            seconds={"motion": 1.0, "render": 18.0},
            video={"render_s": 18.0, "encode_s": 6.0},
        ),
        ItemTask(
            key="2",
            index=1,
            **common,
            seconds={"motion": 1.0, "render": 12.0},
            video={"render_s": 12.0, "encode_s": 4.0},
        ),
    ]
    items[0].workers = {"motion": worker(200, 201), "render": worker(202, 220)}
    items[1].workers = {"motion": worker(201, 202), "render": worker(203, 215)}
    return [*assets, *items]


def test_waiting_is_what_is_left_of_the_actors_time_in_their_phase() -> None:
    placement = {"crop": pool(1), "features": pool(1), "motion": pool(1), "render": pool(2)}
    uses = {use.stage: use for use in stage_uses(made_up_tasks(), placement)}
    assert list(uses) == STAGES
    assert [uses[stage].window_s for stage in STAGES] == [10, 10, 20, 20, 20]
    # The portrait inside an item is not counted again.
    assert [uses[stage].busy_s for stage in STAGES] == [2, 8, 2, 30, 10]
    assert [uses[stage].waited_share for stage in STAGES] == pytest.approx([0.8, 0.2, 0.9, 0.25, 0.75])


def test_clocks_that_disagree_never_give_a_share_below_nothing() -> None:
    assert StageUse("render", 1, 1, busy_s=10.1, window_s=10.0).waited_share == 0
    assert StageUse("render", 1, 0, busy_s=0.0, window_s=0.0).waited_share == 0


def whole_run() -> WholeRun:
    placement = {"crop": pool(1), "features": pool(1), "motion": pool(1), "render": pool(2)}
    return WholeRun("made up", 50, 600, 24, 1, stage_uses(made_up_tasks(), placement))


ALONE = {
    "crop": 1.0,
    "decode audio": 24.0,
    "audio encoder": 12.0,
    "motion generator": 8.0,
    "render engine bfloat16": 60.0,
    "encode": 150.0,
}


def test_the_sum_of_the_parts_in_closed_form() -> None:
    """Parts take 1, 1, 2, 3, 10 and 4 seconds for the run's work."""
    alone = [Measurement(name, rate, "") for name, rate in ALONE.items()]
    rows = {row.name: row for row in whole_rows(whole_run(), alone, "bfloat16")}
    assert whole_run().startup_s == 20
    assert [rows[name].rate for name in WHOLE_ROWS] == pytest.approx([600 / 30, 600 / 20])
    assert [rows[name].ratio for name in WHOLE_ROWS] == pytest.approx([1 / 3, 1 / 2])
    assert [rows[name].rate for name in SUM_ROWS] == pytest.approx([600 / 21, 600 / 10])
    assert rows["sum of the parts, overlapped"].ratio == pytest.approx(1)
    assert rows["stage render"].rate == pytest.approx(600 / 30)
    assert rows["stage features"].rate == pytest.approx(2 / 8)


def test_what_was_not_measured_is_left_out() -> None:
    """Without one part there is no sum, and without the ceiling no ratio."""
    alone = [Measurement(name, rate, "") for name, rate in ALONE.items() if name != "crop"]
    rows = {row.name: row for row in whole_rows(whole_run(), alone, "bfloat16")}
    assert not set(SUM_ROWS) & set(rows)
    assert rows["whole pipeline"].ratio is not None
    assert whole_rows(whole_run(), [], "bfloat16")[0].ratio is None


@pytest.mark.parametrize("part", ["crop", "decode", "encode"])
def test_a_part_can_be_measured_alone(part: str) -> None:
    _, rows = measure(replace(TINY, only=frozenset({part})))
    assert [row.name for row in rows] == [name for name in MEDIA_ROWS if name.startswith(part)]
    assert all(row.rate > 0 for row in rows)


def test_media_without_parts_is_nothing() -> None:
    assert bench_media(replace(TINY, only=frozenset())) == []


def test_recordings_are_of_one_length_and_all_different(tmp_path: Path) -> None:
    made = list(manifest_rows(tmp_path, 5, 12.0))
    assert len({row["image"] for row in made}) == 3
    waveforms = [decode_mono_16k(Path(row["audio"]), InputLimits()) for row in made]
    assert {len(waveform) for waveform in waveforms} == {12 * 16_000}
    assert len({waveform.tobytes() for waveform in waveforms}) == 5
    assert min(abs(waveform).max() for waveform in waveforms) > 0.1


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"only": ["render", "speed"]}, "there is no part 'speed'; choose of render, motion, crop"),
        ({"precisions": ["int8"]}, "there is no precision 'int8'"),
        ({"model": "nobody"}, "there is no model 'nobody'"),
    ],
)
def test_options_that_are_not_known_are_named(change: dict[str, Any], complaint: str) -> None:
    given: dict[str, Any] = {
        "only": PARTS,
        "media_seconds": 1.0,
        "items": 1,
        "item_seconds": 1.0,
        "executor": "auto",
        "device": "cpu",
        "precisions": ["float32"],
        "model": "imtalker-tiny",
    }
    assert bench_options(**given).run_precision == "float32"
    with pytest.raises(CannotRun, match=complaint):
        bench_options(**given | change)

"""The networks' benchmark measures what it says: the same frames by every path, ratios to the published one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from imtalker.engine.baseline import PublishedRenderer
from imtalker.engine.bench.measure import (
    EQUAL_DB,
    Measurement,
    PeakMemory,
    best_seconds,
    fastest_threads,
    operations_of,
    psnr,
    threads,
)
from imtalker.engine.bench.motion import motion_paths
from imtalker.engine.bench.networks import measure_networks, stand_ins
from imtalker.engine.bench.options import NetworkOptions
from imtalker.engine.bench.render import BaselineError, bench_render, check_baseline
from imtalker.engine.bench.report import document, environment, table
from imtalker.engine.flips import best_matches
from imtalker.presets import PRESETS
from imtalker.renderer.renderer import Renderer
from tests.imtalker.test_renderer import SMALL, seeded_renderer

CPU = torch.device("cpu")
OPTIONS = NetworkOptions(
    model="imtalker-tiny", batch_size=2, frames=3, audio_seconds=1.0, in_flight=2, rounds=1, threads=1, matrix_size=64
)
RENDER_ROWS = ["render published", "render plain", "render engine float32", "render engine bfloat16"]
PEAK_ROWS = ["matrix product float32", "matrix product bfloat16"]


@pytest.fixture(scope="module")
def rows() -> dict[str, Measurement]:
    return {row.name: row for row in measure_networks(OPTIONS)}


@pytest.fixture
def renderer() -> Renderer:
    return seeded_renderer(SMALL, 3).eval().requires_grad_(False)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Two threads on a busy machine wait for each other longer than they compute."""
    with threads(1):
        yield


def test_every_path_has_its_row(rows: dict[str, Measurement]) -> None:
    assert list(rows) == [
        *PEAK_ROWS,
        *RENDER_ROWS,
        "audio encoder",
        "motion generator",
        "audio and motion, one by one",
        "audio and motion, 2 in flight",
    ]
    assert all(row.rate > 0 for row in rows.values())
    assert {row.unit for name, row in rows.items() if name in RENDER_ROWS} == {"frames"}


def test_every_path_gives_the_same_frames(rows: dict[str, Measurement]) -> None:
    worst = {name: rows[name].psnr_worst_db or 0 for name in RENDER_ROWS}
    assert worst["render plain"] == EQUAL_DB
    assert worst["render published"] > 90
    assert worst["render engine float32"] > 60
    assert worst["render engine bfloat16"] > 38
    # 16 x 16 cells choose in each frame; the published path renders two.
    cells = (PRESETS["imtalker-tiny"].renderer.swin_res_threshold // 2) ** 2
    assert [rows[name].choices for name in RENDER_ROWS] == [2 * cells, 3 * cells, 3 * cells, 3 * cells]
    assert all(rows[name].flips == 0 for name in RENDER_ROWS)


def test_ratios_and_shares_follow_from_the_rates(rows: dict[str, Measurement]) -> None:
    peaks = {name.split()[-1]: rows[name].rate for name in PEAK_ROWS}
    for name in RENDER_ROWS:
        row = rows[name]
        assert row.gflop is not None
        assert row.ratio == pytest.approx(row.rate / rows["render published"].rate)
        peak = peaks["bfloat16" if name.endswith("bfloat16") else "float32"]
        assert row.peak_share == pytest.approx(row.rate * row.gflop / peak)
    sequential = rows["audio and motion, one by one"]
    assert sequential.ratio == rows["audio encoder"].ratio == rows["motion generator"].ratio == 1
    assert rows["audio and motion, 2 in flight"].ratio == pytest.approx(
        rows["audio and motion, 2 in flight"].rate / sequential.rate
    )


def test_paths_take_the_operations_that_the_model_has(rows: dict[str, Measurement]) -> None:
    """The engine does what the plain path does with less, and so do batches of items."""
    published, plain, *engines = (rows[name].gflop or 0 for name in RENDER_ROWS)
    assert engines[0] == engines[1] < plain <= published < 1.05 * plain
    one_by_one, batch = (rows[f"audio and motion, {how}"].gflop for how in ("one by one", "2 in flight"))
    assert 0.5 * one_by_one < batch < one_by_one
    both = (rows["audio encoder"].gflop or 0) + (rows["motion generator"].gflop or 0)
    assert one_by_one == pytest.approx(both)


@pytest.mark.parametrize(
    ("module", "given", "operations"),
    [
        (nn.Linear(5, 7), (3, 5), 2 * 3 * 5 * 7),
        (nn.Conv2d(4, 6, 3, padding=1), (2, 4, 8, 8), 2 * 2 * 8 * 8 * 4 * 6 * 9),
        (nn.Conv2d(4, 4, 3, padding=1, groups=4), (1, 4, 8, 8), 2 * 8 * 8 * 4 * 9),
        (nn.ConvTranspose2d(4, 6, 3, stride=2), (1, 4, 8, 8), 2 * 8 * 8 * 4 * 6 * 9),
        (nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.Linear(7, 2)), (3, 5), 2 * 3 * 7 * (5 + 2)),
    ],
    ids=["linear", "convolution", "depthwise", "transposed", "two layers"],
)
def test_operations_are_those_of_a_hand_count(module: nn.Module, given: tuple[int, ...], operations: int) -> None:
    module.requires_grad_(False)
    assert operations_of(lambda: module(torch.randn(given))) == operations


def test_fused_attention_counts_as_its_two_products() -> None:
    q, k, v = (torch.randn(1, 2, length, 8) for length in (5, 9, 9))
    assert operations_of(lambda: F.scaled_dot_product_attention(q, k, v)) == 2 * (2 * 2 * 5 * 9 * 8)


def test_psnr_in_closed_form() -> None:
    reference = torch.zeros(3, 3, 4, 4)
    frames = reference.clone()
    frames[0] += 0.1
    frames[1] += 0.01
    assert psnr(frames, reference).tolist() == pytest.approx([20, 40, EQUAL_DB], abs=1e-4)


def test_peak_memory_is_what_the_block_took_and_gave_back() -> None:
    size = 64 * 2**20
    held = torch.ones(size, dtype=torch.uint8)
    with PeakMemory(CPU) as memory:
        for _ in range(8):
            torch.ones(size, dtype=torch.uint8)
    assert memory.bytes is not None
    assert 0.9 * size < memory.bytes < 1.5 * size
    del held


def test_rounds_alternate_between_the_paths() -> None:
    seen: list[str] = []
    found = best_seconds({"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}, rounds=3, device=CPU)
    assert seen == ["a", "b"] * 3
    assert list(found) == ["a", "b"]


def test_thread_counts_up_to_the_present_one_are_tried() -> None:
    tried: set[int] = set()
    with threads(3):
        assert fastest_threads(lambda: tried.add(torch.get_num_threads()), CPU) in {1, 2, 3}
        assert torch.get_num_threads() == 3
    assert tried == {1, 2, 3}
    assert torch.get_num_threads() == 1


def baseline_inputs(renderer: Renderer) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(5)
    source, codes = torch.rand(3, 64, 64, generator=draw), torch.randn(2, SMALL.dim_motion, generator=draw)
    with torch.inference_mode():
        reference = renderer.render(renderer.prepare(source[None]), codes)
    return {
        "source": source,
        "codes": codes,
        "reference": reference,
        "expected": best_matches(renderer, source, codes),
    }


def test_a_baseline_that_renders_something_else_is_refused(renderer: Renderer) -> None:
    inputs = baseline_inputs(renderer)
    check_baseline(PublishedRenderer(renderer), **inputs)
    wrong = PublishedRenderer(renderer)
    with torch.no_grad():
        next(wrong.frame_decoder.parameters()).mul_(1.01)
    with pytest.raises(BaselineError, match=r"frame 0 .* dB, at least 90 dB"):
        check_baseline(wrong, **inputs)


def test_a_frame_with_a_flipped_match_is_held_to_the_wider_bound(renderer: Renderer) -> None:
    inputs = baseline_inputs(renderer)
    inputs["expected"] = inputs["expected"].clone()
    inputs["expected"][:, 0] += 1
    noise = torch.randn(inputs["reference"].shape, generator=torch.Generator().manual_seed(0))
    published = PublishedRenderer(renderer)
    check_baseline(published, **inputs | {"reference": inputs["reference"] + 3e-4 * noise})
    with pytest.raises(BaselineError, match="at least 60 dB"):
        check_baseline(published, **inputs | {"reference": inputs["reference"] + 3e-3 * noise})


def test_nothing_is_timed_after_a_refusal(renderer: Renderer, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: PublishedRenderer, source: object, code: torch.Tensor) -> tuple[torch.Tensor, None]:
        return torch.zeros(1, 3, 64, 64), None

    monkeypatch.setattr(PublishedRenderer, "frame", broken)
    with pytest.raises(BaselineError):
        bench_render(renderer, OPTIONS)


def test_a_renderer_that_attends_on_every_level_has_no_choices_to_flip(renderer: Renderer) -> None:
    attending = seeded_renderer(replace(SMALL, motion_levels=len(SMALL.channels), swin_res_threshold=64), 3)
    found = bench_render(attending, replace(OPTIONS, precisions=("float32",), frames=1))
    assert [row.flips for row in found] == [None] * 4


def test_the_motion_paths_work_through_what_they_say() -> None:
    _, generator = stand_ins(PRESETS["imtalker-tiny"])
    generator.eval().requires_grad_(False)
    paths = motion_paths(generator, torch.zeros(3, 8_000), torch.zeros(3, 32))
    assert [path.seconds for path in paths] == [0.5, 0.5, 1.5, 1.5]
    names = {path.name for path in paths}
    assert {path.compared_with for path in paths} <= names


def test_the_table_and_the_document_hold_every_row(rows: dict[str, Measurement]) -> None:
    facts = environment(OPTIONS)
    text = table(facts, list(rows.values()))
    assert [name for name in rows if not any(line.startswith(f"{name}  ") for line in text.splitlines())] == []
    assert "imtalker-tiny" in text
    read = json.loads(json.dumps(document(facts, list(rows.values())), allow_nan=False))
    assert [row["name"] for row in read["rows"]] == list(rows)
    assert (read["environment"]["threads"], read["environment"]["device"]) == (1, "cpu")


BLOCKED = """
import runpy, sys
absent = "av ray pyarrow pandas pydantic typer decord dlib jobs manifests pipeline"
sys.modules.update(dict.fromkeys(absent.split()))
sys.argv[0] = "bench"
runpy.run_module("imtalker.engine.bench", run_name="__main__")
"""


def test_it_runs_where_only_the_networks_libraries_are() -> None:
    arguments = ["--model", "imtalker-tiny", "--frames", "1", "--audio-seconds", "0.2", "--in-flight", "1"]
    arguments += ["--rounds", "1", "--threads", "1", "--matrix-size", "64", "--precision", "float32", "--json"]
    process = subprocess.run(
        [sys.executable, "-c", BLOCKED, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout)
    assert found["environment"]["model"] == "imtalker-tiny"
    assert "render engine float32" in {row["name"] for row in found["rows"]}

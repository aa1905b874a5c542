"""The benchmark measures what it says: the same frames by every path, ratios to the published one."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest
import torch

from imtalker.engine.bench import psnr


def test_psnr_in_closed_form() -> None:
    reference = torch.zeros(2, 3, 4, 4)
    frames = reference.clone()
    frames[0] += 0.1
    frames[1] += 0.01
    mean, worst = psnr(frames, reference)
    assert (mean, worst) == (pytest.approx(30, abs=1e-4), pytest.approx(20, abs=1e-4))


def test_one_call_measures_every_path_on_the_same_frames() -> None:
    """In a process of its own, as it is run where nothing but torch is installed."""
    arguments = ["--model", "imtalker-tiny", "--frames", "3", "--batch-size", "2", "--seconds", "1", "--rounds", "1"]
    process = subprocess.run(
        [sys.executable, "-m", "imtalker.engine.bench", *arguments, "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    rows = {row["name"]: row for row in json.loads(process.stdout)}
    assert list(rows) == [
        "render published",
        "render plain",
        "render engine float32",
        "render engine bfloat16",
        "audio encoder",
        "motion generator",
    ]
    assert rows["render published"]["ratio"] == 1
    assert rows["render published"]["psnr_worst_db"] > 60
    assert rows["render engine float32"]["psnr_worst_db"] > 60
    assert rows["render engine bfloat16"]["psnr_worst_db"] > 38
    assert all(row["rate"] > 0 and math.isfinite(row["rate"]) for row in rows.values())
    assert all(0 < rows[name]["peak_share"] < 1.5 for name in rows if name.startswith("render"))

"""Judging a model, as far as that takes no minutes."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console
from safetensors.torch import save_file
from torch import zeros

from pipeline.errors import CannotRun
from pipeline.progress import RunProgress
from pipeline.training.evaluate import EvaluationSettings, judge


@pytest.mark.parametrize("what", ["another network", "no tensors"])
def test_a_reader_of_another_version_is_refused(tmp_path: Path, what: str) -> None:
    settings = EvaluationSettings(output=tmp_path, world="narrow", lines=0)
    path = tmp_path / f"reader-narrow-128-{settings.reader_steps}.safetensors"
    if what == "another network":
        save_file({"head.weight": zeros(2)}, path)
    else:
        path.write_bytes(b"nothing")
    with RunProgress(Console(file=io.StringIO()), 60) as progress, pytest.raises(CannotRun, match=r"reader.*remove it"):
        judge(settings, progress)

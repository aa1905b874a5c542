"""Progress of a training, on a terminal and in a file."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from imtalker.training.loop import Progress, Validation
from pipeline.training.progress import TrainingProgress, duration


def test_lines_say_where_it_is_and_how_long_it_takes() -> None:
    text = io.StringIO()
    with TrainingProgress(Console(file=text, width=200), "renderer", 1000, interval_s=3600) as progress:
        progress.stepped(0)
        progress.reported(Progress(50, 1000, {"total": 1.23456, "pixels": 0.1}, steps_a_second=2.0))
        progress.reported(Progress(100, 1000, {"total": 1.2}, 2.0))
        progress.validated(Validation(100, {"psnr_db": 21.5}))
        progress.reported(Progress(1000, 1000, {"total": 0.5}, 2.0))
    assert text.getvalue().splitlines() == [
        "renderer: 50/1000, loss 1.235, 2.00 steps/s, about 7 min 55 s left",
        "renderer: validation at 100: psnr_db 21.5",
        "renderer: 1000/1000, loss 0.5, 2.00 steps/s",
    ]


def test_a_terminal_has_a_bar_that_begins_where_the_run_goes_on() -> None:
    text = io.StringIO()
    console = Console(file=text, width=200, force_terminal=True)
    with TrainingProgress(console, "generator", 1000, interval_s=3600) as progress:
        progress.stepped(400)
        progress.reported(Progress(450, 1000, {"total": 0.25}, 5.0))
        progress.stepped(451)
    assert "451/1000" in text.getvalue() and "loss 0.25, 5.00 steps/s" in text.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (7500, "2 h 5 min"), (180_000, "2 d 2 h")]
)
def test_durations_have_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text

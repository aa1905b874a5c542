"""The loop of a training: a run in stretches is the run in one piece, and nothing half done is kept."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from imtalker.training.loop import CHECKPOINT, LOG, Pace, Progress, Validation, Watch, resume, train
from imtalker.training.stop import until_signal
from tests.imtalker.training.test_trainers import same


class Line:
    """Fits a number to the batches with Adam, whose moments have to be kept, too."""

    def __init__(self) -> None:
        self.steps = 0
        self.weight = torch.zeros(3, requires_grad=True)
        self._optimiser = torch.optim.Adam([self.weight], 0.1)
        self.during: Callable[[], None] = lambda: None

    def step(self, batches: Sequence[Tensor]) -> dict[str, float]:
        self._optimiser.zero_grad()
        loss = (self.weight - batches[0]).square().sum()
        loss.backward()
        self._optimiser.step()
        self.during()
        self.steps += 1
        return {"total": loss.item()}

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "weight": self.weight.detach(), "optimiser": self._optimiser.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        with torch.no_grad():
            self.weight.copy_(state["weight"])
        self._optimiser.load_state_dict(state["optimiser"])


def batches(step: int) -> list[Tensor]:
    return [torch.rand(3, generator=torch.Generator().manual_seed(step))]


def kept(folder: Path) -> Line:
    line = Line()
    assert resume(line, folder)
    return line


def log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / LOG).read_text().splitlines()]


def test_a_run_in_stretches_is_the_run_in_one_piece(tmp_path: Path) -> None:
    whole = Line()
    train(whole, batches, tmp_path / "whole", steps=9)
    for steps in (3, 4, 9):
        train(Line(), batches, tmp_path / "parts", steps=steps)
    assert kept(tmp_path / "parts").steps == 9
    assert same(kept(tmp_path / "parts").state_dict(), whole.state_dict())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_between_two_steps(tmp_path: Path, number: signal.Signals) -> None:
    """It comes in the middle of a step, after the weights changed and before the step is counted."""
    whole, stopped = Line(), Line()
    train(whole, batches, tmp_path / "whole", steps=9)
    before = signal.getsignal(number)

    def during() -> None:
        if stopped.steps == 4:
            os.kill(os.getpid(), number)

    stopped.during = during
    with pytest.raises(KeyboardInterrupt):
        train(stopped, batches, tmp_path / "parts", steps=9)
    assert signal.getsignal(number) == before
    assert kept(tmp_path / "parts").steps == 5
    train(Line(), batches, tmp_path / "parts", steps=9)
    assert same(kept(tmp_path / "parts").state_dict(), whole.state_dict())


def test_only_a_second_interrupt_is_impatient() -> None:
    with until_signal() as signalled:
        assert not signalled()
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signalled()
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_beside_the_main_thread_a_wish_ends_it(tmp_path: Path) -> None:
    line, ended = Line(), []

    def run() -> None:
        with pytest.raises(KeyboardInterrupt):
            train(line, batches, tmp_path, steps=9, stop=lambda: line.steps == 2)
        ended.append(kept(tmp_path).steps)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert ended == [2]


def test_an_error_in_a_step_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    """The state in the middle of a step is that of no step."""
    line = Line()

    def during() -> None:
        if line.steps == 5:
            raise RuntimeError("out of memory")

    line.during = during
    with pytest.raises(RuntimeError, match="out of memory"):
        train(line, batches, tmp_path, steps=9, pace=Pace(checkpoint=2))
    whole = Line()
    train(whole, batches, tmp_path / "whole", steps=4)
    assert same(kept(tmp_path).state_dict(), whole.state_dict())


def test_a_checkpoint_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    train(Line(), batches, tmp_path, steps=2)
    written = (tmp_path / CHECKPOINT).read_bytes()

    class Unwritable(Line):
        def state_dict(self) -> dict[str, Any]:
            return super().state_dict() | {"large": torch.zeros(1000), "lock": threading.Lock()}

    with pytest.raises(TypeError, match="lock"):
        train(Unwritable(), batches, tmp_path, steps=3)
    assert (tmp_path / CHECKPOINT).read_bytes() == written


def test_weights_that_cant_be_used_leave_the_last_checkpoint(tmp_path: Path) -> None:
    train(Line(), batches, tmp_path, steps=2)

    def export() -> None:
        raise ValueError("not finite")

    with pytest.raises(ValueError, match="not finite"):
        train(Line(), batches, tmp_path, steps=3, export=export)
    assert kept(tmp_path).steps == 2


def test_reports_are_means_and_lines_of_the_log(tmp_path: Path) -> None:
    line = Line()
    reports: list[Progress] = []
    steps: list[int] = []
    validations: list[Validation] = []
    train(
        line,
        batches,
        tmp_path,
        steps=5,
        report=reports.append,
        watch=Watch(steps.append, validations.append),
        pace=Pace(report=2, validate=3),
        validate=lambda: Validation(line.steps, {"total": line.steps / 10}),
    )
    again = Line()
    terms = [again.step(batches(step))["total"] for step in range(5)]
    assert [report.step for report in reports] == [2, 4, 5]
    means = [sum(terms[0:2]) / 2, sum(terms[2:4]) / 2, terms[4]]
    assert [report.terms["total"] for report in reports] == pytest.approx(means)
    assert steps == [0, 1, 2, 3, 4, 5]
    assert [validation.step for validation in validations] == [3, 5]
    assert [line["step"] for line in log(tmp_path)] == [2, 3, 4, 5, 5]
    assert log(tmp_path)[1] == {"step": 3, "validation/total": 0.3}
    assert log(tmp_path)[0]["total"] == pytest.approx(means[0], rel=1e-5)


def test_lines_of_steps_that_come_again_are_dropped(tmp_path: Path) -> None:
    """As after a power cut: the log is ahead of the checkpoint, and its last line is cut off."""
    train(Line(), batches, tmp_path, steps=4, pace=Pace(report=2))
    with (tmp_path / LOG).open("a") as file:
        file.write('{"step": 6, "total": 1.0}\n{"step": 8, "to')
    train(Line(), batches, tmp_path, steps=8, pace=Pace(report=2))
    assert [line["step"] for line in log(tmp_path)] == [2, 4, 6, 8]
    assert log(tmp_path)[2]["total"] != 1.0


def test_the_time_left_follows_from_the_speed() -> None:
    assert Progress(step=20, steps=50, terms={}, steps_a_second=2.0).seconds_left == 15

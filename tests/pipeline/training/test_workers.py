"""Several workers on a real Ray: the same training as one process's."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from ray.train import WorkerGroupError
from rich.console import Console

from imtalker.checkpoints import load_generator, load_renderer
from pipeline.errors import CannotRun
from pipeline.machines.cluster import connected
from pipeline.training.progress import TrainingProgress
from pipeline.training.settings import GeneratorSettings, RendererSettings
from pipeline.training.start import start
from pipeline.training.work import work
from pipeline.training.workers import Shown, explained, placement
from tests.pipeline.training.clips import generator_document, motion_clips, renderer_document, train_two_steps

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return motion_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with connected(num_cpus=2):
        yield


def train(document: dict[str, object]) -> str:
    console = Console(file=io.StringIO(), width=500)
    start(GeneratorSettings.model_validate(document), console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def moments(folder: Path) -> list[torch.Tensor]:
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert state["steps"] == 4
    return [kept["exp_avg"] for kept in state["optimiser"]["state"].values()]


@pytest.mark.usefixtures("cluster")
def test_two_workers_train_as_one_and_go_on(data: Path, tmp_path: Path) -> None:
    """Half of the batch each, from the checkpoint of one that had the whole batch.

    The means of gradients that Adam keeps are compared: of a gradient that is zero but for rounding it makes a whole
    step, of either sign.
    """
    train(generator_document(data, tmp_path / "one", steps=4, report_every=1))
    shared = generator_document(data, tmp_path / "two", steps=4, report_every=1, workers=2)
    train_two_steps(GeneratorSettings.model_validate(shared | {"workers": 1}))
    said = train(shared)
    assert "going on from the checkpoint" in said and "generator: 4/4, loss" in said and "validation at 4" in said
    one, two = (moments(tmp_path / name) for name in ("one", "two"))
    assert max(moment.abs().max() for moment in one) > 1e-2
    for found, expected in zip(two, one, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-4)
    assert load_generator(tmp_path / "two" / "generator.safetensors").config.dim_h == 32
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("one", "two")]
    losses = [[line["total"] for line in map(json.loads, log) if "total" in line] for log in logs]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert (tmp_path / "two" / "tensorboard").is_dir()


def test_workers_that_cant_be_placed_are_refused(tmp_path: Path) -> None:
    settings = GeneratorSettings.model_validate(generator_document(tmp_path, tmp_path, steps=1, workers=4, batch=8))
    assert placement(settings, {"CPU": 64.0}) == {"CPU": 8.0, "GPU": 0.0}
    assert placement(settings.model_copy(update={"device": "auto"}), {"CPU": 8.0, "GPU": 4.0}) == {"CPU": 2, "GPU": 1}
    with pytest.raises(CannotRun, match="4 workers need 4 CPUs, the cluster has 2"):
        placement(settings, {"CPU": 2.0})
    with pytest.raises(CannotRun, match="4 workers need 4 GPUs, the cluster has 2"):
        placement(settings.model_copy(update={"device": "auto"}), {"CPU": 8.0, "GPU": 2.0})


def test_what_a_worker_says_comes_out_as_it_is() -> None:
    said = CannotRun("clips: 0 clips")
    assert explained(WorkerGroupError("2 failed", {1: RuntimeError("left alone"), 0: said})) is said
    other = explained(WorkerGroupError("1 failed", {1: RuntimeError("out of memory")}))
    assert isinstance(other, CannotRun) and "worker 1 failed: RuntimeError: out of memory" in str(other)


def test_a_log_is_shown_once_and_anew_where_it_was_cut(tmp_path: Path) -> None:
    """When a run goes on, lines after its checkpoint are dropped, and the file is another one."""
    settings = GeneratorSettings.model_validate(generator_document(tmp_path, tmp_path, steps=9))
    log, text = tmp_path / "log.jsonl", io.StringIO()
    log.write_text("".join(map(line, (1, 2, 3))))
    with TrainingProgress(Console(file=text, width=200), "generator", 9, interval_s=1e-9) as progress:
        shown = Shown(settings, progress)
        shown.update()
        assert text.getvalue() == ""
        (tmp_path / "new").write_text("".join(map(line, (1, 2))))
        (tmp_path / "new").replace(log)
        shown.update()
        with log.open("a") as file:
            file.write(line(3) + line(4) + line(5)[:9])
            file.flush()
            shown.update()
            file.write(line(5)[9:])
            file.flush()
            shown.update()
            file.write('{"step": 5, "validation/total": 0.5}\n')
        shown.update()
    said = text.getvalue().splitlines()
    assert [one.split(",")[0] for one in said] == [
        "generator: 4/9",
        "generator: 5/9",
        "generator: validation at 5: total 0.5",
    ]


def line(step: int) -> str:
    return json.dumps({"step": step, "steps_a_second": 1.0, "total": 1.0}) + "\n"


def command_of(document: dict[str, object], folder: Path) -> subprocess.Popen[str]:
    (folder / "train.yaml").write_text(yaml.safe_dump(document | {"progress_seconds": 1e-6}))
    command = [sys.executable, str(ROOT / "cli.py"), "train", "generator", "--config", str(folder / "train.yaml")]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True)


@pytest.mark.long
def test_a_renderer_is_trained_by_two_workers(tmp_path: Path) -> None:
    """With an adversary, whose gradients are averaged, too."""
    document = renderer_document(tmp_path / "two", steps=3, workers=2, weights={"adversarial": 1}, report_every=1)
    console = Console(file=io.StringIO(), width=500)
    start(RendererSettings.model_validate(document), console)
    lines = [json.loads(text) for text in (tmp_path / "two" / "log.jsonl").read_text().splitlines()]
    assert [one["step"] for one in lines] == [1, 2, 3, 3] and "adversarial" in lines[0]
    assert load_renderer(tmp_path / "two" / "renderer.safetensors").config.resolution == 64
    assert (tmp_path / "two" / "pictures" / "00000003.png").exists()


@pytest.mark.long
def test_a_worker_that_dies_is_replaced_and_goes_on(data: Path, tmp_path: Path) -> None:
    document = generator_document(str(data), str(tmp_path / "out"), steps=600, checkpoint_every=50, report_every=20)
    process = command_of(document | {"workers": 2, "restarts": 1}, tmp_path)
    assert process.stderr is not None
    while not process.stderr.readline().startswith("generator: "):
        assert process.poll() is None
    listed = subprocess.run(["ps", "-o", "pid=,args=", "-s", str(process.pid)], capture_output=True, text=True)
    workers = [one for one in listed.stdout.splitlines() if "RayTrainWorker" in one]
    os.kill(int(workers[-1].split()[0]), signal.SIGKILL)
    rest = process.stderr.read()
    assert process.wait(timeout=120) == 0, rest
    lines = [json.loads(text) for text in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert [one["step"] for one in lines] == [*range(20, 601, 20), 600]


@pytest.mark.long
def test_a_signal_stops_the_workers_and_one_process_goes_on(data: Path, tmp_path: Path) -> None:
    document = generator_document(str(data), str(tmp_path / "out"), steps=3000, report_every=5, workers=2)
    process = command_of(document, tmp_path)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("generator: "):
            process.send_signal(signal.SIGTERM)
            break
    rest = process.stderr.read()
    assert process.wait(timeout=60) == 130, rest
    steps = torch.load(tmp_path / "out" / "checkpoint.pt", weights_only=True)["steps"]
    assert 5 <= steps < 3000
    # One more step, at the rate that the schedule of all of them gives.
    stop = iter([True])
    settings = GeneratorSettings.model_validate(document | {"workers": 1})
    with pytest.raises(KeyboardInterrupt):
        work(settings, torch.device("cpu"), lambda progress: None, stop=lambda: next(stop))
    assert torch.load(tmp_path / "out" / "checkpoint.pt", weights_only=True)["steps"] == steps + 1

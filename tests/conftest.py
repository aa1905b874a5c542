"""Fixtures of the whole suite."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from s3fs import S3FileSystem

from pipeline.machines.resources import PATIENT_THREADS
from tests.s3_server import S3Server, serve

# As the command line does, and before any test imports torch.
os.environ.update({name: value for name, value in PATIENT_THREADS.items() if name not in os.environ})

# A suite that a shell started in the background would ignore Ctrl-C, and so would the programs that it interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_LONGEST = (
    "test_node_loss.py",
    "test_run_on_ray.py",
    "test_cli.py",
    "test_hash_matrix.py",
    "test_kills.py",
    "test_faults.py",
    "test_demo_model.py",
    "test_submit.py",
    "test_telemetry.py",
    "test_run.py",
    "test_storage.py",
)
"""Files to begin with, so that no process is left with one of them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {name: place for place, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


@pytest.fixture(scope="module", autouse=True)
def share_of_the_processors() -> None:
    """Networks of two processes that both use every processor wait for each other most of the time."""
    import torch

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))))


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server on loopback, started once: ``s3.bucket()``, ``s3.storage_options``, ``s3.environment``."""
    with serve(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3_environment(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """The server, with the environment pointing at it instead of storage options."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    # fsspec keeps one filesystem for equal options, whatever the environment was when it was made.
    S3FileSystem.clear_instance_cache()
    yield s3
    S3FileSystem.clear_instance_cache()

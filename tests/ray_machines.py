"""Machines of a real Ray cluster, all of them on this one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil
import pytest

_STOPS_WITHIN_S = 60


@dataclass(frozen=True)
class Head:
    """Addresses of a cluster: of its Jobs API, and for machines and drivers that join it."""

    dashboard: str
    gcs: str


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def ray_head(**environment: str) -> Iterator[Head]:
    """A head node with one processor and its Jobs API, on loopback and without token authentication."""
    dashboard, gcs = free_port(), free_port()
    # A socket's path is at most 107 characters long, and pytest's own folders are longer than Ray leaves room for.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        arguments = [
            *("--head", "--num-cpus=1", "--object-store-memory=80000000", f"--temp-dir={folder}"),
            *("--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--port={gcs}"),
            *(f"--dashboard-agent-listen-port={free_port()}", f"--ray-client-server-port={free_port()}"),
        ]
        with ray_machine(*arguments, RAY_AUTH_MODE="disabled", **environment):
            yield Head(f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{gcs}")


@contextmanager
def ray_machine(*arguments: str, **environment: str) -> Iterator[psutil.Process]:
    """``ray start`` with these arguments, until the end of the block; gives its process, the parent of the node's."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | environment,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        said: list[str] = []
        for line in process.stdout:
            said.append(line)
            if "--block" in line:
                break
        else:
            pytest.fail("Ray did not start:\n" + "".join(said))
        yield psutil.Process(process.pid)
    finally:
        # It stops its own processes; told all at once, they wait for each other.
        process.terminate()
        try:
            process.wait(timeout=_STOPS_WITHIN_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise


def kill_machine(machine: psutil.Process) -> None:
    """Every process of a node at once, as when its power fails."""
    for process in [*machine.children(recursive=True), machine]:
        with suppress(psutil.NoSuchProcess):
            process.kill()

"""A run on a cluster of three machines, all of them this one: submitted, deprived of a machine, given a new one."""

from __future__ import annotations

import json
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
import yaml

from pipeline.storage import Store
from tests.commands import imtalker
from tests.ray_machines import Head, free_port, kill_machine, ray_head, ray_machine
from tests.runs import TINY, demo, write_manifest
from tests.s3_server import S3Server

_ROWS = 16
_AUTH = {"RAY_AUTH_MODE": "disabled"}


def renderer_of_its_own(stack: ExitStack, head: Head) -> psutil.Process:
    """One more machine, with a GPU that exists by name only."""
    return stack.enter_context(
        ray_machine(
            *(f"--address={head.gcs}", "--num-cpus=2", "--num-gpus=1", "--object-store-memory=80000000"),
            f"--dashboard-agent-listen-port={free_port()}",
            **_AUTH,
        )
    )


def records(output: Store) -> list[dict[str, Any]]:
    keys = [key for key in output.list("items") if key.endswith(".json")]
    return [json.loads(data) for data in output.get_many(keys).values()]


# Ray takes a machine for lost after 20 seconds, and starts workers on the new one.
@pytest.mark.timeout(400)
def test_a_submitted_run_survives_the_loss_of_a_machine(tmp_path: Path, s3: S3Server) -> None:
    portraits, recordings = ("ana.png", "mei.webp", "kofi.jpg"), ("english.wav", "french.m4a")
    rows = [{"id": f"item-{i}", "image": portraits[i % 3], "audio": recordings[i % 2], "seed": i} for i in range(_ROWS)]
    bucket = s3.bucket()
    inputs, outputs = (Store(f"s3://{bucket}/{name}", s3.storage_options) for name in ("in", "out"))
    for name in (*portraits, *recordings):
        inputs.put_file(Path(demo(name)), name)
    inputs.put_file(Path(write_manifest(tmp_path, rows)), "manifest.parquet")
    job = {
        "manifest": f"s3://{bucket}/in/manifest.parquet",
        "output": f"s3://{bucket}/out",
        "settings": TINY.model_dump()
        | {"max_seconds": 1, "resources": {"render": {"actors": 2, "num_gpus": 0.8, "num_cpus": 1}}},
        # The keys of the store travel as the environment of the job, not in its file.
        "ray": {"python": sys.executable, "runtime_env": {"env_vars": s3.environment}},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))

    with ExitStack() as stack:
        head = stack.enter_context(ray_head())
        _, doomed = (renderer_of_its_own(stack, head) for _ in range(2))
        lost: set[int] = set()
        over = threading.Event()

        def lose_a_machine() -> None:
            """Once both machines have rendered something, the doomed one twice: Ray has made again what the driver had
            not heard of yet, which may be the last of its items."""
            while not over.wait(0.2):
                rendered = [record["workers"]["render"]["pid"] for record in records(outputs)]
                workers = {process.pid for process in doomed.children(recursive=True)}
                if 2 <= sum(pid in workers for pid in rendered) < len(rendered):
                    lost.update(workers)
                    kill_machine(doomed)
                    renderer_of_its_own(stack, head)
                    return

        watcher = threading.Thread(target=lose_a_machine)
        watcher.start()
        try:
            command = ["submit", "--config", str(tmp_path / "job.yaml"), "--address", head.dashboard]
            run = imtalker(*command, timeout_s=300, **_AUTH)
        finally:
            over.set()
            watcher.join()
        assert run.returncode == 0, run.stdout + run.stderr
        assert lost, "no machine was lost while the run was going on"

    done = records(outputs)
    assert sorted(record["id"] for record in done) == sorted(row["id"] for row in rows)
    assert {record["status"] for record in done} == {"ok"}
    by_whom = [record["workers"]["render"]["pid"] for record in done]
    assert 1 <= sum(pid in lost for pid in by_whom) < _ROWS - 1
    keys = s3.keys(bucket)
    assert sum(key.startswith("out/videos/") for key in keys) == _ROWS
    outputs.get_file("results.parquet", tmp_path / "results.parquet")
    table = pq.read_table(tmp_path / "results.parquet").to_pylist()
    assert [row["status"] for row in table] == _ROWS * ["ok"]

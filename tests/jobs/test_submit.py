"""Jobs run on a real cluster: a Ray head with its Jobs API, started and torn down here."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from jobs import submit as jobs
from jobs.schema import Job
from pipeline.errors import CannotRun
from tests.ray_machines import free_port, ray_head


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Address of the Jobs API of a head node."""
    with ray_head() as head:
        yield head.dashboard


def test_a_command_runs_as_it_was_given_and_its_exit_code_comes_back(cluster: str, tmp_path: Path) -> None:
    (tmp_path / "input.txt").write_text("shipped")
    awkward = ["a b", "$(echo no)", "'", '"; exit 9', "*"]
    code = "import os, sys; print(open('input.txt').read(), os.environ['WORD'], sys.argv[1:]); sys.exit(3)"
    env = {"working_dir": str(tmp_path), "env_vars": {"WORD": "given"}}
    job_id = jobs.submit_command([sys.executable, "-c", code, *awkward], cluster, env, name="awkward")
    followed = "".join(jobs.follow_logs(cluster, job_id))
    assert f"shipped given {awkward}" in followed
    assert f"shipped given {awkward}" in jobs.job_logs(cluster, job_id)
    state = jobs.job_status(cluster, job_id)
    assert (state.status, state.exit_code, state.shell_exit_code, state.ended) == ("FAILED", 3, 3, True)
    assert state.started_s is not None
    assert state.ended_s is not None
    assert state.ended_s >= state.started_s
    assert not jobs.job_cancel(cluster, job_id)


def test_a_job_arrives_with_its_flags_and_its_working_folder(cluster: str, tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "helpers").mkdir(parents=True)
    (project / "helpers" / "words.txt").write_text("beside the program")
    (project / "private.key").write_text("stays here")
    (project / "cli.py").write_text(
        "import pathlib, sys\n"
        "print(sys.argv[1:])\n"
        "print(pathlib.Path('helpers/words.txt').read_text(), pathlib.Path('private.key').exists())\n"
        "print(pathlib.Path(sys.argv[-1]).read_text())\n"
    )
    job = Job.model_validate(
        {
            "name": "shipped",
            "manifest": "s3://b/m.parquet",
            "output": "s3://b/out",
            "settings": {
                "storage_options": {"s3": {"secret": "hunter2"}},
                "limits": {"private_addresses": True},
            },
            "ray": {
                "python": sys.executable,
                "dashboard": cluster,
                "runtime_env": {"working_dir": str(project), "excludes": ["*.key"]},
            },
        }
    ).with_overrides({"limit": 2, "seed": 9})
    job_id = jobs.submit(job)
    log = "".join(jobs.follow_logs(cluster, job_id))
    assert jobs.job_status(cluster, job_id).status == "SUCCEEDED", log
    assert "['run', '--config', 'imtalker-job.yaml']" in log
    assert "beside the program False" in log
    arrived = Job.model_validate(yaml.safe_load(log[log.index("name: shipped") :]))
    limits = job.settings.limits.model_copy(update={"local_files": False, "private_addresses": True})
    assert arrived.settings == job.settings.model_copy(update={"limits": limits})
    assert (arrived.limit, arrived.manifest, arrived.ray.address) == (2, "s3://b/m.parquet", "auto")
    assert not (project / jobs.JOB_FILE).exists()


def test_a_running_job_can_be_cancelled(cluster: str) -> None:
    code = "import signal; print('waiting', flush=True); signal.pause()"
    job_id = jobs.submit_command([sys.executable, "-c", code], cluster, {}, name=None)
    for piece in jobs.follow_logs(cluster, job_id):
        if "waiting" in piece:
            assert jobs.job_status(cluster, job_id).status == "RUNNING"
            assert jobs.job_cancel(cluster, job_id)
    state = jobs.job_status(cluster, job_id)
    assert (state.status, state.shell_exit_code) == ("STOPPED", 130)


def test_an_unknown_job_is_one_clear_line(cluster: str) -> None:
    with pytest.raises(CannotRun, match=rf"cluster {cluster}: .*404"):
        jobs.job_status(cluster, "absent")


def test_what_cant_be_submitted_says_why(tmp_path: Path) -> None:
    job = Job(manifest="/m", output="/o")
    dead = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(CannotRun, match=r"give --address or ray.dashboard"):
        jobs.submit(job)
    with pytest.raises(CannotRun, match="expected the URL of the Jobs API"):
        jobs.submit(job, "ray://head:10001")
    with pytest.raises(CannotRun, match=f"cluster {dead}: "):
        jobs.submit(job, dead)
    lost = job.with_overrides({"ray.runtime_env.working_dir": str(tmp_path / "absent")})
    with pytest.raises(CannotRun, match="working_dir: expected a local folder"):
        jobs.submit(lost, dead)

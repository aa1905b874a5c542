"""Submitting a job to a Ray cluster through its Jobs API, and asking what became of it."""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import yaml

from jobs.schema import Job, RuntimeEnv
from pipeline.config import RunSettings
from pipeline.errors import INTERRUPTED, CannotRun

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

JOB_FILE = "imtalker-job.yaml"
"""Name of the job file in the folder that is shipped."""


@dataclass(frozen=True)
class JobState:
    """A submitted job as Ray knows it.

    ``status`` is PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED; times are seconds since 1970. ``exit_code`` is the
    run's own: 3 means that it ended and some items failed, which Ray calls FAILED.
    """

    id: str
    status: str
    message: str
    exit_code: int | None
    started_s: float | None
    ended_s: float | None

    @property
    def ended(self) -> bool:
        return self.status in ("STOPPED", "SUCCEEDED", "FAILED")

    @property
    def shell_exit_code(self) -> int:
        """The run's exit code where it has one; 130 for a job that was cancelled, 1 for one that Ray couldn't run."""
        if self.exit_code is not None and self.status != "STOPPED":
            return self.exit_code
        return {"SUCCEEDED": 0, "STOPPED": INTERRUPTED}.get(self.status, 1)


def submit(job: Job, address: str | None = None) -> str:
    """Run ``job`` on a cluster and return its id at once.

    The job file is shipped as it stands here, flags included. The program itself must be installed on the cluster, or
    lie in ``ray.runtime_env.working_dir``. Local paths are made absolute and must exist on the cluster's machines.

    Args:
        address: URL of the Jobs API (``http://head:8265``); default: the job's ``ray.dashboard``.

    Raises:
        CannotRun: no address, ``working_dir`` isn't a folder, or the cluster can't be reached or refuses the job.
    """
    target = cluster_of(job, address)
    job = job.absolute()
    with _shipped(job) as folder:
        return submit_command(
            run_command(job, JOB_FILE), target, _runtime_env(job.ray.runtime_env, folder), name=job.name
        )


def cluster_of(job: Job, address: str | None = None) -> str:
    """URL of the Jobs API that a job goes to. Raises `CannotRun` where none is given."""
    target = address or job.ray.dashboard
    if target is None:
        raise CannotRun("submit: no cluster: give --address or ray.dashboard, e.g. http://head:8265")
    return target


def submit_command(command: Sequence[str], address: str, runtime_env: Mapping[str, Any], *, name: str | None) -> str:
    """Start ``command`` (a program and its arguments) as a job of the cluster and return the job's id.

    Raises:
        CannotRun: the cluster can't be reached or refuses the job.
    """
    with _client(address) as client:
        # The Jobs API takes a line for a shell, so every argument is quoted.
        return str(
            client.submit_job(
                entrypoint=shlex.join(command),
                runtime_env=dict(runtime_env),
                metadata={"job_name": name} if name else None,
            )
        )


def job_status(address: str, job_id: str) -> JobState:
    """What Ray says about a job. Raises `CannotRun` for an unreachable cluster or an unknown id."""
    with _client(address) as client:
        info = client.get_job_info(job_id)
    return JobState(
        id=job_id,
        status=str(info.status.value),
        message=info.message or "",
        exit_code=info.driver_exit_code,
        started_s=None if info.start_time is None else info.start_time / 1000,
        ended_s=None if not info.end_time else info.end_time / 1000,
    )


def job_logs(address: str, job_id: str) -> str:
    """Everything that the job has written so far. Raises `CannotRun` as `job_status` does."""
    with _client(address) as client:
        return str(client.get_job_logs(job_id))


def follow_logs(address: str, job_id: str) -> Iterator[str]:
    """What the job writes, piece by piece, until it ends. Raises `CannotRun` as `job_status` does."""

    async def following() -> str | None:
        return await anext(stream, None)

    with _client(address) as client, asyncio.Runner() as runner:
        stream = client.tail_job_logs(job_id)
        while (piece := runner.run(following())) is not None:
            yield piece


def job_cancel(address: str, job_id: str) -> bool:
    """Ask Ray to stop a job; False if it had ended already. Raises `CannotRun` as `job_status` does."""
    with _client(address) as client:
        return bool(client.stop_job(job_id))


@contextmanager
def _client(address: str) -> Iterator[JobSubmissionClient]:
    from ray.exceptions import RayError
    from ray.job_submission import JobSubmissionClient

    if not address.startswith(("http://", "https://")):
        raise CannotRun(f"cluster {address}: expected the URL of the Jobs API, e.g. http://head:8265")
    try:
        yield JobSubmissionClient(address)
    # Requests fail as OSError; what the cluster refuses comes as RuntimeError; a missing token as a RayError.
    except (OSError, RuntimeError, ValueError, RayError) as exc:
        raise CannotRun(f"cluster {address}: {exc}") from exc


@contextmanager
def _shipped(job: Job) -> Iterator[Path]:
    """A folder with the job file and links to everything in the job's ``working_dir``, for Ray to pack."""
    with TemporaryDirectory(prefix="imtalker-submit-") as name:
        folder = Path(name)
        if working_dir := job.ray.runtime_env.working_dir:
            try:
                for entry in Path(working_dir).iterdir():
                    (folder / entry.name).symlink_to(entry)
            except OSError as exc:
                raise CannotRun(f"ray.runtime_env.working_dir: expected a local folder: {exc}") from exc
        file = folder / JOB_FILE
        file.unlink(missing_ok=True)
        file.write_text(cluster_job(job), encoding="utf-8")
        yield folder


def run_command(job: Job, file: str) -> list[str]:
    """The program and its arguments that run a job file on a cluster."""
    return [job.ray.python, "-m", "cli", "run", "--config", file]


def cluster_job(job: Job, *, complete: bool = True) -> str:
    """The job file as it runs on a cluster: it joins the cluster, its environment is there already, and its rows can't
    reach the cluster's own files and services, unless it says that they may.

    ``complete``: with all defaults, for a cluster whose program may be of another version.
    """
    there = job.ray.model_copy(update={"address": "auto", "dashboard": None, "runtime_env": RuntimeEnv()})
    shipped = job.model_copy(update={"ray": there, "kubernetes": None, "settings": _guarded(job.settings)})
    document = shipped.model_dump(mode="json", exclude_defaults=not complete)
    return str(yaml.safe_dump(document, sort_keys=False))


def _guarded(settings: RunSettings) -> RunSettings:
    """With what is not said of where inputs may come from set to no."""
    limits = settings.limits
    closed = {name: getattr(limits, name) or False for name in ("local_files", "private_addresses")}
    return settings.model_copy(update={"limits": limits.model_copy(update=closed)})


def _runtime_env(env: RuntimeEnv, folder: Path) -> dict[str, Any]:
    given = env.model_dump(exclude_defaults=True, exclude={"working_dir"})
    return {**given, "working_dir": os.fspath(folder)}

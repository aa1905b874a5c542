"""Commands about a cluster: send a run to it, and ask what became of it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.facts import facts_text
from jobs.flags import Config, check_given, with_settings
from pipeline.commands.flags import Json
from pipeline.errors import CannotRun

Address = Annotated[str, typer.Option(help="URL of the cluster's Jobs API, e.g. http://head:8265")]

job_app = typer.Typer(help="Jobs on a cluster.", no_args_is_help=True)


@with_settings
def submit(
    manifest: Annotated[str | None, typer.Argument(help="URI of a Parquet manifest")] = None,
    output: Annotated[str | None, typer.Option(help="URI of the output folder")] = None,
    config: Config = None,
    address: Annotated[
        str | None, typer.Option(help="URL of the cluster's Jobs API; default: the job's ray.dashboard")
    ] = None,
    follow: Annotated[bool, typer.Option(help="show what the run writes until it ends, and exit as it does")] = True,
    settings: dict[str, Any] | None = None,
) -> None:
    """Send a run to a Ray cluster as a job; the job's id goes to stdout. Ctrl-C leaves the job running."""
    from jobs.start import job_from
    from jobs.submit import cluster_of
    from jobs.submit import submit as submit_job

    check_given(manifest, output, config)
    job = job_from(config, {"manifest": manifest, "output": output}, settings or {})
    cluster = cluster_of(job, address)
    job_id = submit_job(job, cluster)
    typer.echo(job_id)
    if follow:
        raise typer.Exit(_followed(job_id, cluster))


def _followed(job_id: str, address: str) -> int:
    from jobs.submit import follow_logs, job_status

    try:
        for piece in follow_logs(address, job_id):
            typer.echo(piece, nl=False, err=True)
    except KeyboardInterrupt:
        typer.echo(f"the job goes on: `imtalker job logs|cancel {job_id} --address {address}`", err=True)
        raise
    return job_status(address, job_id).shell_exit_code


@job_app.command("status")
def show_status(
    job_id: str,
    address: Address,
    as_json: Json = False,
) -> None:
    """What a cluster says about a job."""
    from jobs.submit import job_status

    facts = asdict(job_status(address, job_id))
    typer.echo(json.dumps(facts, indent=1) if as_json else facts_text(facts))


@job_app.command("logs")
def show_logs(
    job_id: str, address: Address, follow: Annotated[bool, typer.Option(help="until the job ends")] = False
) -> None:
    """What a job has written."""
    from jobs.submit import follow_logs, job_logs

    for piece in follow_logs(address, job_id) if follow else [job_logs(address, job_id)]:
        typer.echo(piece, nl=False)


@job_app.command("cancel")
def cancel_job(job_id: str, address: Address) -> None:
    """Stop a job; what it has made is kept."""
    from jobs.submit import job_cancel

    typer.echo("stopping" if job_cancel(address, job_id) else "it had ended already", err=True)


@job_app.command()
def kuberay(
    job: Annotated[Path, typer.Argument(help="job file (YAML) with a `kubernetes` part")],
    output: Annotated[Path | None, typer.Option(help="file for the manifest; default: stdout")] = None,
) -> None:
    """The manifest of a KubeRay RayJob that runs a job file on Kubernetes, for `kubectl apply`."""
    from jobs.kuberay import rayjob_yaml
    from jobs.schema import load_job

    manifest = rayjob_yaml(load_job(job))
    if output is None:
        typer.echo(manifest, nl=False)
        return
    try:
        output.write_text(manifest, encoding="utf-8")
    except OSError as exc:
        raise CannotRun(f"writing {output} failed: {exc.strerror}") from exc

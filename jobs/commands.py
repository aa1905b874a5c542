"""Commands that need a run's settings: what is in its way, and what became of one item."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.flags import with_settings
from pipeline.errors import CannotRun

Json = Annotated[bool, typer.Option("--json", help="print the result as JSON on stdout")]
Config = Annotated[Path | None, typer.Option("--config", help="job file (YAML); flags win over it")]


@with_settings
def doctor(
    output: Annotated[str | None, typer.Option(help="URI of the output folder; a small object is tried in it")] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster that the run joins; looks at every machine")] = None,
    config: Config = None,
    timeout: Annotated[float | None, typer.Option(min=0.1, help="seconds for each check, instead of its own")] = None,
    as_json: Json = False,
    settings: dict[str, Any] | None = None,
) -> None:
    """Look at what a run will need, here or on a cluster. Exit code 1: something is in its way."""
    from jobs.start import job_from
    from pipeline.doctor.checks import examine_all_of
    from pipeline.doctor.finding import Finding, Request
    from pipeline.doctor.report import as_json as document
    from pipeline.doctor.report import exit_code, line, summary

    # A job needs both; what is not given is not looked at.
    unnamed = {} if config else {"manifest": "-", "output": "-"}
    job = job_from(config, unnamed | _given(output=output, ray_address=address), settings or {})
    request = Request(
        settings=job.settings,
        output=job.output if config or output else None,
        address=job.ray.address or os.environ.get("RAY_ADDRESS"),
        timeout_s=timeout,
        probe=f".imtalker-doctor-{uuid.uuid4().hex}",
    )
    findings: list[Finding] = []
    for finding in examine_all_of(request):
        findings.append(finding)
        if not as_json:
            typer.echo(line(finding))
    typer.echo(document(findings) if as_json else summary(findings))
    raise typer.Exit(exit_code(findings))


def explain(
    output: Annotated[str, typer.Argument(help="output folder of a run")],
    item: Annotated[str, typer.Argument(metavar="ID", help="the item's id, or _invalid/ROW")],
    config: Config = None,
    as_json: Json = False,
) -> None:
    """All that is known about one item of a run, and the command that makes it again, alone."""
    from jobs.schema import load_job
    from pipeline.explain import explain as explain_item
    from pipeline.explain import explanation_text

    known = explain_item(output, item, load_job(config).settings.storage_options if config else None)
    typer.echo(json.dumps(known, indent=1, default=str) if as_json else explanation_text(known))


@with_settings
def metrics(
    output: Annotated[str, typer.Argument(help="output folder of a run that has ended")],
    config: Config = None,
    every: Annotated[bool, typer.Option("--every", help="measure also what has its metrics")] = False,
    address: Annotated[str | None, typer.Option(help="Ray cluster to join; default: one of its own")] = None,
    as_json: Json = False,
    settings: dict[str, Any] | None = None,
) -> None:
    """Measure what a finished run lacks, and judge it by other gates, without rendering. Flags and job file win over
    the run's own settings. Exit code 3: an item failed a gate, or could not be measured."""
    from jobs.start import measure_output
    from pipeline.progress import RunProgress, stderr_console

    with RunProgress(stderr_console(), 30.0) as progress:
        summary = measure_output(output, config, settings or {}, address, progress, every=every)
    facts = summary.as_dict()
    if as_json:
        typer.echo(json.dumps(facts, indent=1))
    else:
        typer.echo("\n".join(f"{name.replace('_', ' '):<16}{value}" for name, value in facts.items()), err=True)
    raise typer.Exit(summary.exit_code)


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


def _given(**flags: str | None) -> dict[str, str]:
    return {name.replace("ray_", "ray."): value for name, value in flags.items() if value is not None}

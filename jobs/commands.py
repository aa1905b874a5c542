"""Commands that need a run's settings: what is in its way, and what became of one item."""

from __future__ import annotations

import json
import os
import sys
import uuid
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from jobs.facts import facts_text
from jobs.flags import Config, settings_of, with_settings
from pipeline.commands.flags import Json


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
    from pipeline.item.explain import explain as explain_item
    from pipeline.item.explain import explanation_text

    known = explain_item(output, item, settings_of(config).storage_options)
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
    typer.echo(json.dumps(facts, indent=1) if as_json else facts_text(facts), err=not as_json)
    raise typer.Exit(summary.exit_code)


def set_metrics(
    output: Annotated[str, typer.Argument(help="output folder of a run that has ended")],
    reference: Annotated[
        str, typer.Option(metavar="REAL", help="folder of real videos, with its subfolders, or output of another run")
    ],
    inception: Annotated[
        str | None, typer.Option(metavar="FILE", help="weights of FID's Inception v3, for FID; nothing is fetched")
    ] = None,
    i3d: Annotated[
        str | None, typer.Option(metavar="FILE", help="weights of I3D on RGB, for FVD; nothing is fetched")
    ] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="auto: a GPU where there is one")] = "auto",
    every: Annotated[int, typer.Option(min=1, help="FID takes the first of so many frames, of 25 a second")] = 25,
    limit: Annotated[int | None, typer.Option(min=1, help="only the first videos of each set")] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """FID and FVD of a run's videos against real ones; set_metrics.json in the output keeps them. Exit code 3: a video
    could not be read, or one of the two not computed."""
    from pipeline.interrupts import interruptible
    from pipeline.machines.device import pick_device
    from pipeline.metrics.set_metrics import load_eyes, measure_sets
    from pipeline.progress import RunProgress, stderr_console

    if inception is None and i3d is None:
        raise typer.BadParameter("give --inception FILE for FID, --i3d FILE for FVD, or both")
    settings = settings_of(config)
    eyes = load_eyes(inception, i3d, pick_device(device), every)
    with interruptible(), RunProgress(stderr_console(), settings.progress_seconds) as progress:
        found = measure_sets(output, reference, eyes, settings, progress, limit=limit)
    typer.echo(json.dumps(found.as_dict(), indent=1) if as_json else found.text(), err=not as_json)
    raise typer.Exit(found.exit_code)


def report(
    output: Annotated[str, typer.Argument(help="output folder of a run")],
    against: Annotated[str | None, typer.Option(metavar="OUTPUT", help="another run, to say what is different")] = None,
    to: Annotated[Path | None, typer.Option(help="local file for the page; default: report.html in the output")] = None,
    config: Config = None,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="print every item as CSV on stdout, worst first")] = False,
) -> None:
    """Write the report of a run: one HTML page. With --json or --csv nothing is written but to stdout."""
    from pipeline.report.report import make_report
    from pipeline.report.source import read_source
    from pipeline.report.table import write_csv
    from pipeline.report.write import write_page

    if as_json + as_csv + (to is not None) > 1:
        raise typer.BadParameter("give one of --json, --csv and --to")
    options = settings_of(config).storage_options
    made = make_report(read_source(output, options), read_source(against, options) if against else None)
    if as_json:
        typer.echo(json.dumps(made.as_dict(), indent=1))
    elif as_csv:
        write_csv(made, sys.stdout)
    else:
        typer.echo(write_page(made, to).line(), err=True)


def verify(
    video: Annotated[str, typer.Argument(help="path or URI of a video")],
    authorities: Annotated[
        Path | None, typer.Option(help="PEM file of certificates whose signers are trusted; default: none is")
    ] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Who made a video, from what, and whether it was changed. Exit code 0: it was not; 3: it was, or can't be told."""
    from pipeline.provenance.verify import verification_text
    from pipeline.provenance.verify import verify as verify_video

    found = verify_video(video, settings_of(config), authorities=authorities)
    typer.echo(json.dumps(found.as_dict(), indent=1) if as_json else verification_text(found))
    raise typer.Exit(found.exit_code)


def reproduce(
    output: Annotated[str, typer.Argument(help="output folder of a run")],
    item: Annotated[str, typer.Argument(metavar="ID", help="the item's id")],
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Render an item again, into a temporary folder. Exit code 0: its frames are the same; 1: they are not."""
    from pipeline.item.rerun import rerun, rerun_text
    from pipeline.progress import RunProgress, stderr_console

    settings = settings_of(config)
    with RunProgress(stderr_console(), settings.progress_seconds) as progress:
        found = rerun(output, item, settings if config else None, progress)
    typer.echo(json.dumps(found.as_dict(), indent=1) if as_json else rerun_text(found))
    raise typer.Exit(0 if found.same else 1)


def _given(**flags: str | None) -> dict[str, str]:
    return {name.replace("ray_", "ray."): value for name, value in flags.items() if value is not None}

"""The command line: one short function for each command."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import typer

from jobs.cluster_commands import job_app, submit
from jobs.commands import doctor, explain, metrics, report, reproduce, set_metrics, verify
from jobs.facts import facts_text
from jobs.flags import Config, check_given, settings_of, with_settings
from jobs.manifest_commands import manifest_app
from pipeline.commands.avatars import avatars_app
from pipeline.commands.flags import Json
from pipeline.commands.models import models_app
from pipeline.commands.train import train_app
from pipeline.errors import INTERRUPTED, CannotRun, Retry

app = typer.Typer(
    help="Bulk talking-face videos: a manifest of portraits and speech in, videos out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(manifest_app, name="manifest")
app.add_typer(models_app, name="models")
app.add_typer(job_app, name="job")
app.add_typer(avatars_app, name="avatars")
app.add_typer(train_app, name="train")
app.command()(doctor)
app.command()(explain)
app.command()(submit)
app.command()(metrics)
app.command()(set_metrics)
app.command()(report)
app.command()(verify)
app.command()(reproduce)


def main() -> None:
    """The program. Exit codes: 0 all ok, 1 could not run, 2 usage, 3 some items failed, 130 interrupted."""
    from manifests.errors import ManifestError
    from pipeline.machines.resources import PATIENT_THREADS

    os.environ.update({name: value for name, value in PATIENT_THREADS.items() if name not in os.environ})
    try:
        app()
    except (CannotRun, ManifestError) as exc:
        typer.echo(f"error: {exc}", err=True)
        sys.exit(1)
    except SystemExit as exc:
        if exc.code == INTERRUPTED:
            typer.echo("interrupted; what is done is kept, run the same command again to go on", err=True)
        raise


@app.command()
@with_settings
def run(
    manifest: Annotated[str | None, typer.Argument(help="URI of a Parquet manifest")] = None,
    output: Annotated[str | None, typer.Option(help="URI of the output folder")] = None,
    config: Config = None,
    limit: Annotated[int | None, typer.Option(min=1, help="only the first rows of the manifest")] = None,
    retry: Annotated[
        Retry | None,
        typer.Option(help="attempt again what failed, all of it or one kind of error, though nothing has changed"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be done, and do nothing")] = False,
    calibration: Annotated[
        str | None, typer.Option(help="output of an earlier run, for --dry-run's estimate; default: this one's")
    ] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster to join; default: one of its own")] = None,
    as_json: Json = False,
    settings: dict[str, Any] | None = None,
) -> None:
    """Make the videos of a manifest. Run it again to go on where it stopped."""
    from jobs.start import estimate_job, job_from, plan_job, run_job

    check_given(manifest, output, config)
    flags = {"manifest": manifest, "output": output, "limit": limit, "retry": retry, "ray.address": address}
    job = job_from(config, flags, settings or {})
    if dry_run:
        plan = plan_job(job)
        estimated = estimate_job(job, len(plan.items), calibration)
        if as_json:
            typer.echo(json.dumps(plan.as_dict() | {"estimate": estimated}, indent=1))
        else:
            typer.echo("\n".join(plan.lines()))
            typer.echo(facts_text({"estimate": estimated}))
        return
    with _progress(job.settings.progress_seconds) as progress:
        summary = run_job(job, progress)
    _report(summary, as_json)


@app.command()
@with_settings
def generate(
    image: Annotated[str, typer.Option(help="portrait")],
    audio: Annotated[str | None, typer.Option(help="speech, or any file with a sound track")] = None,
    driver: Annotated[str | None, typer.Option(help="video whose motion is taken over")] = None,
    pose: Annotated[str | None, typer.Option(help="head pose (SMIRK .pt or .npy)")] = None,
    camera: Annotated[str | None, typer.Option(help="camera (.npy)")] = None,
    gaze: Annotated[str | None, typer.Option(help="gaze (.npy)")] = None,
    consent: Annotated[str | None, typer.Option(help="consent of the people who are shown and heard")] = None,
    item_seed: Annotated[int | None, typer.Option(min=0, help="the item's own seed, instead of a derived one")] = None,
    output: Annotated[str, typer.Option(help="where the video goes")] = "outputs/output.mp4",
    as_json: Json = False,
    settings: dict[str, Any] | None = None,
) -> None:
    """Make one video."""
    from jobs.start import generate_one

    row = {
        "image": image,
        "audio": audio,
        "driver": driver,
        "pose": pose,
        "camera": camera,
        "gaze": gaze,
        "consent": consent,
        "seed": item_seed,
    }
    with _progress(30.0) as progress:
        summary = generate_one(row, output, settings or {}, progress)
    if summary.ok and not as_json:
        typer.echo(f"{output}: {summary.frames} frames in {summary.seconds:.1f} s", err=True)
    _report(summary, as_json, quiet=summary.ok == 1)


@app.command()
def status(
    output: Annotated[str, typer.Argument(help="output folder of a run")],
    config: Config = None,
    as_json: Json = False,
) -> None:
    """What became of the items of a run, from its records."""
    from jobs.schema import load_job
    from pipeline.status import read_status, status_text

    price = load_job(config).price if config else None
    facts = read_status(output, settings_of(config).storage_options, price)
    typer.echo(json.dumps(facts, indent=1) if as_json else status_text(facts))


@app.command()
def bench(
    model: Annotated[
        str, typer.Option(help="preset whose sizes are measured; the weights are seeded stand-ins")
    ] = "imtalker",
    only: Annotated[
        str, typer.Option(metavar="PARTS", help="parts to measure, with commas; also: scaling")
    ] = "render,motion,crop,decode,encode,whole",
    device: Annotated[Literal["cpu", "cuda"] | None, typer.Option(help="default: cuda where there is one")] = None,
    precision: Annotated[
        str, typer.Option(metavar="TYPES", help="of the engine, with commas; the whole pipeline runs in the last")
    ] = "float32,bfloat16",
    compile_: Annotated[bool, typer.Option("--compile", help="measure the engine with torch.compile too")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="frames rendered at once")] = 4,
    frames: Annotated[int, typer.Option(min=1, help="frames of a round")] = 8,
    audio_seconds: Annotated[float, typer.Option(min=0.1, help="length of the networks' recordings")] = 4.0,
    in_flight: Annotated[int, typer.Option(min=1, help="recordings in one batch of the motion generator")] = 4,
    rounds: Annotated[int, typer.Option(min=1, help="the best of them counts")] = 3,
    threads: Annotated[int | None, typer.Option(min=1, help="torch threads; default: torch's own choice")] = None,
    matrix_size: Annotated[
        int | None, typer.Option(min=1, help="side of the matrices whose product is the device's peak")
    ] = None,
    media_seconds: Annotated[float, typer.Option(min=0.1, help="of the demo's media, decoded and encoded")] = 4.0,
    items: Annotated[int, typer.Option(min=1, help="items of the whole pipeline's run")] = 8,
    item_seconds: Annotated[float, typer.Option(min=0.1, help="length of each")] = 4.0,
    executor: Annotated[
        Literal["auto", "ray", "process"], typer.Option(help="of that run; auto: Ray where it is installed")
    ] = "auto",
    as_json: Json = False,
) -> None:
    """Measure the speed: networks against the published way, media, and the whole pipeline against its parts."""
    from pipeline.bench.options import bench_options
    from pipeline.bench.suite import measure, report

    options = bench_options(
        only=only.split(","),
        media_seconds=media_seconds,
        items=items,
        item_seconds=item_seconds,
        executor=executor,
        model=model,
        device=device,
        precisions=precision.split(","),
        compile=compile_,
        batch_size=batch_size,
        frames=frames,
        audio_seconds=audio_seconds,
        in_flight=in_flight,
        rounds=rounds,
        threads=threads,
        matrix_size=matrix_size,
    )
    typer.echo(report(*measure(options), as_json=as_json))


@contextmanager
def _progress(interval_s: float) -> Iterator[Any]:
    from pipeline.progress import RunProgress, stderr_console

    with RunProgress(stderr_console(), interval_s) as progress:
        yield progress


def _report(summary: Any, as_json: bool, *, quiet: bool = False) -> None:
    from pipeline.progress import summary_lines

    if as_json:
        typer.echo(json.dumps(summary.as_dict(), indent=1))
    elif not quiet:
        typer.echo("\n".join(summary_lines(summary)), err=True)
    raise typer.Exit(summary.exit_code)


if __name__ == "__main__":
    main()

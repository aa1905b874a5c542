"""The command line: one short function for each command."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from jobs.cluster_commands import job_app, submit
from jobs.commands import doctor, explain, metrics, report, reproduce, set_metrics, verify
from jobs.facts import facts_text
from jobs.flags import check_given, settings_of, with_settings
from pipeline.commands.avatars import avatars_app
from pipeline.commands.train import train_app
from pipeline.errors import CannotRun, Retry

app = typer.Typer(
    help="Bulk talking-face videos: a manifest of portraits and speech in, videos out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
manifest_app = typer.Typer(help="Make, check and look at manifests.", no_args_is_help=True)
models_app = typer.Typer(help="Weights: where they come from, and whether they are right.", no_args_is_help=True)
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

Json = Annotated[bool, typer.Option("--json", help="print the result as JSON on stdout")]
Config = Annotated[Path | None, typer.Option("--config", help="job file (YAML); flags win over it")]


_INTERRUPTED = 130


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
        if exc.code == _INTERRUPTED:
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


@manifest_app.command("build")
def manifest_build(
    output: Annotated[str, typer.Option(help="where the manifest goes")],
    images: Annotated[str | None, typer.Option(help="folder of portraits")] = None,
    audio: Annotated[str | None, typer.Option(help="folder of recordings")] = None,
    drivers: Annotated[str | None, typer.Option(help="folder of driver videos")] = None,
    source: Annotated[str | None, typer.Option("--from", help="CSV or JSON lines file, instead of folders")] = None,
    pairing: Annotated[Literal["cross", "zip", "stem"], typer.Option(help="how folders are paired")] = "cross",
    motion_from: Annotated[Literal["audio", "driver"] | None, typer.Option(help="with audio and drivers")] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="draw this many pairs at random")] = None,
    takes: Annotated[int, typer.Option(min=1, help="videos of each pair, with seeds of their own")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="of the draw and of the takes")] = 42,
) -> None:
    """Make a manifest from folders, or from a CSV or JSON lines file."""
    from manifests.build import Folders, build_from_file, build_from_folders

    if (source is None) == (images is None):
        raise typer.BadParameter("give --images with --audio and/or --drivers, or --from a file")
    if source is not None:
        built = build_from_file(source, output)
    else:
        folders = Folders(str(images), audio, drivers, pairing, motion_from, sample, takes, seed)
        built = build_from_folders(folders, output)
    typer.echo(f"{built.uri}: {built.rows} rows", err=True)
    for name, files in (("no partner", built.unpaired), ("not of a known kind", built.unread)):
        if files:
            typer.echo(f"left out, {name}: {', '.join(files[:20])}{' ...' if len(files) > 20 else ''}", err=True)


@manifest_app.command("validate")
def manifest_validate(
    manifest: Annotated[str, typer.Argument(help="URI of a manifest")],
    probe: Annotated[bool, typer.Option(help="open every input, not only look for it")] = True,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Check a manifest: columns, ids, whether inputs are there and can be opened, and how long it all is."""
    from pipeline.inputs.validate import validate_manifest
    from pipeline.records.row import RESULTS_SCHEMA

    report = validate_manifest(manifest, settings_of(config), probe_media=probe, results_columns=RESULTS_SCHEMA.names)
    typer.echo(json.dumps(report.as_dict(), indent=1) if as_json else report.text())
    raise typer.Exit(0 if report.ok else 3)


@manifest_app.command("show")
def manifest_show(
    manifest: Annotated[str, typer.Argument(help="URI of a manifest")],
    rows: Annotated[int, typer.Option(min=0, help="how many rows are shown")] = 5,
    as_json: Json = False,
) -> None:
    """What is in a manifest."""
    from manifests.reader import read_manifest
    from manifests.summary import summarise

    summary = summarise(read_manifest(manifest), head=rows)
    typer.echo(json.dumps(summary.as_dict(), indent=1) if as_json else summary.text())


@models_app.command("list")
def models_list(as_json: Json = False) -> None:
    """The models, their files, where those come from, and which are here."""
    from pipeline.weights import list_models

    _models(list_models(), as_json)


@models_app.command("pull")
def models_pull(
    model: Annotated[str, typer.Argument(help="preset")] = "imtalker",
    revision: Annotated[
        list[str] | None, typer.Option(metavar="REPOSITORY@REVISION", help="branch, tag or commit; may be repeated")
    ] = None,
    as_json: Json = False,
) -> None:
    """Fetch a model's published weights from the Hugging Face hub."""
    from pipeline.weights import parse_revisions, pull

    _models(pull(model, revisions=parse_revisions(revision or [])), as_json)


@models_app.command("verify")
def models_verify(
    model: Annotated[str, typer.Argument(help="preset")] = "imtalker",
    load: Annotated[bool, typer.Option(help="build the networks from the files too")] = False,
    as_json: Json = False,
) -> None:
    """Compare a model's files with the checksums of the day they were fetched."""
    from pipeline.weights import verify

    rows = verify(model, load=load)
    _models(rows, as_json)
    raise typer.Exit(0 if all(row.status in ("ready", "built in") for row in rows) else 1)


@models_app.command("convert")
def models_convert(
    source: Annotated[Path, typer.Argument(help="published checkpoint (.ckpt)")],
    target: Annotated[Path, typer.Argument(help="safetensors file to write")],
    audio_encoder: Annotated[Path | None, typer.Option(help="wav2vec2 folder, if the checkpoint holds none")] = None,
    dtype: Annotated[Literal["float32", "bfloat16", "float16"], typer.Option()] = "float32",
) -> None:
    """Write a published checkpoint as safetensors, with its sizes inside."""
    from pipeline.weights import convert

    convert(source, target, audio_encoder=audio_encoder, dtype=dtype)
    typer.echo(f"{target}: {target.stat().st_size / 1e6:.1f} MB", err=True)


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


def _models(rows: list[Any], as_json: bool) -> None:
    from dataclasses import asdict

    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], indent=1, default=str))
        return
    width = max(len(row.file) for row in rows) + 2
    for row in rows:
        size = f"{row.size / 1e6:.1f} MB" if row.size else ""
        origin = f"{row.source} {row.commit[:12]}"
        typer.echo(f"{row.preset:<15}{row.status:<12}{row.file:<{width}}{size:>10}  {origin:<42}{row.licence}")


if __name__ == "__main__":
    main()

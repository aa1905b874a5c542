"""`imtalker manifest`: make, check and look at manifests."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import typer

from jobs.flags import Config, settings_of
from pipeline.commands.flags import Json

manifest_app = typer.Typer(help="Make, check and look at manifests.", no_args_is_help=True)


@manifest_app.command("build")
def build(
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
def validate(
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
def show(
    manifest: Annotated[str, typer.Argument(help="URI of a manifest")],
    rows: Annotated[int, typer.Option(min=0, help="how many rows are shown")] = 5,
    as_json: Json = False,
) -> None:
    """What is in a manifest."""
    from manifests.reader import read_manifest
    from manifests.summary import summarise

    summary = summarise(read_manifest(manifest), head=rows)
    typer.echo(json.dumps(summary.as_dict(), indent=1) if as_json else summary.text())

"""`imtalker models`: published weights, fetched, checked and converted."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pipeline.commands.flags import Json

models_app = typer.Typer(help="Weights: where they come from, and whether they are right.", no_args_is_help=True)


@models_app.command("list")
def models_list(as_json: Json = False) -> None:
    """The models, their files, where those come from, and which are here."""
    from pipeline.weights import list_models

    _print(list_models(), as_json)


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

    _print(pull(model, revisions=parse_revisions(revision or [])), as_json)


@models_app.command("verify")
def models_verify(
    model: Annotated[str, typer.Argument(help="preset")] = "imtalker",
    load: Annotated[bool, typer.Option(help="build the networks from the files too")] = False,
    as_json: Json = False,
) -> None:
    """Compare a model's files with the checksums of the day they were fetched."""
    from pipeline.weights import verify

    rows = verify(model, load=load)
    _print(rows, as_json)
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


def _print(rows: list[Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], indent=1, default=str))
        return
    width = max(len(row.file) for row in rows) + 2
    for row in rows:
        size = f"{row.size / 1e6:.1f} MB" if row.size else ""
        origin = f"{row.source} {row.commit[:12]}"
        typer.echo(f"{row.preset:<15}{row.status:<12}{row.file:<{width}}{size:>10}  {origin:<42}{row.licence}")

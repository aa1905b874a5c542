"""`imtalker avatars`: procedural portraits and talking clips."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

avatars_app = typer.Typer(help="Drawn people who talk, and what is true of every frame.", no_args_is_help=True)

Size = Annotated[int, typer.Option(min=16, help="width and height in pixels")]
World = Annotated[
    Literal["full", "narrow"], typer.Option(help="which looks occur; narrow: few hair styles, plain backgrounds")
]


@avatars_app.command("render")
def render(
    output: Annotated[str, typer.Argument(help="folder on a local disk")],
    identities: Annotated[int, typer.Option(min=1, help="how many people")] = 4,
    clips: Annotated[int, typer.Option(min=1, help="how many clips in all, given to the people in turn")] = 4,
    size: Size = 256,
    seed: Annotated[int, typer.Option(min=0, help="of everything that is drawn")] = 42,
    world: World = "full",
    language: Annotated[
        list[str] | None, typer.Option(help="en, de, fr, es, it or pt; may be repeated; default: all in turn")
    ] = None,
    split: Annotated[
        Literal["train", "held-out"], typer.Option(help="people, sentences and voices for training, or for tests")
    ] = "train",
    layout: Annotated[
        Literal["plain", "renderer"], typer.Option(help="renderer: frames and landmarks to train on, too")
    ] = "plain",
    workers: Annotated[int, typer.Option(min=1, help="processes; the files don't depend on it")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="print the counts as JSON on stdout")] = False,
) -> None:
    """Make portraits, and clips of them talking. Run it again to go on where it stopped; needs espeak-ng."""
    from dataclasses import asdict

    from pipeline.avatars.folder import AvatarFolder
    from pipeline.avatars.production import produce
    from pipeline.avatars.recipes import draw_script
    from pipeline.progress import RunProgress, stderr_console

    if "://" in output:
        raise typer.BadParameter(f"expected a folder on a local disk, found {output}")
    try:
        script = draw_script(
            identities=identities,
            clips=clips,
            size=size,
            seed=seed,
            world=world,
            languages=language or (),
            split=split,
        )
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from exc
    with RunProgress(stderr_console(), 30.0) as progress:
        made = produce(script, AvatarFolder(Path(output)), progress, frames=layout == "renderer", workers=workers)
    if as_json:
        typer.echo(json.dumps(asdict(made), indent=1))
        return
    typer.echo(f"portraits {made.portraits} made, {made.portraits_kept} were there", err=True)
    typer.echo(f"clips     {made.clips} made ({made.frames} frames), {made.clips_kept} were there", err=True)
    typer.echo(f"manifest  {Path(output) / 'manifest.parquet'}", err=True)


@avatars_app.command("portrait")
def portrait(
    file: Annotated[Path, typer.Argument(help="PNG file to write")],
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="the identity")] = 42,
    size: Size = 512,
    world: World = "full",
) -> None:
    """Draw one person."""
    from pipeline.avatars.folder import appearing
    from pipeline.avatars.portraits import save_portrait
    from pipeline.avatars.recipes import PortraitRecipe
    from pipeline.errors import CannotRun

    if file.suffix.lower() != ".png":
        raise typer.BadParameter(f"expected a file named .png, found {file.name}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with appearing(file) as path:
            save_portrait(path, PortraitRecipe(seed, world, size))
    except OSError as exc:
        raise CannotRun(f"{file} can't be written: {exc}") from exc

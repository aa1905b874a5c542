"""Command-line flags for settings, made from the settings themselves, so that nothing is said twice."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
import yaml
from pydantic.fields import FieldInfo

from pipeline.config import RunSettings, VideoSettings
from pipeline.weights import parse_weights

Config = Annotated[Path | None, typer.Option("--config", help="job file (YAML); flags win over it")]

_SIMPLE = (str, int, float, bool)


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command a flag for every plain setting; it receives those that were given as ``settings``.

    The flags are the fields of `RunSettings`, the encoder's quality and speed, ``--weights PART=PATH``, and ``--set``
    for all others.
    """
    fields = dict(_flags())

    def wrapped(**arguments: Any) -> None:
        given = {path: arguments.pop(name) for name, (path, _) in fields.items()}
        weights = arguments.pop("weights")
        settings = {path: value for path, value in given.items() if value is not None}
        settings |= dict(_parse_setting(text) for text in arguments.pop("set") or [])
        if weights:
            settings["weights"] = parse_weights(weights)
        command(**arguments, settings=settings)

    own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "settings"]
    extra = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, (_, annotation) in fields.items()
    ]
    weights_type = Annotated[
        list[str] | None, typer.Option("--weights", metavar="PART=PATH", help="weights of a part; may be repeated")
    ]
    extra.append(inspect.Parameter("weights", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=weights_type))
    set_type = Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SETTING=VALUE", help="any setting by its path; may be repeated"),
    ]
    extra.append(inspect.Parameter("set", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=set_type))
    wrapped.__signature__ = inspect.Signature([*own, *extra])  # type: ignore[attr-defined]
    wrapped.__annotations__ = {p.name: p.annotation for p in [*own, *extra]}
    wrapped.__doc__ = command.__doc__
    wrapped.__name__ = command.__name__
    return wrapped


def check_given(manifest: str | None, output: str | None, config: Path | None) -> None:
    """Raises `typer.BadParameter` where neither a manifest with an output nor a job file was given."""
    if config is None and (manifest is None or output is None):
        raise typer.BadParameter("give a manifest and --output, or a job file with --config")


def settings_of(config: Path | None) -> RunSettings:
    """Those of a job file, or the defaults. Raises `CannotRun` for a file that is no job."""
    from jobs.schema import load_job

    return load_job(config).settings if config else RunSettings()


def _parse_setting(text: str) -> tuple[str, Any]:
    """``video.threads=2`` as a dotted path and a value, which is read as YAML. Raises `typer.BadParameter`."""
    path, _, value = text.partition("=")
    if not value or path.split(".")[0] not in RunSettings.model_fields:
        raise typer.BadParameter(f"--set {text}: expected SETTING=VALUE, where SETTING is a key of a job's `settings`")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as exc:
        raise typer.BadParameter(f"--set {text}: the value is no YAML: {exc}") from exc
    if parsed is None:
        raise typer.BadParameter(f"--set {text}: a flag can't take a setting away; leave it out of the job file")
    return path, parsed


def _flags() -> Iterator[tuple[str, tuple[str, Any]]]:
    """Parameter name -> dotted path of the setting, and the parameter's annotation."""
    for name, field in RunSettings.model_fields.items():
        if (kind := _plain(field.annotation)) is not None:
            yield name, (name, _option(name, kind, field))
    # `preset` alone would read as the model's.
    for flag, name in (("crf", "crf"), ("x264_preset", "preset")):
        field = VideoSettings.model_fields[name]
        yield flag, (f"video.{name}", _option(flag, _plain(field.annotation), field))


def _plain(annotation: Any) -> Any:
    """The annotation without None where one word on a command line can hold it, else None."""
    if isinstance(annotation, types.UnionType) or get_origin(annotation) is Union:
        (annotation,) = (a for a in get_args(annotation) if a is not type(None))
    return annotation if annotation in _SIMPLE or get_origin(annotation) is Literal else None


def _option(name: str, kind: Any, field: FieldInfo) -> Any:
    flag = "--" + name.replace("_", "-")
    if kind is bool:
        flag += "/--no-" + name.replace("_", "-")
    default = "" if field.default is None else f" (default: {field.default})"
    return Annotated[
        kind | None,
        typer.Option(flag, help=f"{field.description or name.replace('_', ' ')}{default}", show_default=False),
    ]

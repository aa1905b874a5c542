"""YAML documents, read strictly: one mapping, plain values, no key twice; and what is wrong with them, in words."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from pipeline.errors import CannotRun

Model = TypeVar("Model", bound=BaseModel)


class _StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader, except that a repeated key is an error; YAML itself would keep the last one silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode):
                if key_node.value in seen and key_node.tag != "tag:yaml.org,2002:merge":
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key_node.value!r} stands here a second time", key_node.start_mark
                    )
                seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def read_document(path: Path, kind: str = "job file") -> dict[str, Any]:
    """Read a YAML file that holds one mapping; errors call it ``kind``.

    Raises:
        CannotRun: the file can't be read, isn't YAML, repeats a key, or holds something else than a mapping.
    """
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), _StrictLoader)  # noqa: S506  (a SafeLoader)
    except FileNotFoundError as exc:
        raise CannotRun(f"{kind} {path}: no such file") from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise CannotRun(f"{kind} {path}: can't be read: {exc}") from exc
    except yaml.MarkedYAMLError as exc:
        place = f"line {exc.problem_mark.line + 1}" if exc.problem_mark else "unknown line"
        raise CannotRun(f"{kind} {path}, {place}: {exc.problem}") from exc
    except yaml.YAMLError as exc:
        raise CannotRun(f"{kind} {path}: {exc}") from exc
    if not isinstance(document, dict):
        raise CannotRun(f"{kind} {path}: expected keys and values, found {type(document).__name__}")
    return document


def parse_document(
    model: type[Model], document: Mapping[str, Any], source: str, *, kind: str = "job", secret: Collection[str] = ()
) -> Model:
    """Check plain values as settings; ``source`` says in errors where they come from.

    Raises CannotRun with a line for every unknown key and every value that isn't allowed. Values under keys in
    ``secret`` are not shown.
    """
    try:
        return model.model_validate(document)
    except ValidationError as exc:
        found = exc.errors(include_url=False, include_context=False)
        lines = [f"  {_explained(model, error, secret)}" for error in found]
        raise CannotRun("\n".join([f"{source}: not a valid {kind}:", *lines])) from None


def _explained(model: type[BaseModel], error: Mapping[str, Any], secret: Collection[str]) -> str:
    location = error["loc"]
    name = ".".join(map(str, location))
    if not location:
        return str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        known = _keys_at(model, location[:-1])
        close = get_close_matches(str(location[-1]), known, n=1)
        return f"{name}: unknown key; " + (f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}")
    if error["type"] == "missing":
        return f"{name}: required, but absent"
    shown = isinstance(error["input"], str | int | float) and not set(secret) & set(location)
    return f"{name}: {error['msg']}" + (f", found {error['input']!r}" if shown else "")


def _keys_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    for name in location:
        if isinstance(name, str):
            model = _model_in(model.model_fields[name].annotation)
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel]:
    """The settings in ``Model``, ``Model | None`` or ``list[Model]``."""
    inner = (annotation, *get_args(annotation))
    return next(kind for kind in inner if isinstance(kind, type) and issubclass(kind, BaseModel))

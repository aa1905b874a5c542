"""YAML documents, read strictly: one mapping, plain values, no key twice."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import CannotRun


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


def read_document(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds one mapping.

    Raises:
        CannotRun: the file can't be read, isn't YAML, repeats a key, or holds something else than a mapping.
    """
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), _StrictLoader)  # noqa: S506  (a SafeLoader)
    except FileNotFoundError as exc:
        raise CannotRun(f"job file {path}: no such file") from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise CannotRun(f"job file {path}: can't be read: {exc}") from exc
    except yaml.MarkedYAMLError as exc:
        place = f"line {exc.problem_mark.line + 1}" if exc.problem_mark else "unknown line"
        raise CannotRun(f"job file {path}, {place}: {exc.problem}") from exc
    except yaml.YAMLError as exc:
        raise CannotRun(f"job file {path}: {exc}") from exc
    if not isinstance(document, dict):
        raise CannotRun(f"job file {path}: expected keys and values, found {type(document).__name__}")
    return document

"""Named values as lines for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def facts_text(facts: Mapping[str, Any]) -> str:
    """A line for each value, and for each entry of one that is a list; of an entry with a ``text``, that."""
    return "\n".join(
        f"{name.replace('_', ' '):<22}{line['text'] if isinstance(line, dict) and 'text' in line else line}"
        for name, value in facts.items()
        for line in (value if isinstance(value, list) else [value])
    )

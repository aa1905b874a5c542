"""Failures that are alike, as one: by kind, stage and what the message says apart from names and numbers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.report.source import Source

_IDS_SHOWN = 12

_PARTICULARS = re.compile(
    r"""'[^']*' | "[^"]*"                    # what is quoted
      | \S*[/\\]\S*                          # paths and URLs
      | \S*[^\s.]\.[A-Za-z0-9]{2,5}\b        # names of files
      | \b[0-9a-f]{12,}\b                    # hashes
      | \d+(?:[.,]\d+)*                      # numbers
    """,
    re.VERBOSE,
)

ADVICE = {
    "input": "The row or one of its files can't be used. A plain rerun tries again once one of them has changed.",
    "model": "The network's numbers are not finite: check the weights, try --precision float32.",
    "infrastructure": "Storage, memory or a machine failed. Mend it; a plain rerun tries again.",
    "quality": "The video did not pass a gate. A plain rerun tries again once row, file or setting has changed.",
    "bug": "A defect of the program: report it with the trace. A plain rerun tries again.",
}


@dataclass
class FailureGroup:
    """Items that failed alike."""

    kind: str
    stage: str
    message: str
    """Of the first of them."""
    hint: str
    """The commonest."""
    trace: str
    count: int = 0
    rows: list[int] = field(default_factory=list)
    """The first ones."""

    def as_dict(self, ids: list[str]) -> dict[str, Any]:
        return {**asdict(self), "ids": [ids[row] for row in self.rows]}


def failure_groups(source: Source) -> list[FailureGroup]:
    """All failures, the commonest class first."""
    groups: dict[tuple[str, str, str], FailureGroup] = {}
    hints: dict[tuple[str, str, str], Counter[str]] = {}
    for row, kind, stage, message, hint, trace in _failed(source):
        key = (kind, stage, _PARTICULARS.sub("*", message))
        group = groups.setdefault(key, FailureGroup(kind, stage, message, hint, trace))
        group.count += 1
        if len(group.rows) < _IDS_SHOWN:
            group.rows.append(row)
        hints.setdefault(key, Counter())[hint] += 1
    for key, group in groups.items():
        group.hint = hints[key].most_common(1)[0][0]
    return sorted(groups.values(), key=lambda group: -group.count)


def _failed(source: Source) -> Iterator[tuple[int, str, str, str, str, str]]:
    names = ("error_kind", "error_stage", "error_message", "error_hint", "error_trace")
    columns = [source.column(name) for name in names]
    for row, status in enumerate(source.column("status")):
        if status == "failed":
            kind, stage, message, hint, trace = (str(column[row] or "") for column in columns)
            yield row, kind or "unknown", stage or "unknown", message, hint, trace

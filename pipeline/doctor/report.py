"""The doctor's answer: a line for each finding, or JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from pipeline.doctor.finding import Finding


def line(finding: Finding) -> str:
    """``fail  gpu        what is wrong -> what to do``; the machine's name stands before what was found on it."""
    where = f"{finding.node}: " if finding.node else ""
    hint = f" -> {finding.hint}" if finding.hint else ""
    return f"{finding.status:<6}{finding.check:<11}{where}{finding.message}{hint}"


def summary(findings: Sequence[Finding]) -> str:
    count = Counter(finding.status for finding in findings)
    return f"{count['ok']} ok, {count['note']} to note, {count['fail']} failed"


def exit_code(findings: Sequence[Finding]) -> int:
    """0 where nothing is in a run's way, else 1."""
    return int(any(finding.status == "fail" for finding in findings))


def as_json(findings: Sequence[Finding]) -> str:
    content = {"ok": exit_code(findings) == 0, "findings": [finding.as_dict() for finding in findings]}
    return json.dumps(content, indent=1)

"""A check's own process: ``python -m pipeline.doctor MODULE:FUNCTION SECONDS``, with a request as JSON on stdin."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from types import FrameType

from pipeline.doctor.finding import Request


def main(function: str, alarm_s: int) -> None:
    """Write each finding as a line of JSON as soon as it is made, for ``alarm_s`` seconds at most."""
    # Left to the system, which needs no interpreter to end the process.
    signal.alarm(alarm_s)
    # What libraries say must not come between the findings.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    signal.signal(signal.SIGTERM, _end)
    request = Request.model_validate_json(sys.stdin.read())
    module, _, name = function.partition(":")
    for finding in getattr(importlib.import_module(module), name)(request):
        answers.write(json.dumps(finding.as_dict()) + "\n")
        answers.flush()


def _end(number: int, frame: FrameType | None) -> None:
    """Leave through every ``finally``, so that what a check has written is taken away."""
    raise SystemExit(1)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

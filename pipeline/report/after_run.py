"""The report at the end of a run, which must not change how the run ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

COMMAND = (sys.executable, "-P", "-m", "pipeline.report")
WITHIN_S = 180.0
"""How long a run waits for its report at most."""


def report_after_run(output: str, storage_options: Mapping[str, Any], *, within_s: float = WITHIN_S) -> str:
    """Write the report of ``output`` in a process of its own; a line that says where it is, or why there is none.

    Raises nothing: whatever a video, a chart or the storage does, Ctrl-C included, ends that process alone.
    """
    otherwise = f"no report was written; `imtalker report {output}` writes one"
    # Options may hold credentials: they go through a pipe, not through arguments that others can read.
    request = json.dumps({"output": output, "storage_options": storage_options}, default=str)
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    try:
        done = subprocess.run(  # noqa: S603  (our own module)
            COMMAND,
            input=request,
            capture_output=True,
            text=True,
            timeout=within_s,
            check=False,
            env={**os.environ, "PYTHONPATH": path},
        )
    except subprocess.TimeoutExpired:
        return f"{otherwise}: it took longer than {within_s:g} s"
    except KeyboardInterrupt:
        return f"{otherwise}: interrupted"
    except OSError as exc:
        return f"{otherwise}: {exc}"
    if done.returncode:
        why = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return f"{otherwise}: {why[-1]}"
    return done.stdout.strip()

"""The program in a process of its own, as its users start it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CLI = [sys.executable, "-m", "cli"]
ROOT = Path(__file__).parent.parent


def imtalker(*arguments: str, timeout_s: float = 200, **environment: str) -> subprocess.CompletedProcess[str]:
    """Let a command end."""
    return subprocess.run(
        [*CLI, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        cwd=ROOT,
        env=os.environ | environment,
        check=False,
    )

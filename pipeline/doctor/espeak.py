"""espeak-ng: only for drawn people who speak, and for trainings on them."""

from __future__ import annotations

import ctypes.util
from collections.abc import Iterator

from pipeline.doctor.finding import Finding, Request, note, ok


def check(request: Request) -> Iterator[Finding]:
    name = ctypes.util.find_library("espeak-ng")
    if name is None:
        yield note("not installed; runs don't need it", "for `imtalker avatars render`: apt-get install espeak-ng")
    else:
        yield ok(f"{name} is installed")

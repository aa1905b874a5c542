"""Checks that go wrong in the ways that drivers and packages do."""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Iterator

from pipeline.doctor.finding import Finding, Request, ok


def fine(request: Request) -> Iterator[Finding]:
    os.write(1, b"a library's greeting\n")
    yield ok("as it should be", answer=42)


def hangs(request: Request) -> Iterator[Finding]:
    """Waits for ever for what never comes, after it has found something."""
    yield ok("before")
    near, _far = socket.socketpair()
    near.recv(1)


def hangs_for_good(request: Request) -> Iterator[Finding]:
    """As a driver does that holds the interpreter: no Python code runs any more, so no handler of a signal does."""
    yield ok("before")
    mutex = ctypes.create_string_buffer(64)
    for _ in range(2):
        ctypes.PyDLL(None).pthread_mutex_lock(mutex)


def crashes(request: Request) -> Iterator[Finding]:
    yield ok("before")
    os.abort()


def raises(request: Request) -> Iterator[Finding]:
    yield ok("before")
    raise ImportError("libGL.so.1: cannot open shared object file")

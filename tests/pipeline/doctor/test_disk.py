"""Room on disks; a full one is a limit on the size of files, which fails writes as a quota does."""

from __future__ import annotations

import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.config import InputLimits, RunSettings
from pipeline.doctor import disk
from pipeline.doctor.finding import Finding, Request


@contextmanager
def full_disk() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def look(output: Path | None = None, **limits: int) -> list[Finding]:
    settings = RunSettings(limits=InputLimits(**limits))
    return list(disk.check(Request(settings=settings, output=None if output is None else str(output))))


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_a_disk_that_takes_no_more_fails_and_nothing_stays(tmp_path: Path) -> None:
    with full_disk():
        temporary, output = look(tmp_path / "not" / "there")
    assert (temporary.status, output.status) == ("fail", "fail")
    assert "1 MiB can't be written" in temporary.message
    assert "TMPDIR" in temporary.hint
    assert list(tmp_path.iterdir()) == []


def test_room_is_compared_with_what_an_input_may_take(tmp_path: Path) -> None:
    (enough,) = look(max_file_bytes=1)
    (little,) = look(max_file_bytes=10**18)
    assert (enough.status, little.status) == ("ok", "note")
    assert "max_file_bytes" in little.hint


def test_an_output_in_a_store_is_not_a_disk() -> None:
    findings = list(disk.check(Request(output="s3://bucket/out")))
    assert [f for f in findings if f.message.startswith("output")] == []

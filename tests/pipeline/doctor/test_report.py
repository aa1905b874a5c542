"""One line for each finding; the exit code follows from failures alone."""

from __future__ import annotations

import json
from dataclasses import replace

from pipeline.doctor.cluster import differences
from pipeline.doctor.finding import Finding, fail, note, ok
from pipeline.doctor.report import as_json, exit_code, line, summary


def named(finding: Finding, check: str, node: str = "") -> Finding:
    return replace(finding, check=check, node=node)


FINE = named(ok("3.11"), "python")
ODD = named(note("none", "none is needed"), "gpu")
BAD = named(fail("full", "make room"), "disk", "worker-2")


def test_lines_say_status_subject_machine_and_what_to_do() -> None:
    assert line(FINE).split(maxsplit=2) == ["ok", "python", "3.11"]
    assert line(BAD).split() == ["fail", "disk", "worker-2:", "full", "->", "make", "room"]
    assert summary([FINE, ODD, BAD, BAD]) == "1 ok, 1 to note, 2 failed"


def test_only_failures_make_the_exit_code() -> None:
    assert exit_code([FINE, ODD]) == 0
    assert exit_code([FINE, ODD, BAD]) == 1


def test_json_holds_all_of_it() -> None:
    content = json.loads(as_json([FINE, BAD]))
    assert content["ok"] is False
    assert [Finding(**finding) for finding in content["findings"]] == [FINE, BAD]


def test_machines_that_differ_are_told() -> None:
    found = [
        named(ok("", torch="2.13.0", av="18.1"), "packages", "a"),
        named(ok("", torch="2.12.1", av="18.1"), "packages", "b"),
        named(ok("", renderer="1" * 64), "weights", "a"),
        named(ok("", renderer="2" * 64), "weights", "b"),
        named(ok("", free_bytes=1), "disk", "a"),
        named(ok("", free_bytes=2), "disk", "b"),
    ]
    packages, weights = differences(found)
    assert (packages.status, weights.status) == ("note", "fail")
    assert "torch differs: 2.12.1 on b; 2.13.0 on a" in packages.message

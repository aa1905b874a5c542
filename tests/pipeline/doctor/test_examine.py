"""A check that hangs, crashes or raises is a finding, and takes no other with it."""

from __future__ import annotations

import threading
import time

import pytest

from pipeline.doctor.examine import Check, examine, examine_all
from pipeline.doctor.finding import Request

BROKEN = "tests.pipeline.doctor.broken_checks"
PATIENT_S = 60.0


def check(name: str, limit_s: float = PATIENT_S) -> Check:
    return Check(name, f"{BROKEN}:{name}", limit_s)


@pytest.mark.parametrize("name", ["hangs", "hangs_for_good"])
def test_a_check_that_hangs_is_cut_off_and_what_it_found_is_kept(name: str) -> None:
    started = time.monotonic()
    found = examine(check(name, 8.0), Request())
    assert time.monotonic() - started < 8 + 2 * 3 + 5
    assert [f.status for f in found] == ["ok", "fail"]
    assert "no answer within 8 s" in found[1].message
    assert {f.check for f in found} == {name}


def test_checks_end_when_nobody_waits_for_them_any_more() -> None:
    found = examine_all([check("fine"), check("hangs")], Request())
    assert next(found).check == "fine"
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPool")]
    found.close()
    for thread in threads:
        thread.join(PATIENT_S / 2)
        assert not thread.is_alive()


def test_a_crash_and_an_exception_are_findings_and_spare_the_others() -> None:
    found = list(examine_all([check("crashes"), check("raises"), check("fine")], Request()))
    assert [(f.check, f.status) for f in found] == [
        ("crashes", "ok"),
        ("crashes", "fail"),
        ("raises", "ok"),
        ("raises", "fail"),
        ("fine", "ok"),
    ]
    assert "SIGABRT" in found[1].message
    assert "broken_checks.py" in found[1].message
    assert "libGL.so.1" in found[3].message
    # What a library wrote on stdout has not come between.
    assert found[4].facts == {"answer": 42}

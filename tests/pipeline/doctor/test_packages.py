"""Versions against floors."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from pipeline.config import RunSettings
from pipeline.doctor import packages
from pipeline.doctor.finding import Finding, Request


def compared(*texts: str) -> list[Finding]:
    return list(packages.compare(map(Requirement, texts)))


def test_a_package_that_is_missing_or_too_old_says_what_to_install() -> None:
    missing, old, fine = compared("no-such-package>=1", "numpy>=999", "pillow>=1")
    assert (missing.status, missing.hint) == ("fail", 'pip install "no-such-package>=1"')
    assert old.status == "fail"
    assert version("numpy") in old.message
    assert old.hint == 'pip install "numpy>=999"'
    assert (fine.status, fine.facts) == ("ok", {"pillow": version("pillow")})


def test_a_package_that_does_not_import_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hollow.py").write_text("raise ImportError('libhollow.so.7: cannot open shared object file')")
    (tmp_path / "hollow-2.0.dist-info").mkdir()
    (tmp_path / "hollow-2.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: hollow\nVersion: 2.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    (broken,) = compared("hollow>=1")
    assert broken.status == "fail"
    assert "libhollow.so.7" in broken.message


def test_all_floors_of_the_project_are_looked_at_and_extras_where_they_are_wanted() -> None:
    (everything,) = packages.check_packages(Request())
    assert everything.status == "ok"
    assert {"torch", "ray", "dlib-bin", "s3fs", "typer"} <= set(everything.facts)
    assert "pytest" not in everything.facts
    _, texts = packages._declared()
    extra = [r.name for r in map(Requirement, texts) if packages._applies(r, ["s3fd"])]
    assert set(extra) - set(everything.facts) == {"face-alignment"}
    assert [r.name for r in map(Requirement, texts) if packages._applies(r, ["landmarks"])][-1] == "mediapipe"
    wanted = Request(settings=RunSettings(detector="s3fd"))
    assert [f.message.split()[0] for f in packages.check_packages(wanted) if f.status == "fail"] in (
        ["face-alignment"],
        [],
    )


def test_this_python_is_in_the_range() -> None:
    (python,) = packages.check_python(Request())
    assert python.status == "ok"

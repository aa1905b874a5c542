"""`imtalker report` as it is called, and a run's own report."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner, Result

import cli
from jobs import start
from pipeline.execute import in_process
from pipeline.report import after_run
from tests.pipeline.report.outputs import failed_row, ok_row, write_output
from tests.runs import demo, write_manifest


def call(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, ["report", *arguments])


@pytest.fixture
def output(tmp_path: Path) -> Path:
    rows = [{"id": "later", "status": "skipped"}, ok_row("plain"), ok_row("odd", flags=["frozen", "black"])]
    rows += [failed_row("bad", message="=cmd()"), *(ok_row(f"i{n}") for n in range(10))]
    return write_output(tmp_path / "out", rows, {"delta": [float(-n) for n in range(14)]})


def test_the_page_is_written_and_named_on_stderr(output: Path) -> None:
    result = call(str(output))
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith(f"report: {output}/report.html (0.")
    assert result.stdout == ""
    assert (output / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_json_holds_what_the_page_says_and_writes_nothing(output: Path) -> None:
    facts = json.loads(call(str(output), "--against", str(output), "--json").stdout)
    assert (facts["glance"]["items"], facts["glance"]["ok"], facts["glance"]["failed"]) == (14, 12, 1)
    assert facts["worst"] == [{"id": "odd", "points": 20.0, "reasons": ["flag frozen", "flag black"]}]
    assert facts["failures"][0]["ids"] == ["bad"]
    assert facts["difference"]["both"] == 14
    assert "delta" in {spread["column"] for spread in facts["distributions"]}
    assert not (output / "report.html").exists()


def test_csv_holds_every_item_worst_first_and_no_formula(output: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(call(str(output), "--csv").stdout)))
    assert len(rows) == 14
    assert [row["id"] for row in rows[:3]] == ["bad", "odd", "plain"]
    assert rows[-1]["id"] == "later"
    assert rows[0]["error_message"] == "'=cmd()"
    assert (rows[1]["points"], rows[1]["reasons"]) == ("20.0", "flag frozen; flag black")
    assert rows[2]["delta"] == "-1.0"


def test_one_form_at_a_time(output: Path) -> None:
    assert call(str(output), "--json", "--csv").exit_code == 2


def test_a_run_ends_with_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "on_ray", lambda context, address: in_process(context))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    rows = [
        {"id": "good", "image": demo("ana.png"), "audio": demo("english.wav")},
        {"id": "bad", "image": str(tmp_path / "broken.png"), "audio": demo("english.wav")},
    ]
    manifest, out = write_manifest(tmp_path, rows), tmp_path / "out"
    run = ("run", manifest, "--output", str(out), "--model", "imtalker-tiny", "--max-seconds", "0.4", "--json")
    ended = CliRunner().invoke(cli.app, run)
    assert ended.exit_code == 3, ended.output
    assert f"report: {out}/report.html (" in ended.stderr
    assert json.loads(ended.stdout)["ok"] == 1
    page = (out / "report.html").read_text()
    assert 'href="videos/good.mp4"' in page
    assert "1 item in crop" in page
    run = json.loads((out / "run.json").read_text())
    noted = {stage["stage"]: stage["workers"] for stage in run["timeline"]["stages"]}
    assert noted == {stage: facts["workers"] for stage, facts in run["summary"]["stages"].items()}
    assert list(noted) == ["crop", "features", "motion", "render"]
    assert "from the records" not in page


def run_without_work(monkeypatch: pytest.MonkeyPatch, *flags: str) -> Result:
    """A run whose items are all done before it starts, one of them failed; what follows it is real."""
    summary = SimpleNamespace(output="out", exit_code=3, as_dict=dict)
    monkeypatch.setattr(start, "load_manifest", lambda *_: None)
    monkeypatch.setattr(start, "prepare", lambda *_: None)
    monkeypatch.setattr(start, "run", lambda *_, **__: summary)
    return CliRunner().invoke(cli.app, ["run", "m.parquet", "--output", "out", "--json", *flags])


def test_a_report_that_fails_does_not_change_how_the_run_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(after_run, "COMMAND", (sys.executable, "-c", "raise MemoryError('all gone')"))
    ended = run_without_work(monkeypatch)
    assert (ended.exit_code, ended.stdout) == (3, "{}\n"), ended.output
    assert "no report was written" in ended.stderr
    assert "MemoryError: all gone" in ended.stderr


def test_a_run_that_is_told_so_writes_no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "report_after_run", lambda *_: pytest.fail("a report was written"))
    assert run_without_work(monkeypatch, "--set", "report=false").exit_code == 3

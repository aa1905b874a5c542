"""Where the page goes, and how the end of a run writes it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import CannotRun
from pipeline.report import after_run
from pipeline.report.after_run import report_after_run
from pipeline.report.report import make_report
from pipeline.report.source import read_source
from pipeline.report.write import write_page
from pipeline.storage import Store
from tests.pipeline.report.outputs import ok_row, write_output
from tests.s3_server import S3Server


def test_the_page_lies_beside_the_videos_with_their_pictures(tmp_path: Path) -> None:
    write_output(tmp_path, [ok_row("a")], videos=True)
    written = write_page(make_report(read_source(str(tmp_path))))
    page = (tmp_path / "report.html").read_text()
    assert written.uri == f"{tmp_path}/report.html"
    assert written.size == len(page.encode())
    assert 'href="videos/a.mp4"' in page
    assert "data:image/jpeg;base64," in page


def test_a_page_elsewhere_links_to_the_videos_from_there(tmp_path: Path) -> None:
    write_output(tmp_path / "the run", [ok_row("a")])
    report = make_report(read_source(str(tmp_path / "the run")))
    (tmp_path / "pages").mkdir()
    write_page(report, tmp_path / "pages" / "p.html")
    assert 'href="../the%20run/videos/a.mp4"' in (tmp_path / "pages" / "p.html").read_text()
    assert not (tmp_path / "the run" / "report.html").exists()
    with pytest.raises(CannotRun, match="No such file"):
        write_page(report, tmp_path / "nowhere" / "p.html")


def test_an_object_store_serves_it_as_a_page(tmp_path: Path, s3: S3Server) -> None:
    bucket = s3.bucket()
    store = Store(f"s3://{bucket}/out", s3.storage_options)
    write_output(tmp_path, [ok_row("a")], videos=True)
    for name in ("results.parquet", "run.json", "videos/a.mp4"):
        store.put_file(tmp_path / name, name)
    line = report_after_run(store.uri, s3.storage_options)
    assert line.startswith(f"report: s3://{bucket}/out/report.html (0.")
    assert line.endswith(", 1 pictures)")
    head = s3.client.head_object(Bucket=bucket, Key="out/report.html")
    assert head["ContentType"].startswith("text/html")


def test_what_goes_wrong_at_the_end_of_a_run_is_a_line_and_no_error(tmp_path: Path) -> None:
    line = report_after_run(str(tmp_path), {})
    assert line.startswith(f"no report was written; `imtalker report {tmp_path}` writes one: ")
    assert "holds neither results nor records" in line


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import time; time.sleep(60)", "it took longer than 0.5 s"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "exit status -11"),
        ("raise MemoryError('all gone')", "MemoryError: all gone"),
    ],
)
def test_a_report_that_hangs_or_crashes_ends_alone(code: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(after_run, "COMMAND", (sys.executable, "-c", code))
    limit = {"within_s": 0.5} if "sleep" in code else {}
    assert report_after_run("out", {}, **limit) == f"no report was written; `imtalker report out` writes one: {why}"


def test_ctrl_c_while_the_report_is_written_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "run", interrupted)
    assert report_after_run("out", {}).endswith(": interrupted")


def test_storage_options_are_no_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def note(command: tuple[str, ...], **options: Any) -> subprocess.CompletedProcess[str]:
        seen.extend((command, options))
        return subprocess.CompletedProcess(command, 0, "report: there\n", "")

    monkeypatch.setattr(subprocess, "run", note)
    assert report_after_run("out", {"s3": {"secret": "hunter2"}}) == "report: there"
    assert "hunter2" not in " ".join(seen[0])
    assert json.loads(seen[1]["input"])["storage_options"] == {"s3": {"secret": "hunter2"}}

"""`doctor` and `explain` as they are called, and settings by their path."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import cli
from jobs.commands import _given
from jobs.flags import _parse_setting


def call(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, list(arguments))


def test_the_doctor_says_a_line_for_each_thing_and_leaves_nothing(tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text("manifest: m.parquet\noutput: new/out\nsettings: {model: imtalker-tiny}\n")
    result = call("doctor", "--config", str(job), "--device", "cpu")
    lines = result.stdout.splitlines()
    assert result.exit_code == 0, result.stdout
    assert {line.split()[0] for line in lines[:-1]} <= {"ok", "note"}
    subjects = dict.fromkeys(line.split()[1] for line in lines[:-1])
    assert list(subjects) == [
        *("python", "packages", "gpu", "encoder", "weights", "storage", "disk", "ray", "espeak-ng")
    ]
    assert lines[-1].endswith("0 failed")
    assert f"{tmp_path}/new/out: written, read, listed and deleted" in result.stdout
    assert list(tmp_path.iterdir()) == [job]


def test_a_doctor_that_finds_something_in_the_way_exits_1(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = call("doctor", "--model", "nobody", "--output", str(tmp_path / "file" / "out"), "--json")
    assert result.exit_code == 1
    findings = json.loads(result.stdout)["findings"]
    assert {f["check"] for f in findings if f["status"] == "fail"} == {"weights", "storage", "disk"}


def test_usage_is_2_and_no_run_is_1(tmp_path: Path) -> None:
    assert call("doctor", "--bogus").exit_code == 2
    assert call("doctor", "--set", "nonsense=1").exit_code == 2
    assert call("doctor", "--set", "max_seconds=null").exit_code == 2
    assert call("explain", str(tmp_path)).exit_code == 2
    assert call("explain", str(tmp_path), "one").exit_code == 1


def test_what_is_not_given_is_left_to_the_job_file() -> None:
    assert _given(output=None, ray_address="auto") == {"ray.address": "auto"}


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("video.threads=2", "video.threads", 2),
        ("weights={renderer: r.ckpt}", "weights", {"renderer": "r.ckpt"}),
        ("storage_options.s3.endpoint_url=http://h:1/?a=b", "storage_options.s3.endpoint_url", "http://h:1/?a=b"),
    ],
)
def test_a_setting_is_given_by_its_path(text: str, path: str, value: object) -> None:
    assert _parse_setting(text) == (path, value)

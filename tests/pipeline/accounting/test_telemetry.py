"""The run's metrics, scraped from a real Ray as Prometheus would."""

from __future__ import annotations

import time
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.accounting.telemetry import NoTelemetry, open_telemetry
from pipeline.machines.cluster import connected
from pipeline.on_ray import on_ray
from tests.pipeline.test_run import AUDIO_ROW
from tests.ray_machines import free_port
from tests.runs import demo, run_manifest, write_manifest

_PATIENCE_S = 90.0


def scrape(port: int) -> dict[tuple[str, str], float]:
    """Values of the run's metrics by name and by the value of their own tags."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found: dict[tuple[str, str], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith("ray_imtalker_"):
                tags = [sample.labels[tag] for tag in ("status", "kind", "stage", "phase") if sample.labels.get(tag)]
                found[sample.name, " ".join(tags)] = sample.value
    return found


def scraped_once(port: int, name: str, tags: str) -> dict[tuple[str, str], float]:
    """Ray's agent offers what a process counts within a reporting interval."""
    deadline = time.monotonic() + _PATIENCE_S
    while (name, tags) not in (found := scrape(port)):
        assert time.monotonic() < deadline, f"no {name} {tags} among {sorted(found)}"
    return found


def test_ray_offers_what_the_run_counted(tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    broken = {"id": "broken", "image": demo("ana.png"), "audio": str(tmp_path / "broken.wav")}
    manifest = write_manifest(tmp_path, [AUDIO_ROW, broken])
    port = free_port()
    fast = {"metrics_report_interval_ms": 500, "agent_register_timeout_ms": 120_000}
    with connected(num_cpus=4, _metrics_export_port=port, _system_config=fast):
        summary = run_manifest(manifest, tmp_path / "out", executor=on_ray)
        # The frames of the last item are the last thing that a run counts.
        found = scraped_once(port, "ray_imtalker_frames_total", "")
    assert found["ray_imtalker_items_total", "ok"] == summary.ok == 1
    assert found["ray_imtalker_items_total", "failed input"] == summary.failed == 1
    assert found["ray_imtalker_frames_total", ""] == summary.frames == 10
    for stage in ("crop", "features", "motion", "render"):
        # The summary gives hundredths.
        counted = found["ray_imtalker_stage_busy_seconds_total", stage]
        assert counted == pytest.approx(summary.stages[stage]["busy_s"], abs=0.01)
    for phase, tasks in (("media", 3), ("videos", 2)):
        assert found["ray_imtalker_tasks_queued_total", phase] == found["ray_imtalker_tasks_done_total", phase] == tasks


def test_without_ray_nothing_is_counted() -> None:
    assert isinstance(open_telemetry(), NoTelemetry)

"""A run that was killed anywhere and started again ends like one that never was."""

from __future__ import annotations

import json
import random
import shutil
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import InputLimits, RunSettings
from pipeline.media.verify import measure_video
from tests.killed_run import IN_PARTS, finished, killed_after, killed_at
from tests.runs import demo, results, write_manifest

ROWS: list[dict[str, Any]] = [
    {"id": "spoken", "image": demo("ana.png"), "audio": demo("english.wav")},
    {"id": "again", "image": demo("ana.png"), "audio": demo("english.wav"), "seed": 5},
    {"id": "driven", "image": demo("ana.png"), "driver": demo("driver.mp4")},
    {"id": "missing", "image": "nowhere.png", "audio": demo("english.wav")},
    {"id": "../climbs", "image": demo("ana.png"), "audio": demo("english.wav")},
]

SAME = ("id", "status", "error_kind", "error_stage", "error_message", "settings", "frames_sha256", "frames", "seed")
"""Columns that a kill does not change; times, attempts and the hashes of files may be others."""


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_manifest(tmp_path_factory.mktemp("manifest"), ROWS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, manifest: str) -> Path:
    """The output of a run that nobody killed."""
    output = tmp_path_factory.mktemp("whole") / "out"
    finished(manifest, output)
    return output


def outcome(output: Path) -> list[tuple[Any, ...]]:
    return sorted(tuple(row[name] for name in SAME) for row in results(output).values())


def files(output: Path) -> set[str]:
    """What lies in an output, but for the index of records, whose files have random names."""
    return {
        str(path.relative_to(output))
        for path in output.rglob("*")
        if path.is_file() and not path.is_relative_to(output / "items" / "_index")
    }


def assert_nothing_half_made(output: Path) -> None:
    """Whatever has its final name is whole."""
    for record in (output / "items").rglob("*.json") if output.exists() else ():
        json.loads(record.read_text())
    for video in (output / "videos").glob("*.mp4") if output.exists() else ():
        assert measure_video(video, InputLimits()).frames == 10


def assert_ends_alike(manifest: str, output: Path, whole: Path, *settings: RunSettings) -> None:
    finished(manifest, output, *settings)
    assert outcome(output) == outcome(whole)
    left = {name for name in files(output) ^ files(whole) if not name.endswith(".part")}
    assert left == set()
    summary = json.loads((output / "run.json").read_text())["summary"]
    assert (summary["ok"], summary["failed"], summary["rows"]) == (3, 2, 5)


def kill_at_every(step: int, first: int, manifest: str, whole: Path, folder: Path, *settings: RunSettings) -> int:
    """Kill fresh runs before every ``step``-th storage call from ``first`` on; returns how many were killed."""
    for killed, call in enumerate(count(first, step)):
        output = folder / str(call)
        if not killed_at(manifest, output, call, *settings):
            return killed
        assert_nothing_half_made(output)
        assert_ends_alike(manifest, output, whole, *settings)
        shutil.rmtree(output)
    raise AssertionError("count has no end")


def test_killed_between_some_storage_calls(manifest: str, whole: Path, tmp_path: Path) -> None:
    assert kill_at_every(31, 7, manifest, whole, tmp_path) >= 3


@pytest.mark.long
def test_killed_between_every_two_storage_calls(manifest: str, whole: Path, tmp_path: Path) -> None:
    assert kill_at_every(1, 0, manifest, whole, tmp_path) >= 60


@pytest.fixture(scope="module")
def whole_in_parts(tmp_path_factory: pytest.TempPathFactory, manifest: str) -> Path:
    """The same, its items rendered in parts."""
    output = tmp_path_factory.mktemp("parts") / "out"
    finished(manifest, output, IN_PARTS)
    assert len(json.loads((output / "items" / "spoken.json").read_text())["video"]["parts"]) == 2
    return output


def test_killed_between_some_storage_calls_over_items_in_parts(
    manifest: str, whole_in_parts: Path, tmp_path: Path
) -> None:
    assert kill_at_every(61, 47, manifest, whole_in_parts, tmp_path, IN_PARTS) >= 1


@pytest.mark.long
def test_killed_between_every_two_storage_calls_over_items_in_parts(
    manifest: str, whole_in_parts: Path, tmp_path: Path
) -> None:
    assert kill_at_every(1, 0, manifest, whole_in_parts, tmp_path, IN_PARTS) >= 80


@pytest.mark.long
def test_killed_at_any_time_again_and_again(manifest: str, whole: Path, tmp_path: Path) -> None:
    """One hundred kills, each start being killed until one gets through."""
    draw, kills = random.Random(0), 0
    for trial in count():
        output = tmp_path / str(trial)
        while kills < 100 and killed_after(manifest, output, draw.uniform(0.0, 3.0)):
            kills += 1
            assert_nothing_half_made(output)
        assert_ends_alike(manifest, output, whole)
        if kills == 100:
            return

"""What this process's environment comes to when Ray is joined or started."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.doctor import ray
from pipeline.doctor.finding import Request


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without Ray's files, and no variable of Ray's."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_USAGE_STATS_ENABLED"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def statuses(address: str | None = None) -> list[str]:
    return [finding.status for finding in ray.check(Request(address=address))]


def test_a_cluster_of_ones_own_is_fine() -> None:
    assert statuses() == ["ok", "ok", "ok"]


def test_a_cluster_that_may_ask_for_a_token_there_is_none_of(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert statuses("10.0.0.1:6379")[1] == "note"
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert statuses("10.0.0.1:6379")[1] == "fail"
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("t" * 32)
    assert statuses("10.0.0.1:6379")[1] == "ok"
    # Ray shows the token to a cluster that is named by its address only when it is told to.
    monkeypatch.delenv("RAY_AUTH_MODE")
    assert statuses("10.0.0.1:6379")[1] == "note"
    assert statuses("auto")[1] == "ok"


def test_no_authentication_and_telemetry_are_notes_and_a_wrong_value_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    assert statuses()[1:] == ["note", "note"]
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "off")
    assert statuses()[2] == "fail"

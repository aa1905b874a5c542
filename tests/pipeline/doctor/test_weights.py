"""Weights in a store on disk, and a hub on loopback that has them or is not there."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from pipeline.config import RunSettings
from pipeline.doctor import weights
from pipeline.doctor.examine import Check, examine
from pipeline.doctor.finding import Finding, Request
from pipeline.weights import parts_of
from pipeline.weights.lock import Lock, locked_file, write_lock
from tests import hub_server

CHECK = Check("weights", "pipeline.doctor.weights:check", 120)


def look(**changes: object) -> list[Finding]:
    return list(weights.check(Request.model_validate(changes)))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model store with every file of the published model, as a pull leaves them."""
    monkeypatch.setenv("IMTALKER_MODELS", str(tmp_path))
    lock = Lock()
    for part in parts_of("imtalker"):
        for names in part.files:
            path = part.folder(tmp_path) / names[0]
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(names[0].encode() * 1000)
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            lock = lock.adding(part.repository, path.name, locked_file(path, "c" * 40, sha256))
    write_lock(tmp_path, lock)
    return tmp_path


def renderer(store: Path) -> Path:
    return parts_of("imtalker")[0].path(store)


def test_files_that_are_as_they_were_fetched_are_ok_and_named_by_their_hashes(store: Path) -> None:
    (found,) = look()
    assert found.status == "ok"
    assert found.facts["renderer"] == hashlib.sha256(renderer(store).read_bytes()).hexdigest()
    assert set(found.facts) == {"renderer", "generator", "wav2vec2", "audio_encoder"}


def test_a_wrong_hash_fails_though_size_and_time_are_right(store: Path) -> None:
    path = renderer(store)
    stat, content = path.stat(), bytearray(path.read_bytes())
    content[500] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    (found,) = look()
    assert found.status == "fail"
    assert str(path) in found.message
    assert "imtalker models pull imtalker" in found.hint


def test_a_file_that_nobody_fetched_is_a_note(store: Path) -> None:
    (store / "models.lock.json").unlink()
    found = look()
    assert [f.status for f in found] == ["note"] * 5 + ["ok"]


def test_what_is_missing_fails_where_the_run_fetches_nothing(store: Path) -> None:
    renderer(store).unlink()
    (node,) = look(on_node=True)
    (offline,) = look(settings=RunSettings(download=False))
    assert (node.status, offline.status) == ("fail", "fail")
    assert "IMTALKER_MODELS" in node.hint
    assert "renderer.ckpt" in offline.message


def test_what_is_missing_is_a_note_where_the_hub_has_it(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    renderer(store).unlink()
    with hub_server.serve() as hub:
        hub.commit(parts_of("imtalker")[0].repository, {"renderer.ckpt": b"new"})
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        (there,) = examine(CHECK, Request())
        assert [r for r in hub.transfers() if "renderer" in r.path] == []
    (gone,) = examine(CHECK, Request())
    assert (there.status, gone.status) == ("note", "fail")
    assert "can't fetch renderer.ckpt" in gone.message
    assert not renderer(store).exists()


def test_weights_that_are_named_must_be_there(store: Path) -> None:
    (found,) = look(settings=RunSettings(weights={"renderer": "/nowhere/renderer.safetensors"}))
    assert found.status == "fail"
    assert "/nowhere/renderer.safetensors" in found.message


def test_stand_ins_are_a_note_and_an_unknown_model_fails() -> None:
    (stand_in,) = look(settings=RunSettings(model="imtalker-tiny"))
    (unknown,) = look(settings=RunSettings(model="nobody"))
    assert (stand_in.status, unknown.status) == ("note", "fail")

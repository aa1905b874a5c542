"""A cluster of two machines, both on this one, that asks for a token; they differ as machines do."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.doctor.examine import Check, examine
from pipeline.doctor.finding import Finding, Request
from pipeline.weights import parts_of
from pipeline.weights.lock import Lock, locked_file, write_lock
from tests.commands import imtalker
from tests.ray_machines import free_port, ray_machine

pytestmark = pytest.mark.long

TOKEN = "0123456789abcdef0123456789abcdef"  # noqa: S105  (of a cluster that lives as long as these tests)


def asking(models: Path) -> dict[str, str]:
    """The environment of a process with that model store, in a cluster that asks for the token."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "IMTALKER_MODELS": str(models)}


def model_store(folder: Path, content: bytes) -> Path:
    """A store as a pull leaves it, all files with the same content."""
    lock = Lock()
    for part in parts_of("imtalker"):
        for names in part.files:
            path = part.folder(folder) / names[0]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            lock = lock.adding(
                part.repository, path.name, locked_file(path, "c" * 40, hashlib.sha256(content).hexdigest())
            )
    write_lock(folder, lock)
    return folder


@dataclass(frozen=True)
class Cluster:
    address: str
    models: Path
    """The head's model store."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A head with the right weights, and a worker with others and with a GPU that exists by name only."""
    folder = tmp_path_factory.mktemp("models")
    right, other = model_store(folder / "right", b"right"), model_store(folder / "other", b"other")
    port, small = free_port(), ["--num-cpus=2", "--object-store-memory=80000000"]
    with ExitStack() as stack:
        # A socket's path is at most 107 characters long, and pytest's own folders are longer than Ray leaves room for.
        temporary = stack.enter_context(tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp"))
        head = ["--head", f"--port={port}", f"--temp-dir={temporary}", "--include-dashboard=false", *small]
        stack.enter_context(ray_machine(*head, f"--ray-client-server-port={free_port()}", **asking(right)))
        joining = [f"--address=127.0.0.1:{port}", "--num-gpus=1", *small]
        stack.enter_context(ray_machine(*joining, **asking(other)))
        yield Cluster(f"127.0.0.1:{port}", right)


@pytest.fixture(scope="module")
def examined(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, list[Finding]]:
    """The exit code and the findings of the command."""
    output = tmp_path_factory.mktemp("outputs") / "new"
    process = imtalker(
        *("doctor", "--address", cluster.address, "--output", str(output), "--json"),
        timeout_s=280,
        **asking(cluster.models),
    )
    assert process.stdout, process.stderr
    assert not output.exists()
    return process.returncode, [Finding(**finding) for finding in json.loads(process.stdout)["findings"]]


def test_every_machine_is_looked_at(examined: tuple[int, list[Finding]]) -> None:
    code, findings = examined
    assert code == 1
    nodes = {f.node for f in findings if f.node}
    assert len(nodes) == 2, findings
    for node in nodes:
        looked_at = {f.check for f in findings if f.node == node}
        assert looked_at == {"python", "packages", "gpu", "encoder", "weights", "storage", "disk"}
    (joined,) = [f for f in findings if "2 machines" in f.message]
    assert (joined.status, "4 CPUs, 1 GPUs" in joined.message) == ("ok", True)


def test_a_gpu_that_only_ray_knows_and_weights_that_differ_fail(examined: tuple[int, list[Finding]]) -> None:
    _, findings = examined
    failed = [f for f in findings if f.status == "fail" and f.check != "disk"]
    assert sorted({f.check for f in failed}) == ["cluster", "gpu"]
    (gpu,) = [f for f in failed if f.check == "gpu"]
    assert "Ray offers 1 GPUs" in gpu.message
    differing = {f.message.split()[1] for f in failed if f.check == "cluster"}
    # The audio encoder has no file of its own: its hash is made of those it may be in.
    assert differing == {"renderer", "generator", "wav2vec2", "audio_encoder"}


def test_without_its_token_a_cluster_is_not_joined(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    check, request = Check("cluster", "pipeline.doctor.cluster:check", 60), Request(address=cluster.address)
    (without,) = examine(check, request)
    assert without.status == "fail" and "RAY_AUTH_MODE" not in without.message
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text(TOKEN)
    (unshown,) = examine(check, request)
    assert unshown.status == "fail" and "export RAY_AUTH_MODE=token" in unshown.message

"""The model store, with the real huggingface_hub client against a hub on loopback."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from imtalker.presets import PRESETS
from pipeline import weights
from pipeline.errors import CannotRun
from tests.hub_server import Hub, serve

IMTALKER = "cbsjtu01/IMTalker"
WAV2VEC2 = "facebook/wav2vec2-base-960h"
MIB = 1 << 20

# Runs one function of the store in a process of its own, for the client reads its environment when it is imported.
_CALL = """
import json, sys
from pathlib import Path
from pipeline import weights
from pipeline.errors import CannotRun
name, arguments = sys.argv[1], json.loads(sys.argv[2])
try:
    result = getattr(weights, name)(*arguments["args"], **arguments["kwargs"])
except CannotRun as error:
    sys.exit(f"CannotRun: {error}")
print(json.dumps(result, default=lambda value: str(value) if isinstance(value, Path) else vars(value)))
"""


def content(label: str, size: int) -> bytes:
    return random.Random(label).randbytes(size)


RENDERER = content("renderer", 24 * MIB)  # the client writes in pieces of 10 MiB
GENERATOR = content("generator", MIB)
ENCODER = content("encoder", MIB)
PREPROCESSOR = b'{"do_normalize": true}'


class Store:
    """A store folder and the environment that a user of it has."""

    def __init__(self, root: Path, hub: Hub) -> None:
        self.root = root / "models"
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("HF_", "IMTALKER_"))},
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(root / "hf"),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "IMTALKER_MODELS": str(self.root),
        }

    def start(
        self, name: str, *args: object, env: Mapping[str, str] | None = None, **kwargs: object
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", _CALL, name, json.dumps({"args": args, "kwargs": kwargs})],
            env={**self.environment, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def call(self, name: str, *args: object, env: Mapping[str, str] | None = None, **kwargs: object) -> object:
        """What the function returns, or the text of its CannotRun."""
        process = self.start(name, *args, env=env, **kwargs)
        output, errors = process.communicate(timeout=60)
        if process.returncode == 0:
            return json.loads(output)
        assert errors.splitlines()[-1].startswith("CannotRun: "), errors
        return errors.splitlines()[-1].removeprefix("CannotRun: ")

    def file(self, repository: str, name: str) -> Path:
        return self.root / repository.replace("/", "--") / name

    def lock(self) -> dict[str, dict[str, dict[str, object]]]:
        lock = json.loads((self.root / "models.lock.json").read_text())
        assert lock["version"] == 1
        return lock["repositories"]


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve() as hub:
        hub.commit(IMTALKER, {"renderer.ckpt": RENDERER, "generator.ckpt": GENERATOR, "config.yaml": b"a: 1"})
        hub.commit(
            WAV2VEC2,
            {
                "config.json": b"{}",
                "preprocessor_config.json": PREPROCESSOR,
                "model.safetensors": ENCODER,
                "pytorch_model.bin": content("bin", MIB),
            },
        )
        yield hub


@pytest.fixture
def store(tmp_path: Path, hub: Hub) -> Store:
    return Store(tmp_path, hub)


def test_a_pull_brings_every_file_and_records_commit_size_and_checksum(store: Store, hub: Hub) -> None:
    rows = store.call("pull", "imtalker")
    assert isinstance(rows, list)
    assert {row["status"] for row in rows} == {"ready"}
    assert [row["file"] for row in rows] == [
        "renderer.ckpt",
        "generator.ckpt",
        "config.json",
        "preprocessor_config.json",
        "model.safetensors",
    ]
    assert store.file(IMTALKER, "renderer.ckpt").read_bytes() == RENDERER
    assert not store.file(WAV2VEC2, "pytorch_model.bin").exists()
    assert not store.file(IMTALKER, "config.yaml").exists()
    for repository, names in store.lock().items():
        for name, locked in names.items():
            expected = hub.files[repository, hub.branches[repository, "main"]][name]
            assert locked["commit"] == hub.branches[repository, "main"]
            assert (locked["size"], locked["sha256"]) == (len(expected), hashlib.sha256(expected).hexdigest())
    # One commit for all files of a repository, even if the branch moves during a pull.
    mains = [r.path for r in hub.requests if r.method == "HEAD" and "/resolve/main/" in r.path]
    assert mains == [f"/{IMTALKER}/resolve/main/renderer.ckpt", f"/{WAV2VEC2}/resolve/main/config.json"]


def test_a_second_pull_asks_the_hub_for_nothing(store: Store, hub: Hub) -> None:
    store.call("pull", "imtalker")
    hub.requests.clear()
    hub.commit(IMTALKER, {"renderer.ckpt": GENERATOR, "generator.ckpt": RENDERER})
    store.call("pull", "imtalker")
    assert hub.requests == []
    assert store.file(IMTALKER, "renderer.ckpt").read_bytes() == RENDERER


def test_a_revision_is_followed_and_moves_only_what_changed(store: Store, hub: Hub) -> None:
    old = hub.branches[IMTALKER, "main"]
    new = hub.commit(IMTALKER, {"renderer.ckpt": RENDERER, "generator.ckpt": ENCODER})
    store.call("pull", "imtalker", revisions={IMTALKER: old})
    assert store.file(IMTALKER, "generator.ckpt").read_bytes() == GENERATOR
    assert {locked["commit"] for locked in store.lock()[IMTALKER].values()} == {old}
    hub.requests.clear()
    store.call("pull", "imtalker", revisions={IMTALKER: "main"})
    assert store.file(IMTALKER, "generator.ckpt").read_bytes() == ENCODER
    assert {locked["commit"] for locked in store.lock()[IMTALKER].values()} == {new}
    assert not [r for r in hub.transfers() if "renderer" in r.path]


def test_a_lock_alone_brings_the_same_commit_on_another_machine(store: Store, hub: Hub, tmp_path: Path) -> None:
    store.call("pull", "imtalker")
    hub.commit(IMTALKER, {"renderer.ckpt": GENERATOR, "generator.ckpt": RENDERER})
    other = Store(tmp_path / "other", hub)
    other.root.mkdir(parents=True)
    shutil.copy(store.root / "models.lock.json", other.root)
    other.call("pull", "imtalker")
    assert other.file(IMTALKER, "renderer.ckpt").read_bytes() == RENDERER


def test_a_cut_connection_is_resumed_with_a_range(store: Store, hub: Hub) -> None:
    hub.cut_after = 13 * MIB
    store.call("pull", "imtalker")
    assert store.file(IMTALKER, "renderer.ckpt").read_bytes() == RENDERER
    assert f"bytes={10 * MIB}-" in [r.range for r in hub.transfers()]


def test_a_killed_pull_goes_on_where_it_stopped(store: Store, hub: Hub) -> None:
    hub.stall_after = 23 * MIB
    process = store.start("pull", "imtalker")
    assert hub.stalled.wait(60)
    partials = store.file(IMTALKER, "renderer.ckpt").parent
    while not any(path.stat().st_size for path in partials.glob(".renderer.ckpt.*.part")):
        assert process.poll() is None
        hub.released.wait(0.01)
    process.kill()
    process.communicate()
    (partial,) = partials.glob(".renderer.ckpt.*.part")
    arrived = partial.stat().st_size
    assert not store.file(IMTALKER, "renderer.ckpt").exists()
    hub.requests.clear()
    store.call("pull", "imtalker")
    assert store.file(IMTALKER, "renderer.ckpt").read_bytes() == RENDERER
    first = next(r for r in hub.transfers() if r.path.startswith("/store/"))
    assert first.range == f"bytes={arrived}-"
    assert not partial.exists()


def test_content_that_is_not_the_hubs_is_thrown_away(store: Store, hub: Hub) -> None:
    hub.tampered = True
    message = store.call("pull", "imtalker")
    assert isinstance(message, str)
    assert "renderer.ckpt" in message
    assert hashlib.sha256(RENDERER).hexdigest() in message
    assert not store.file(IMTALKER, "renderer.ckpt").exists()
    hub.tampered = False
    store.call("pull", "imtalker")
    assert store.file(IMTALKER, "renderer.ckpt").read_bytes() == RENDERER


def test_verify_names_the_file_that_was_corrupted(store: Store, hub: Hub) -> None:
    store.call("pull", "imtalker")
    file = store.file(IMTALKER, "generator.ckpt")
    stat = file.stat()
    file.write_bytes(bytes([GENERATOR[0] ^ 1]) + GENERATOR[1:])
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    corrupt = {row.file: row.status for row in weights.verify("imtalker", store=store.root)}
    assert corrupt.pop("generator.ckpt") == "corrupt"
    assert set(corrupt.values()) == {"ready"}
    store.call("pull", "imtalker")  # same size and time: only `verify` reads
    os.utime(file)
    store.call("pull", "imtalker")
    assert file.read_bytes() == GENERATOR


def test_the_older_encoder_file_is_taken_where_there_is_no_other(store: Store, hub: Hub) -> None:
    store.call("pull", "imtalker")
    old = {"config.json": b"{}", "preprocessor_config.json": PREPROCESSOR, "pytorch_model.bin": GENERATOR}
    commit = hub.commit(WAV2VEC2, old, branch="old")
    store.call("pull", "imtalker", revisions={WAV2VEC2: "old"})
    assert store.file(WAV2VEC2, "pytorch_model.bin").read_bytes() == GENERATOR
    assert not store.file(WAV2VEC2, "model.safetensors").exists()
    assert store.lock()[WAV2VEC2].keys() == old.keys()
    assert {locked["commit"] for locked in store.lock()[WAV2VEC2].values()} == {commit}


def test_offline_with_nothing_there_is_one_clear_line(store: Store, hub: Hub) -> None:
    message = store.call("ensure", "imtalker", {}, download=True, env={"HF_HUB_OFFLINE": "1"})
    assert isinstance(message, str)
    assert "renderer.ckpt" in message
    assert "HF_HUB_OFFLINE" in message
    assert hub.requests == []


def test_offline_with_everything_there_runs(store: Store, hub: Hub) -> None:
    store.call("pull", "imtalker")
    files = store.call("ensure", "imtalker", {}, download=True, env={"HF_HUB_OFFLINE": "1"})
    assert files == {
        "renderer": str(store.file(IMTALKER, "renderer.ckpt")),
        "generator": str(store.file(IMTALKER, "generator.ckpt")),
        "wav2vec2": str(store.root / "facebook--wav2vec2-base-960h"),
    }


def test_ensure_fetches_only_the_parts_that_are_not_named(store: Store, hub: Hub, tmp_path: Path) -> None:
    own = tmp_path / "own.safetensors"
    own.write_bytes(b"")
    files = store.call("ensure", "imtalker", {"renderer": str(own)}, download=True)
    assert isinstance(files, dict)
    assert files["renderer"] == str(own)
    assert not store.file(IMTALKER, "renderer.ckpt").exists()
    assert store.file(IMTALKER, "generator.ckpt").read_bytes() == GENERATOR


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda hub: hub.files.clear(), "no such repository"),
        (lambda hub: hub.commit(IMTALKER, {"other": b""}), "renderer.ckpt"),
    ],
)
def test_a_hub_without_the_files_is_one_clear_line(store: Store, hub: Hub, change: object, expected: str) -> None:
    change(hub)  # type: ignore[operator]
    message = store.call("pull", "imtalker")
    assert isinstance(message, str)
    assert IMTALKER in message
    assert expected in message


def test_a_hub_that_is_not_there_is_one_clear_line(store: Store) -> None:
    message = store.call("pull", "imtalker", env={"HF_ENDPOINT": "http://127.0.0.1:9"})
    assert isinstance(message, str)
    assert IMTALKER in message


def test_a_token_stays_with_the_hub(store: Store, hub: Hub) -> None:
    store.call("pull", "imtalker", env={"HF_TOKEN": "hf_secret"})
    resolved = [r for r in hub.requests if "/resolve/" in r.path]
    stored = [r for r in hub.requests if r.path.startswith("/store/")]
    assert {r.authorization for r in resolved} == {"Bearer hf_secret"}
    assert {r.authorization for r in stored} == {None}


def test_a_revision_for_a_repository_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CannotRun, match="some/thing"):
        weights.pull("imtalker", revisions={"some/thing": "main"}, store=tmp_path)


def test_missing_weights_name_the_files_and_the_command(tmp_path: Path) -> None:
    with pytest.raises(CannotRun) as caught:
        weights.locate("imtalker", {}, store=tmp_path / "none")
    message = str(caught.value)
    assert "\n" not in message
    assert "renderer.ckpt, generator.ckpt, config.json" in message
    assert "imtalker models pull imtalker" in message
    assert not (tmp_path / "none").exists()
    with pytest.raises(CannotRun, match=r"renderer\.ckpt"):
        weights.ensure("imtalker", {}, download=False, store=tmp_path / "none")


def test_named_weights_must_be_there_and_be_known(tmp_path: Path) -> None:
    with pytest.raises(CannotRun, match=r"renderer.*nowhere\.ckpt"):
        weights.locate("imtalker", {"renderer": str(tmp_path / "nowhere.ckpt")}, store=tmp_path)
    with pytest.raises(CannotRun, match="vocoder"):
        weights.locate("imtalker", {"vocoder": str(tmp_path)}, store=tmp_path)
    with pytest.raises(CannotRun, match="imtalker-large"):
        weights.locate("imtalker-large", {}, store=tmp_path)


def test_a_generator_of_ones_own_needs_no_encoder_of_the_store(tmp_path: Path) -> None:
    for name in ("r.safetensors", "g.safetensors", "g.ckpt"):
        (tmp_path / name).write_bytes(b"")
    named = {"renderer": str(tmp_path / "r.safetensors"), "generator": str(tmp_path / "g.safetensors")}
    empty = tmp_path / "store"
    assert weights.locate("imtalker", named, store=empty).wav2vec2 is None
    named["generator"] = str(tmp_path / "g.ckpt")
    assert weights.locate("imtalker", named, store=empty).wav2vec2 is None
    encoder = empty / "facebook--wav2vec2-base-960h"
    encoder.mkdir(parents=True)
    for name in ("config.json", "preprocessor_config.json", "pytorch_model.bin"):
        (encoder / name).write_bytes(b"")
    assert weights.locate("imtalker", named, store=empty).wav2vec2 == encoder


def test_seeded_presets_need_no_files(tmp_path: Path) -> None:
    assert weights.ensure("imtalker-tiny", {}, download=True, store=tmp_path) == weights.ModelFiles()
    assert weights.sha256_of(weights.ModelFiles(), store=tmp_path) == {}
    with pytest.raises(CannotRun, match="imtalker-tiny makes its own weights"):
        weights.locate("imtalker-tiny", {"renderer": str(tmp_path)}, store=tmp_path)
    assert [row.status for row in weights.verify("imtalker-tiny", store=tmp_path)] == ["built in"]


def test_the_list_has_every_preset_with_source_licence_and_state(tmp_path: Path) -> None:
    folder = tmp_path / "cbsjtu01--IMTalker"
    folder.mkdir()
    (folder / "renderer.ckpt").write_bytes(b"12345")
    rows = {(row.preset, row.file): row for row in weights.list_models(store=tmp_path)}
    assert {preset for preset, _ in rows} == set(PRESETS)
    placed = rows["imtalker", "renderer.ckpt"]
    assert (placed.source, placed.status, placed.size) == (IMTALKER, "unverified", 5)
    missing = rows["imtalker", "model.safetensors or pytorch_model.bin"]
    assert (missing.source, missing.status, missing.licence) == (WAV2VEC2, "missing", "Apache-2.0")


def test_hashes_are_those_of_the_files(store: Store) -> None:
    store.call("pull", "imtalker")
    files = weights.locate("imtalker", {}, store=store.root)
    expected = {"renderer": RENDERER, "generator": GENERATOR, "wav2vec2": ENCODER}
    expected_hashes = {name: hashlib.sha256(data).hexdigest() for name, data in expected.items()}
    assert weights.sha256_of(files, store=store.root) == expected_hashes
    assert files.renderer is not None
    files.renderer.write_bytes(b"other")
    assert weights.sha256_of(files, store=store.root)["renderer"] == hashlib.sha256(b"other").hexdigest()


def test_a_lock_that_is_not_one_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "models.lock.json").write_text('{"version": 7}')
    with pytest.raises(CannotRun, match=r"models\.lock\.json.*delete it"):
        weights.list_models(store=tmp_path)


def test_revisions_are_read_from_text() -> None:
    assert weights.parse_revisions([f"{IMTALKER}@v1", f"{WAV2VEC2}@abc"]) == {IMTALKER: "v1", WAV2VEC2: "abc"}
    with pytest.raises(CannotRun, match="REPOSITORY@REVISION"):
        weights.parse_revisions(["v1"])


def test_a_conversion_that_is_not_possible_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "r.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(CannotRun, match=r"r\.ckpt"):
        weights.convert(tmp_path / "r.ckpt", tmp_path / "r.safetensors")
    with pytest.raises(CannotRun, match=r"\.safetensors"):
        weights.convert(tmp_path / "r.ckpt", tmp_path / "r.bin")


def test_the_store_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("IMTALKER_MODELS", str(tmp_path / "own"))
    assert weights.default_store() == tmp_path / "own"
    monkeypatch.delenv("IMTALKER_MODELS")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert weights.default_store() == tmp_path / "imtalker" / "models"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert weights.default_store() == Path.home() / ".cache" / "imtalker" / "models"
    assert list(tmp_path.iterdir()) == []

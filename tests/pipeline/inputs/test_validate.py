"""Validation finds what a run would fail on, and says how much video there is to make."""

from __future__ import annotations

import json
import threading
import wave
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from manifests.errors import ManifestError
from pipeline.config import RetrySettings, RunSettings
from pipeline.inputs.validate import validate_manifest


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """A portrait, two seconds of sound, one second of video, pose, and one broken file of each kind."""
    Image.new("RGB", (64, 64), "grey").save(tmp_path / "a.png")
    with wave.open(str(tmp_path / "b.wav"), "wb") as sound:
        sound.setparams((1, 2, 16_000, 0, "NONE", ""))
        sound.writeframes(bytes(2 * 16_000 * 2))
    with av.open(str(tmp_path / "d.mp4"), "w") as video:
        stream = video.add_stream("libx264", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for _ in range(25):
            video.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        video.mux(stream.encode())
    np.save(tmp_path / "p.npy", np.zeros((50, 3), np.float32))
    np.save(tmp_path / "bad.npy", np.zeros((50, 2), np.float32))
    (tmp_path / "bad.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    (tmp_path / "bad.wav").write_text("#EXTM3U\nhttp://127.0.0.1/x.wav\n")
    return tmp_path


def write(folder: Path, *rows: dict[str, object]) -> str:
    names = dict.fromkeys(name for row in rows for name in row)
    table = pa.table({name: [row.get(name) for row in rows] for name in names})
    pq.write_table(table, folder / "m.parquet")
    return str(folder / "m.parquet")


def test_a_good_manifest_states_its_length_by_mode(media: Path) -> None:
    uri = write(
        media,
        {"image": "a.png", "audio": "b.wav"},
        {"image": "a.png", "audio": "b.wav", "pose": "p.npy"},
        {"image": "a.png", "driver": "d.mp4"},
        {"image": "a.png", "audio": "b.wav", "driver": "d.mp4"},
    )
    report = validate_manifest(uri, RunSettings(motion_from="driver"))
    assert report.problems == ()
    assert report.ok
    assert report.inputs == {"image": 1, "audio": 1, "pose": 1, "driver": 1}
    assert report.seconds == pytest.approx({"audio": 4.0, "driver": 2.0})
    assert report.rows_without_length == 0
    cut = validate_manifest(uri, RunSettings(motion_from="driver", max_seconds=1.5))
    assert cut.seconds == pytest.approx({"audio": 3.0, "driver": 2.0})
    assert "2.0 s driver-driven" in report.text()


def test_every_broken_input_is_a_problem_of_its_row_alone(media: Path) -> None:
    uri = write(
        media,
        {"image": "a.png", "audio": "b.wav"},
        {"image": "bad.png", "audio": "b.wav"},
        {"image": "a.png", "audio": "bad.wav"},
        {"image": "a.png", "audio": "b.wav", "pose": "bad.npy"},
        {"image": "a.png", "audio": "absent.wav"},
        {"image": "a.png", "audio": "d.mp4"},
        {"image": "a.png", "driver": "b.wav"},
        {"image": "a.png", "audio": "b.wav", "seed": "x"},
        {"image": "a.png", "audio": "b.wav", "seed": "7"},
    )
    report = validate_manifest(uri, RunSettings())
    assert not report.ok
    assert [(problem.row, problem.column) for problem in report.problems] == [
        (1, "image"),
        (2, "audio"),
        (3, "pose"),
        (4, "audio"),
        (5, "audio"),
        (6, "driver"),
        (7, "seed"),
    ]
    assert all(problem.hint for problem in report.problems)
    assert report.seconds == pytest.approx({"audio": 4.0})
    assert "expected sound, found none" in report.problems[4].message
    assert "expected moving pictures, found none" in report.problems[5].message
    as_json = json.loads(json.dumps(report.as_dict()))
    assert as_json["ok"] is False
    assert len(as_json["problems"]) == 7
    assert "and 6 more problems" in report.text(limit=1)


def test_without_probing_the_storage_alone_is_asked(media: Path) -> None:
    uri = write(
        media,
        {"image": "bad.png", "audio": "b.wav"},
        {"image": "a.png", "audio": "absent.wav"},
        {"image": str(media), "audio": "b.wav"},
        {"image": "nosuch://x/a.png", "audio": "b.wav"},
    )
    report = validate_manifest(uri, RunSettings(), probe_media=False)
    assert [(problem.row, problem.column) for problem in report.problems] == [(1, "audio"), (2, "image"), (3, "image")]
    assert report.problems[0].message == f"{media}/absent.wav: does not exist"
    assert "found a folder" in report.problems[1].message
    assert "Protocol not known: nosuch" in report.problems[2].message
    assert report.seconds == {}


class _Counting(SimpleHTTPRequestHandler):
    asked: list[str]

    def log_message(self, format: str, *args: object) -> None:
        self.asked.append(self.path)


@pytest.fixture
def server(media: Path) -> Iterator[tuple[str, list[str]]]:
    _Counting.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Counting, directory=str(media))) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", _Counting.asked
        running.shutdown()
        thread.join()


@pytest.mark.parametrize("probe_media", [True, False])
def test_every_distinct_input_is_asked_for_once(media: Path, server: tuple[str, list[str]], probe_media: bool) -> None:
    address, asked = server
    one = {"image": f"{address}/a.png", "audio": f"{address}/b.wav"}
    write(media, *[{**one, "seed": seed} for seed in range(20)], {**one, "audio": f"{address}/absent.wav", "seed": 1})
    report = validate_manifest(f"{media}/m.parquet", RunSettings(), probe_media=probe_media)
    assert [(problem.row, problem.column) for problem in report.problems] == [(20, "audio")]
    assert set(asked) == {"/a.png", "/b.wav", "/absent.wav"}
    assert asked.count("/a.png") <= 2  # fsspec asks for the size before it reads
    assert asked.count("/b.wav") <= 2


def test_an_unusable_manifest_is_refused_as_a_whole(media: Path) -> None:
    uri = write(media, {"image": "a.png", "audio": "b.wav", "status": "mine"})
    with pytest.raises(ManifestError, match="names of results columns: status"):
        validate_manifest(uri, RunSettings(), results_columns=("status",))


@pytest.mark.parametrize("probe_media", [False, True])
def test_a_problem_does_not_tell_the_signature_of_a_url(media: Path, probe_media: bool) -> None:
    address = "http://127.0.0.1:9/b.wav"
    uri = write(media, {"image": "a.png", "audio": f"{address}?X-Signature=secret"})
    report = validate_manifest(uri, RunSettings(retries=RetrySettings(attempts=1)), probe_media=probe_media)
    (problem,) = report.problems
    assert address in problem.message
    assert "secret" not in report.text() + json.dumps(report.as_dict())

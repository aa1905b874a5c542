"""A manifest is read whole, or refused with one clear line."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.errors import ManifestError
from manifests.reader import read_manifest


def write(path: Path, **columns: object) -> str:
    pq.write_table(pa.table(columns), path)
    return str(path)


def test_user_columns_keep_names_types_and_order(tmp_path: Path) -> None:
    own = pa.table(
        {
            "Speaker ID": pa.array([7, None], pa.int16()),
            "when": pa.array([datetime.datetime(2024, 1, 2), None], pa.timestamp("ns")),
            "tags": pa.array([["x"], []], pa.list_(pa.string())),
            "price": pa.array([None, None], pa.decimal128(9, 2)),
        }
    )
    table = own.append_column("image", pa.array(["a.png"] * 2)).append_column("audio", pa.array(["b.wav", "c.wav"]))
    pq.write_table(table, tmp_path / "m.parquet")
    manifest = read_manifest(str(tmp_path / "m.parquet"))
    assert manifest.extra.equals(own)
    assert manifest.rows[0].extra["tags"] == ["x"]
    assert manifest.rows[1].extra["Speaker ID"] is None
    assert [row.index for row in manifest.rows] == [0, 1]


def test_pandas_spoils_no_column(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "image": pd.Categorical(["a.png", "a.png", "b.png"]),
            "audio": ["x.wav", "y.wav", None],
            "driver": [None, None, "d.mp4"],
            "seed": [1, None, 3],
            "crop": [True, None, False],
        }
    )
    frame.to_parquet(tmp_path / "m.parquet")
    rows = read_manifest(str(tmp_path / "m.parquet")).rows
    assert [row.problem for row in rows] == [None] * 3
    assert [row.seed for row in rows] == [1, None, 3]
    assert [row.crop for row in rows] == [True, None, False]
    assert [row.audio is None for row in rows] == [False, False, True]


def test_seeds_and_ids_of_every_integer_type_are_exact(tmp_path: Path) -> None:
    uri = write(
        tmp_path / "m.parquet",
        image=["a.png"],
        audio=["b.wav"],
        id=pa.array([1], pa.int64()),
        seed=pa.array([2**63 - 1], pa.uint64()),
    )
    (row,) = read_manifest(uri).rows
    assert (row.id, row.seed) == ("1", 2**63 - 1)


def test_a_folder_of_parts_is_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    write(folder / "part-1.parquet", image=["c.png"], audio=["z.wav"], seed=pa.array([5], pa.int32()))
    write(folder / "part-0.parquet", image=["a.png", "b.png"], audio=["x.wav", "y.wav"])
    (folder / "_SUCCESS").touch()
    (folder / "a.png").touch()
    manifest = read_manifest(f"{folder}/")
    assert manifest.base == str(folder)
    assert [row.image for row in manifest.rows] == [f"{folder}/{name}.png" for name in "abc"]
    assert [row.seed for row in manifest.rows] == [None, None, 5]


@pytest.fixture
def bucket() -> Iterator[str]:
    filesystem = fsspec.filesystem("memory")
    yield "memory://bucket"
    filesystem.rm("/bucket", recursive=True)


def test_a_remote_manifest_names_files_beside_it(bucket: str, tmp_path: Path) -> None:
    local = write(tmp_path / "m.parquet", image=["faces/a.png", "../../x.png"], audio=["/b.wav", "c.wav"])
    fsspec.filesystem("memory").pipe_file("/bucket/sets/m.parquet", Path(local).read_bytes())
    first, second = read_manifest(f"{bucket}/sets/m.parquet").rows
    assert (first.image, first.audio) == (f"{bucket}/sets/faces/a.png", "/b.wav")
    assert second.problem is not None
    assert "climbs out" in second.problem.message


def test_a_relative_path_of_a_manifest_stands_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "m.parquet", image=["a.png"], audio=["b.wav"])
    monkeypatch.chdir(tmp_path)
    manifest = read_manifest("m.parquet")
    assert manifest.uri == str(tmp_path / "m.parquet")
    assert manifest.rows[0].image == str(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"audio": ["a.wav"]}, "expected a column 'image', found: audio"),
        ({"Image": ["a.png"], "audio": ["a.wav"]}, "rename 'Image'?"),
        ({"image": [b"a.png"]}, "column 'image': expected a URI, found the type binary"),
        ({"image": ["a.png"], "seed": [[1]]}, "column 'seed': expected a whole number"),
        ({"image": ["a.png"], "crop": [datetime.date(2024, 1, 1)]}, "column 'crop': expected true or false"),
        ({"image": pa.array([], pa.string())}, "expected at least one row, found none"),
        ({"image": ["a.png"], "render_s": [1.0], "status": ["x"]}, "names of results columns: render_s, status"),
    ],
)
def test_an_unusable_manifest_says_why(tmp_path: Path, columns: dict[str, object], message: str) -> None:
    uri = write(tmp_path / "m.parquet", **columns)
    with pytest.raises(ManifestError) as raised:
        read_manifest(uri, results_columns=("status", "render_s", "image"))
    assert message in str(raised.value)
    assert uri in str(raised.value)


def test_repeated_column_names_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_arrays([pa.array(["a"])] * 3, ["image", "audio", "audio"]), tmp_path / "m.parquet")
    with pytest.raises(ManifestError, match="repeated: audio"):
        read_manifest(str(tmp_path / "m.parquet"))


def test_what_is_no_parquet_is_refused(tmp_path: Path) -> None:
    broken, cut, folder = tmp_path / "m.csv", tmp_path / "cut.parquet", tmp_path / "folder"
    broken.write_text("image,audio\na.png,b.wav\n")
    cut.write_bytes(Path(write(tmp_path / "m.parquet", image=["a.png"])).read_bytes()[:-20])
    folder.mkdir()
    for path, message in (
        (broken, "expected Parquet"),
        (cut, "expected Parquet"),
        (folder, "no .parquet file"),
        (tmp_path / "absent.parquet", "no such file or folder"),
    ):
        with pytest.raises(ManifestError, match=message):
            read_manifest(str(path))


def test_unreachable_and_unknown_storage_is_one_clear_line() -> None:
    options = {
        "s3": {
            "endpoint_url": "http://127.0.0.1:9",
            "key": "k",
            "secret": "s",
            "config_kwargs": {"retries": {"max_attempts": 0}},
        }
    }
    with pytest.raises(ManifestError, match=r"manifest s3://bucket/m.parquet: can't be read"):
        read_manifest("s3://bucket/m.parquet", options)
    with pytest.raises(ManifestError, match="can't be read: ValueError: Protocol not known"):
        read_manifest("nosuch://bucket/m.parquet")

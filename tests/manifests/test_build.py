"""Built manifests name the right pairs, and every path still leads to its file."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.build import Folders, build_from_file, build_from_folders
from manifests.errors import ManifestError
from manifests.reader import read_manifest


def touch(root: Path, *names: str) -> str:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return str(root)


@pytest.fixture
def images(tmp_path: Path) -> str:
    return touch(tmp_path / "faces", "ana.png", "ben.JPG", "cleo.webp", "notes.txt", ".hidden.png")


@pytest.fixture
def audio(tmp_path: Path) -> str:
    return touch(tmp_path / "speech", "de/ana.wav", "fr/ana.mp3", "pt-BR/ben.flac", "takes/dora.ogg")


def built(output: Path) -> list[tuple[str, ...]]:
    table = pq.read_table(output)
    return list(zip(*(table[name].to_pylist() for name in table.column_names), strict=True))


def test_cross_is_everything_with_everything(tmp_path: Path, images: str, audio: str) -> None:
    output = tmp_path / "m.parquet"
    result = build_from_folders(Folders(images, audio), str(output))
    assert (result.rows, result.unread, result.unpaired) == (12, ("notes.txt",), ())
    assert built(output)[:5] == [
        ("faces/ana.png", "speech/de/ana.wav", "de"),
        ("faces/ana.png", "speech/fr/ana.mp3", "fr"),
        ("faces/ana.png", "speech/pt-BR/ben.flac", "pt-BR"),
        ("faces/ana.png", "speech/takes/dora.ogg", None),
        ("faces/ben.JPG", "speech/de/ana.wav", "de"),
    ]
    rows = read_manifest(str(output)).rows
    assert all(Path(row.image or "").is_file() and Path(row.audio or "").is_file() for row in rows)
    assert {row.problem for row in rows} == {None}


def test_stem_joins_languages_to_their_speaker_and_reports_the_rest(tmp_path: Path, images: str, audio: str) -> None:
    output = tmp_path / "m.parquet"
    result = build_from_folders(Folders(images, audio, pairing="stem"), str(output))
    assert built(output) == [
        ("faces/ana.png", "speech/de/ana.wav", "de"),
        ("faces/ana.png", "speech/fr/ana.mp3", "fr"),
        ("faces/ben.JPG", "speech/pt-BR/ben.flac", "pt-BR"),
    ]
    assert result.unpaired == ("cleo.webp", "takes/dora.ogg")


def test_stem_refuses_portraits_that_share_a_name(tmp_path: Path, audio: str) -> None:
    images = touch(tmp_path / "faces", "a/ana.png", "b/ana.png")
    with pytest.raises(ManifestError, match=r"found a/ana.png, b/ana.png"):
        build_from_folders(Folders(images, audio, pairing="stem"), str(tmp_path / "m.parquet"))


def test_zip_pairs_in_order_and_names_what_is_left_over(tmp_path: Path, images: str, audio: str) -> None:
    output = tmp_path / "m.parquet"
    with pytest.raises(ManifestError, match=r"found 3 and 4 files; without a partner: takes/dora.ogg"):
        build_from_folders(Folders(images, audio, pairing="zip"), str(output))
    assert not output.exists()
    drivers = touch(tmp_path / "drivers", "1.mp4", "2.mov", "3.webm")
    build_from_folders(Folders(images, drivers=drivers, pairing="zip"), str(output))
    assert pq.read_table(output).column_names == ["image", "driver"]
    assert built(output)[2] == ("faces/cleo.webp", "drivers/3.webm")


def test_audio_and_drivers_together_take_motion_from_the_driver(tmp_path: Path, images: str) -> None:
    audio = touch(tmp_path / "speech", "de/ana.wav", "fr/ana.wav")
    drivers = touch(tmp_path / "drivers", "de/ana.mp4", "fr/ana.mp4")
    output = tmp_path / "m.parquet"
    with pytest.raises(ManifestError, match="motion_from=driver"):
        build_from_folders(Folders(images, audio, drivers), str(output))
    build_from_folders(Folders(images, audio, drivers, "stem", "driver"), str(output))
    assert built(output) == [
        ("faces/ana.png", "speech/de/ana.wav", "drivers/de/ana.mp4", "driver", "de"),
        ("faces/ana.png", "speech/fr/ana.wav", "drivers/fr/ana.mp4", "driver", "fr"),
    ]
    assert {row.problem for row in read_manifest(str(output)).rows} == {None}


def test_a_sample_is_drawn_without_repetition_and_takes_differ_by_their_seed(
    tmp_path: Path, images: str, audio: str
) -> None:
    def sample(name: str, seed: int) -> pa.Table:
        build_from_folders(Folders(images, audio, sample=5, takes=3, seed=seed), str(tmp_path / name))
        return pq.read_table(tmp_path / name)

    first, again, other = sample("a.parquet", 1), sample("b.parquet", 1), sample("c.parquet", 2)
    assert first.equals(again)
    assert not first.equals(other)
    assert first.num_rows == 15
    assert first["take"].to_pylist() == [1, 2, 3] * 5
    assert len(set(first["seed"].to_pylist())) == 15
    pairs = list(zip(first["image"].to_pylist(), first["audio"].to_pylist(), strict=True))
    assert len(set(pairs)) == 5
    assert {row.problem for row in read_manifest(str(tmp_path / "a.parquet")).rows} == {None}


def test_a_sample_of_a_huge_cross_is_made_on_demand(tmp_path: Path) -> None:
    images = touch(tmp_path / "faces", *(f"{n}.png" for n in range(300)))
    audio = touch(tmp_path / "speech", *(f"{n}.wav" for n in range(300)))
    drivers = touch(tmp_path / "drivers", *(f"{n}.mp4" for n in range(300)))
    folders = Folders(images, audio, drivers, motion_from="driver", sample=50)
    assert build_from_folders(folders, str(tmp_path / "m.parquet")).rows == 50


def test_impossible_requests_are_refused(tmp_path: Path, images: str, audio: str) -> None:
    empty = touch(tmp_path / "empty", "x.txt")
    for folders, message in (
        (Folders(images), "found neither"),
        (Folders(images, audio, sample=13), "at least 13 pairs to draw from, found 12"),
        (Folders(images, audio, sample=0), "from 1 up, found 0 and 1"),
        (Folders(images, audio, takes=0), "from 1 up, found None and 0"),
        (Folders(empty, audio), "expected .jpg, .jpeg, .png, .webp files, found none"),
        (Folders(str(tmp_path / "absent"), audio), "no such folder"),
    ):
        with pytest.raises(ManifestError, match=message):
            build_from_folders(folders, str(tmp_path / "m.parquet"))


def test_files_outside_the_manifests_folder_are_named_absolutely(tmp_path: Path, images: str, audio: str) -> None:
    output = tmp_path / "sets" / "m.parquet"
    build_from_folders(Folders(images, audio, sample=1), str(output))
    ((image, *_),) = built(output)
    assert Path(image).is_absolute()
    assert Path(image).is_file()


def test_folders_and_manifest_may_be_remote() -> None:
    filesystem = fsspec.filesystem("memory")
    for name in ("faces/a.png", "speech/en/a.wav"):
        filesystem.pipe_file(f"/build/{name}", b"")
    build_from_folders(Folders("memory://build/faces", "memory://build/speech/"), "memory://build/m.parquet")
    (row,) = read_manifest("memory://build/m.parquet").rows
    assert (row.image, row.audio, row.language) == (
        "memory://build/faces/a.png",
        "memory://build/speech/en/a.wav",
        "en",
    )
    filesystem.rm("/build", recursive=True)


def test_csv_keeps_every_digit(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(
        "\ufeffid,image,audio,seed,crop,speaker,count,score,code,long,flag\n"
        '001,a.png,b.wav,7,true,"Ana, ""A""",1,0.5,007,12345678901234567890,true\n'
        "002,a.png,c.wav,,,Ben,,1e-3,8,1,\n",
        encoding="utf-8",
    )
    build_from_file(str(tmp_path / "m.csv"), str(tmp_path / "m.parquet"))
    table = pq.read_table(tmp_path / "m.parquet")
    assert {name: str(table.schema.field(name).type) for name in table.column_names} == {
        "id": "string",
        "image": "string",
        "audio": "string",
        "seed": "int64",
        "crop": "bool",
        "speaker": "string",
        "count": "int64",
        "score": "double",
        "code": "string",
        "long": "string",
        "flag": "bool",
    }
    assert table["speaker"].to_pylist() == ['Ana, "A"', "Ben"]
    assert table["score"].to_pylist() == [0.5, 0.001]
    first, second = read_manifest(str(tmp_path / "m.parquet")).rows
    assert (first.id, first.seed, first.crop, first.problem) == ("001", 7, True, None)
    assert (second.seed, second.crop, second.extra["count"]) == (None, None, None)


def test_json_lines_keep_values_and_paths_move_with_the_manifest(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.png", "in/b.wav")
    (tmp_path / "in" / "m.jsonl").write_text(
        '{"image": "a.png", "audio": "b.wav", "when": "2024-01-02T00:00:00"}\n\n'
        '{"image": "a.png", "driver": "s3://bucket/d.mp4", "tags": ["x"]}\n'
    )
    build_from_file(str(tmp_path / "in" / "m.jsonl"), str(tmp_path / "m.parquet"))
    first, second = read_manifest(str(tmp_path / "m.parquet")).rows
    assert pq.read_table(tmp_path / "m.parquet")["image"].to_pylist() == ["in/a.png"] * 2
    assert first.audio == str(tmp_path / "in" / "b.wav")
    assert (second.driver, second.extra) == ("s3://bucket/d.mp4", {"when": None, "tags": ["x"]})
    assert first.extra["when"] == "2024-01-02T00:00:00"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.csv", "image,audio\na.png\n", "line 2: expected 2 cells, found 1"),
        ("m.csv", "image,audio\n", "at least one row"),
        ("m.csv", "picture,audio\na,b\n", "expected a column 'image'"),
        ("m.csv", 'image,audio\n"a,b\n', "unexpected end of data"),
        ("m.jsonl", '{"image": "a"}\n{"image": \n', "line 2"),
        ("m.jsonl", "[1]\n", "line 1: expected an object"),
        ("m.jsonl", '{"image": "a", "x": 1}\n{"image": "a", "x": "y"}\n', "column 'x': expected values of one type"),
        ("m.txt", "", "expected a .csv, .jsonl or .ndjson file"),
    ],
)
def test_a_table_that_cant_be_read_says_where(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ManifestError, match=message):
        build_from_file(str(tmp_path / name), str(tmp_path / "m.parquet"))
    assert not (tmp_path / "m.parquet").exists()

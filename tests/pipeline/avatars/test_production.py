"""A folder of avatars: made once, made again where something is missing or another recipe is asked for."""

from __future__ import annotations

import ctypes.util
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from imtalker.avatars.speech.performance import Performance
from manifests.reader import read_manifest
from pipeline.avatars.folder import AvatarFolder
from pipeline.avatars.production import Produced, produce
from pipeline.avatars.recipes import ClipRecipe, Script
from pipeline.errors import CannotRun
from tests.pipeline.avatars.recorded import CLIPS, PEOPLE, SCRIPT, contents, performed, quiet

NOTHING = Produced(portraits=0, portraits_kept=2, clips=0, clips_kept=2, frames=0)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of an undisturbed production."""
    root = tmp_path_factory.mktemp("made")
    counts = produce(SCRIPT, AvatarFolder(root), quiet(), perform=performed)
    frames = sum(len(performed(clip).state) for clip in CLIPS)
    assert counts == Produced(portraits=2, portraits_kept=0, clips=2, clips_kept=0, frames=frames)
    return contents(root)


@pytest.fixture
def folder(made: dict[str, bytes], tmp_path: Path) -> AvatarFolder:
    """A folder that holds these files."""
    for name, content in made.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return AvatarFolder(tmp_path)


def unexpected(recipe: ClipRecipe) -> Performance:
    raise AssertionError(f"{recipe.name} was to be made")


def test_the_files_have_the_names_of_their_recipes(made: dict[str, bytes]) -> None:
    names = [clip.name for clip in CLIPS]
    assert names == ["full-3-en-00000", "narrow-11-en-00001"]
    assert sorted(made) == sorted(
        ["clips.parquet", "manifest.parquet", "portraits/full-3.png", "portraits/narrow-11.png"]
        + [f"clips/{name}.mp4" for name in names]
        + [f"audio/{name}.wav" for name in names]
        + [f"states/{name}.parquet" for name in names]
    )


def test_the_table_has_a_row_for_each_clip(folder: AvatarFolder) -> None:
    table = pd.read_parquet(folder.clips_table)
    assert table["name"].tolist() == [clip.name for clip in CLIPS]
    row, clip = table.iloc[1], CLIPS[1]
    assert (row["identity_seed"], row["world"], row["size"]) == (11, "narrow", 64)
    assert (row["text"], row["language"], row["voice"]) == (clip.line.text, "en", clip.line.voice)
    assert (row["rate"], row["pitch"], row["performance_seed"]) == (170, 50, 71)
    assert row["frames"] == len(performed(clip).state) == row["seconds"] * 25
    for column in ("portrait", "video", "audio", "states"):
        assert all((folder.root / path).is_file() for path in table[column])


def test_the_manifest_pairs_portraits_with_their_speech(folder: AvatarFolder) -> None:
    rows = list(read_manifest(str(folder.manifest)).rows)
    assert [row.id for row in rows] == [clip.name for clip in CLIPS]
    assert [Path(row.image).name for row in rows] == ["full-3.png", "narrow-11.png"]
    assert all(Path(str(row.audio)).is_file() and row.crop is False for row in rows)


def test_a_second_run_makes_nothing(folder: AvatarFolder, made: dict[str, bytes]) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.root.glob("*/*")}
    assert produce(SCRIPT, folder, quiet(), perform=unexpected) == NOTHING
    assert {path: path.stat().st_mtime_ns for path in folder.root.glob("*/*")} == before
    assert contents(folder.root) == made


def test_what_is_missing_or_half_made_is_made_again(folder: AvatarFolder, made: dict[str, bytes]) -> None:
    name = CLIPS[1].name
    folder.states(name).unlink()
    folder.portrait("full-3").write_bytes(b"cut off")
    (folder.video(name).parent / f".{name}.mp4.0123abcd.part").write_bytes(b"left over")
    counts = produce(SCRIPT, folder, quiet(), perform=performed)
    assert (counts.portraits, counts.clips) == (1, 1)
    assert contents(folder.root) == made


def test_an_interrupted_run_goes_on(tmp_path: Path, made: dict[str, bytes]) -> None:
    def interrupted(recipe: ClipRecipe) -> Performance:
        if recipe == CLIPS[1]:
            raise KeyboardInterrupt
        return performed(recipe)

    folder = AvatarFolder(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        produce(SCRIPT, folder, quiet(), perform=interrupted)
    assert folder.has_clip(CLIPS[0], frames=False)
    assert produce(SCRIPT, folder, quiet(), perform=performed).clips == 1
    assert contents(tmp_path) == made


def test_another_recipe_replaces_a_clip_of_the_same_name(folder: AvatarFolder, made: dict[str, bytes]) -> None:
    changed = replace(CLIPS[0], performance_seed=5)
    counts = produce(Script(PEOPLE, (changed, CLIPS[1])), folder, quiet(), perform=performed)
    assert (counts.clips, counts.clips_kept) == (1, 1)
    now = contents(folder.root)
    assert {name for name in made if now[name] != made[name]} == {
        f"clips/{changed.name}.mp4",
        f"states/{changed.name}.parquet",
        "clips.parquet",
    }


def test_workers_give_the_same_files_and_the_layout_adds_to_them(tmp_path: Path, made: dict[str, bytes]) -> None:
    folder = AvatarFolder(tmp_path)
    produce(SCRIPT, folder, quiet(), frames=True, workers=2, perform=performed)
    found = contents(tmp_path)
    assert {name: content for name, content in found.items() if name in made} == made
    others = {name.split("/")[0] for name in found if name not in made}
    assert others == {"video_frame", "lmd"}
    assert produce(SCRIPT, folder, quiet(), frames=True, perform=unexpected) == NOTHING
    shutil.rmtree(folder.frames(CLIPS[0].name))
    assert produce(SCRIPT, folder, quiet(), perform=unexpected) == NOTHING
    assert produce(SCRIPT, folder, quiet(), frames=True, perform=performed).clips == 1
    assert contents(tmp_path) == found


def test_without_espeak_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    root = tmp_path / "avatars"
    with pytest.raises(CannotRun, match="`apt-get install espeak-ng`"):
        produce(SCRIPT, AvatarFolder(root), quiet())
    assert not root.exists()


def test_a_finished_folder_needs_no_espeak(folder: AvatarFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    assert produce(SCRIPT, folder, quiet()) == NOTHING


def test_a_folder_that_cannot_be_written_to_stops_everything(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CannotRun, match="file can't be written to"):
        produce(SCRIPT, AvatarFolder(tmp_path / "file"), quiet(), perform=performed)

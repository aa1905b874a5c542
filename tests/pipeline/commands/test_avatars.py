"""The commands as they are called; those that speak need espeak-ng and are in the long tests."""

from __future__ import annotations

import ctypes.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import cli
from pipeline.avatars.portraits import draw_portrait
from pipeline.avatars.recipes import PortraitRecipe
from tests.pipeline.avatars.recorded import contents


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of `imtalker avatars`, in this process."""
    monkeypatch.setattr(sys, "argv", ["imtalker", "avatars", *arguments])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    return int(exit_.value.code or 0)


@pytest.fixture
def no_espeak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)


def test_the_command_line_loads_nothing_heavy() -> None:
    code = "import sys, cli; print({'torch', 'numpy', 'pyarrow', 'av'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == "set()"


@pytest.mark.usefixtures("no_espeak")
def test_a_portrait_needs_no_espeak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "new" / "ada.png"
    assert call(monkeypatch, "portrait", "--seed", "7", "--size", "33", "--world", "narrow", str(file)) == 0
    with Image.open(file) as image:
        assert np.array_equal(np.array(image), draw_portrait(PortraitRecipe(7, "narrow", 33)))
    assert [path.name for path in file.parent.iterdir()] == ["ada.png"]


@pytest.mark.usefixtures("no_espeak")
def test_without_espeak_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "render", str(tmp_path / "out"), "--size", "64") == 1
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith("error: ")
    assert "`apt-get install espeak-ng`" in line


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["render"], 2, "Missing argument 'output'"),
        (["render", "s3://bucket/avatars"], 2, "local disk"),
        (["render", "OUT", "--size", "65"], 2, "even size"),
        (["render", "OUT", "--clips", "0"], 2, "--clips"),
        (["render", "OUT", "--language", "../en"], 2, "expected a language"),
        (["render", "OUT", "--world", "wide"], 2, "--world"),
        (["portrait", "OUT/a.jpg"], 2, ".png"),
        (["portrait", "OUT/a.png", "--size", "8"], 2, "--size"),
        (["portrait", "FILE/a.png"], 1, "can't be written"),
    ],
)
def test_wrong_arguments_are_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    complaint: str,
) -> None:
    (tmp_path / "file").write_text("in the way")
    places = {"OUT": str(tmp_path / "out"), "FILE": str(tmp_path / "file")}
    for word, place in places.items():
        arguments = [argument.replace(word, place) for argument in arguments]
    monkeypatch.setenv("COLUMNS", "300")
    assert call(monkeypatch, *arguments) == code
    said = capsys.readouterr()
    assert complaint in said.err
    assert said.out == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_clips_are_spoken_and_a_second_run_makes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--identities", "2", "--clips", "3", "--size", "64", "--language", "en", "--language", "de", "--json"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert call(monkeypatch, "render", str(one), *command) == 0
    assert json.loads(capsys.readouterr().out)["clips"] == 3
    table = pd.read_parquet(one / "clips.parquet")
    assert table["language"].tolist() == ["en", "de", "en"]
    assert table["identity_seed"].nunique() == 2
    assert (table["seconds"] > 1).all()
    first = contents(one)
    assert call(monkeypatch, "render", str(one), *command) == 0
    assert json.loads(capsys.readouterr().out)["clips_kept"] == 3
    assert contents(one) == first
    assert call(monkeypatch, "render", str(two), *command, "--workers", "2") == 0
    assert contents(two) == first

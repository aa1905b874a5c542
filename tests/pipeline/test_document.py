"""YAML that could mean something else than it says is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.document import read_document
from pipeline.errors import CannotRun


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("manifest: a\noutput: b\nmanifest: c\n", r"line 3: key 'manifest' stands here a second time"),
        ("settings:\n  seed: 1\n  seed: 2\n", r"line 3: key 'seed'"),
        ("manifest: [a\n", r"line 2: expected ',' or '\]'"),
        ("- a\n", "expected keys and values, found list"),
        ("", "expected keys and values, found NoneType"),
        ("a: !!python/object/apply:os.system ['true']\n", "could not determine a constructor"),
        ("a: \x00\n", "special characters are not allowed"),
    ],
)
def test_a_document_that_cant_be_read_says_where(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(content)
    with pytest.raises(CannotRun, match=message) as raised:
        read_document(file)
    assert str(file) in str(raised.value)


def test_absent_and_undecodable_files(tmp_path: Path) -> None:
    with pytest.raises(CannotRun, match="no such file"):
        read_document(tmp_path / "absent.yaml")
    (tmp_path / "job.yaml").write_bytes(b"manifest: \xff\xfe\n")
    with pytest.raises(CannotRun, match="can't be read"):
        read_document(tmp_path / "job.yaml")


def test_anchors_and_merges_are_plain_yaml(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\n")
    assert read_document(file) == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}}

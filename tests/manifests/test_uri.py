"""What a URI means depends only on where it stands."""

from __future__ import annotations

import pytest

from manifests.uri import file_name, filesystem, parent, relative, resolve, scheme


@pytest.mark.parametrize(
    ("uri", "base", "meant"),
    [
        ("a.png", "/data/set", "/data/set/a.png"),
        ("./faces/a b.png", "/data/set", "/data/set/faces/a b.png"),
        ("../shared/a.png", "/data/set", "/data/set/../shared/a.png"),
        ("a:b.png", "/data/set", "/data/set/a:b.png"),
        ("/else/a.png", "s3://bucket/set", "/else/a.png"),
        ("a.png", "s3://bucket/set", "s3://bucket/set/a.png"),
        ("../a#1.png", "s3://bucket/set", "s3://bucket/a#1.png"),
        ("a.png", "s3://bucket", "s3://bucket/a.png"),
        ("a.png", "https://host/sets", "https://host/sets/a.png"),
        ("../a.png", "https://host/sets", "https://host/a.png"),
        ("a.png", "file:///data/set", "file:///data/set/a.png"),
    ],
)
def test_relative_uris_stand_in_the_folder(uri: str, base: str, meant: str) -> None:
    assert resolve(uri, base) == meant


@pytest.mark.parametrize(
    "uri", ["/a.png", "file:///a.png", "s3://b/a.png", "gs://b/a", "https://h/a?q=1", "zip://a.png::s3://b/c.zip"]
)
@pytest.mark.parametrize("base", ["/data", "s3://bucket/set"])
def test_absolute_uris_are_kept(uri: str, base: str) -> None:
    assert resolve(uri, base) == uri


@pytest.mark.parametrize("uri", ["../../other/a.png", "../..", "a/../../../b"])
def test_a_relative_uri_never_leaves_its_bucket(uri: str) -> None:
    with pytest.raises(ValueError, match="climbs out of s3://bucket"):
        resolve(uri, "s3://bucket/set")


@pytest.mark.parametrize("uri", ["a\x00.png", "a\nb.png", "https://h/\r\nHost: x"])
def test_control_characters_are_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="control characters"):
        resolve(uri, "/data")


@pytest.mark.parametrize(
    ("uri", "base", "written"),
    [
        ("/data/set/faces/a.png", "/data/set", "faces/a.png"),
        ("/data/settings/a.png", "/data/set", "/data/settings/a.png"),
        ("s3://bucket/set/a.png", "s3://bucket/set", "a.png"),
        ("s3://bucket/setting/a.png", "s3://bucket/set", "s3://bucket/setting/a.png"),
        ("s3://bucket/set/a.png", "/data/set", "s3://bucket/set/a.png"),
        ("/data/set/a.png", "s3://bucket/set", "/data/set/a.png"),
    ],
)
def test_relative_is_the_way_back(uri: str, base: str, written: str) -> None:
    assert relative(uri, base) == written
    assert resolve(written, base) == uri


def test_parts_of_a_uri() -> None:
    assert parent("s3://bucket/a/m.parquet") == "s3://bucket/a"
    assert parent("https://host/a/m.parquet?sig=x/y") == "https://host/a"
    assert parent("/a/m.parquet") == "/a"
    assert scheme("S3://bucket/x") == "s3"
    assert scheme("zip://a::s3://b/c.zip") == "zip"
    assert scheme("a::b.png") is None
    assert file_name("https://host/a%20b.png?x=/y.png") == "a b.png"


def test_a_filesystem_gets_the_options_of_its_own_protocol_only() -> None:
    opened, path = filesystem("s3://bucket/key", {"s3": {"key": "k", "anon": False}, "gs": {"token": "t"}})
    assert path == "bucket/key"
    assert opened.storage_options == {"key": "k", "anon": False}

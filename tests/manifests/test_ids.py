"""Ids name files: whatever a row holds, they stay in the folder, differ, and don't depend on other rows."""

from __future__ import annotations

import datetime
import hashlib
import random
import re
import string
from decimal import Decimal
from pathlib import Path

import pytest

from manifests import ids

NASTY = [
    "",
    ".",
    "..",
    "../../etc/passwd",
    "a/../../b.png",
    "..\\..\\windows\\system32",
    "C:\\Users\\x.png",
    "/",
    "//",
    "x/",
    "\x00",
    "a\nb.png",
    "a\rb",
    " ",
    "-rf",
    "--output=x",
    "~root",
    "$(reboot)",
    "`reboot`.wav",
    "a;b|c&d.png",
    "%2e%2e%2f",
    "https://host/%2e%2e/%2fetc%2fpasswd",
    "https://host/a.png?X-Amz-Signature=/../../x",
    "CON",
    "nul.txt",
    "a.",
    "a...",
    ".hidden",
    "李明.png",
    "José Ñandú.jpg",
    "𝔘𝔫𝔦.png",
    "e\u0301.png",
    "\u202egnp.exe",
    "x" * 500 + ".png",
    "é" * 500,
    "." * 200,
    "-" * 200,
    "a" + "." * 200,
    "\ud800.png",
]


@pytest.mark.parametrize("uri", NASTY)
@pytest.mark.parametrize("other", ["speech.wav", "..", "y" * 300])
def test_a_derived_id_is_a_plain_file_name(uri: str, other: str, tmp_path: Path) -> None:
    for image, driving in ((uri, other), (other, uri), (None, uri), (uri, None)):
        derived = ids.derive(image, driving, {"image": image, "audio": driving})
        assert ids.is_valid(derived)
        assert len(derived) <= 128
        assert (tmp_path / f"{derived}.mp4").resolve().parent == tmp_path.resolve()


def test_any_text_makes_a_plain_file_name() -> None:
    draw = random.Random(0)
    alphabet = string.printable + "\x00\x7fäß漢\u200b\ud83d/\\.."
    for _ in range(2000):
        uri = "".join(draw.choices(alphabet, k=draw.randrange(0, 200)))
        assert ids.is_valid(ids.derive(uri, uri[::-1], {"image": uri}))


@pytest.mark.parametrize(
    "bad", [text for text in NASTY if text not in ("CON", "nul.txt", "a.", "a...")] + ["a" * 129, "a\n", "é", "٣"]
)
def test_ids_that_are_no_plain_file_name_are_refused(bad: str) -> None:
    assert not ids.is_valid(bad)


@pytest.mark.parametrize("good", ["a", "0", "A.b_c-9", "a..b", "a" * 128])
def test_plain_file_names_are_ids(good: str) -> None:
    assert ids.is_valid(good)


def test_a_derived_id_is_made_of_both_stems_and_the_hash_of_the_canonical_row() -> None:
    columns = {"image": "faces/Ana María.png", "audio": "de/hello.wav"}
    text = '{"audio":"de/hello.wav","image":"faces/Ana Mar\\u00eda.png"}'
    assert ids.canonical_json(columns) == text
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    assert ids.derive(columns["image"], columns["audio"], columns) == f"Ana_Maria-hello-{digest}"


def test_the_query_of_a_web_address_is_no_part_of_the_stem() -> None:
    derived = ids.derive("https://host/p/ana%20b.png?sig=a/b.c", "x.wav", {})
    assert re.fullmatch("ana_b-x-[0-9a-f]{8}", derived)


def test_canonical_json_knows_no_order_nulls_or_kinds_of_whole_numbers() -> None:
    one = ids.canonical_json({"image": "a", "seed": 7, "score": 1.5, "note": None, "nan": float("nan")})
    assert one == ids.canonical_json({"score": 1.5, "seed": 7.0, "image": "a"})
    assert one != ids.canonical_json({"score": 1.5, "seed": 8, "image": "a"})
    assert ids.canonical_json({"flag": True}) != ids.canonical_json({"flag": 1})


def test_canonical_json_takes_every_kind_of_value() -> None:
    values = {
        "bytes": b"\x00\xff",
        "when": datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC),
        "decimal": Decimal("1.10"),
        "list": [1, None, {"x": b"y"}],
        "infinite": float("inf"),
    }
    assert ids.canonical_json(values) == (
        '{"bytes":"00ff","decimal":"1.10","infinite":Infinity,"list":[1,null,{"x":"79"}],'
        '"when":"2024-01-02 00:00:00+00:00"}'
    )

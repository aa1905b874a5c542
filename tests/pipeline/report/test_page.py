"""The page: whole, self-contained, and safe to open whatever ids, messages and columns hold."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pipeline.report.page import duration, number, render_page, size
from pipeline.report.pictures import Pictures
from pipeline.report.report import CONTACTS, Report, make_report
from pipeline.report.source import read_source
from tests.pipeline.report.outputs import RUN, failed_row, ok_row, record, write_output

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'{{ 7*7 }}"


class Page(HTMLParser):
    """What a browser would see: every tag with its attributes, and the text between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.words += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def evil_report(folder: Path) -> Report:
    """Every text that somebody else gives is markup."""
    rows = [ok_row(f"i{n}", language=EVIL, flags=[EVIL] if n == 2 else []) for n in range(20)]
    rows[0] |= {"id": EVIL, "video": f"/out/videos/{EVIL}.mp4"}
    rows += [failed_row(EVIL, kind=EVIL, message=EVIL, error_hint=EVIL, error_stage=EVIL, error_trace=EVIL)]
    values = [float(n % 5) for n in range(20)] + [900.0]
    run = {**RUN, "manifest": EVIL, "settings": {EVIL: EVIL}, "versions": {EVIL: EVIL}}
    write_output(folder / "now", rows, {EVIL: values, "javascript:alert(3)": values}, run=run)
    write_output(folder / "then", [failed_row("i1"), ok_row(EVIL)], {EVIL: [1.0, 2.0]})
    return make_report(read_source(str(folder / "now")), read_source(str(folder / "then")))


def test_no_text_of_an_item_becomes_markup_or_script(tmp_path: Path) -> None:
    report = evil_report(tmp_path)
    pictures = Pictures(asked=1, failed={0: EVIL})
    page = Page(render_page(report, pictures))
    assert len(page.all("script")) == 1
    assert {image["src"].partition(",")[0] for image in page.all("img")} <= {"data:image/jpeg;base64"}
    assert [name for _, attributes in page.tags for name in attributes if name.startswith("on")] == []
    for link in page.all("a"):
        assert link["href"].startswith(("#", "videos/")), link
        assert not re.search(r"[<>\"' ]", link["href"])
    # It is shown as it is, and no template in it is filled in.
    assert page.words.count(EVIL) > 8
    assert "{{ 49 }}" not in page.words


def test_only_the_pages_own_script_may_run_and_nothing_may_be_fetched(tmp_path: Path) -> None:
    text = render_page(make_report(read_source(str(write_output(tmp_path, [ok_row("a")])))), Pictures())
    page = Page(text)
    [policy] = [tag["content"] for tag in page.all("meta") if tag.get("http-equiv") == "Content-Security-Policy"]
    script = text.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "img-src data:" in policy
    assert not [tag for tag, attributes in page.tags if tag in ("link", "iframe", "object", "base")]
    addresses = re.findall(r"https?://[^\s\"'<]+", text)
    assert set(addresses) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_every_part_has_a_heading_that_names_it_and_a_link_that_leads_to_it(tmp_path: Path) -> None:
    page = Page(render_page(evil_report(tmp_path), Pictures()))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for section in page.all("section"):
        assert section["aria-labelledby"] in ids
    assert {link["href"] for link in page.all("a") if link["href"].startswith("#")} == {
        f"#{section['id']}" for section in page.all("section")
    }
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("main")) == len(page.all("h1")) == 1
    assert all("alt" in image for image in page.all("img"))
    assert all(header.get("scope") for header in page.all("th"))
    assert all(chart["aria-label"] for _, chart in page.tags if chart.get("role") == "img")


def test_what_a_run_says_stands_on_the_page(tmp_path: Path) -> None:
    rows = [ok_row(f"i{n}", flags=["frozen"] if n == 3 else []) for n in range(60)]
    rows += [failed_row("f1"), failed_row("f2"), {"id": "s", "status": "skipped"}]
    run = {**RUN, "summary": {**RUN["summary"], "cost": {"currency": "EUR", "used": 1.5, "per_video_minute": 0.75}}}
    write_output(tmp_path, rows, run=run, videos=False)
    (tmp_path / "items").mkdir()
    made = record("i0", {"crop": (1, 0, 10), "render": (2, 10, 300)})
    (tmp_path / "items" / "i0.json").write_text(made.model_dump_json())
    report = make_report(read_source(str(tmp_path)))
    pictures = Pictures(asked=48)
    words = re.sub(r"\s+", " ", Page(render_page(report, pictures)).words)
    assert f"{CONTACTS} of 60 videos of items that are ok, drawn by a hash of their ids" in words
    assert "1 of 60 items that are ok have something unusual" in words
    assert "flag frozen" in words
    assert "2 items in crop" in words
    assert "What to do: mend input" in words
    assert "1.5 EUR" in words
    assert "50 frames a second, 2 times real time" in words
    assert "random stand-ins" in words
    assert "worked for 5 min" in words
    assert "48 were left out when the time for them was over" in words


def test_fid_and_fvd_stand_on_the_page_with_what_they_were_measured_against(tmp_path: Path) -> None:
    write_output(tmp_path, [ok_row("a")])
    before = Page(render_page(make_report(read_source(str(tmp_path))), Pictures()))
    assert "FID" not in before.words
    file = tmp_path / "set_metrics.json"
    measured = {
        "fid": 12.345,
        "fvd": None,
        "reference": "https://ana:hunter2@host/<real>",
        "samples": {"output": {"frames": 40, "clips": 1}, "reference": {"frames": 2100}},
    }
    file.write_text(json.dumps(measured))
    report = make_report(read_source(str(tmp_path)))
    assert [one["name"] for one in report.as_dict()["glance"]["set_metrics"]] == ["FID"]
    words = Page(render_page(report, Pictures())).words
    assert "12.35of 40 frames against 2,100 of https://***@host/<real>" in words
    assert "FVD" not in words
    for broken in ("[", "[1]", json.dumps({"fid": "12", "fvd": [3], "samples": 4}), '{"fid": NaN}'):
        file.write_text(broken)
        assert make_report(read_source(str(tmp_path))).glance["set_metrics"] == []
    file.write_text(json.dumps({"fvd": 3, "samples": {"output": {"clips": "many"}}}))
    assert "FVD" in Page(render_page(make_report(read_source(str(tmp_path))), Pictures())).words


def test_what_a_gate_has_stopped_can_be_looked_at_but_is_no_sample(tmp_path: Path) -> None:
    stopped = failed_row("stopped", kind="quality", message="frozen", video="/out/videos/stopped.mp4")
    report = make_report(read_source(str(write_output(tmp_path, [stopped, ok_row("fine")]))))
    assert (report.contacts, set(report.pictured())) == ([1], {0, 1})
    links = [link["href"] for link in Page(render_page(report, Pictures())).all("a") if "data-video" in link]
    assert links == ["videos/stopped.mp4", "videos/fine.mp4"]


def test_without_a_way_to_the_videos_nothing_is_linked(tmp_path: Path) -> None:
    report = make_report(read_source(str(write_output(tmp_path, [ok_row("a")]))))

    def videos(videos_at: str | None) -> list[str]:
        links = Page(render_page(report, Pictures(), videos_at=videos_at)).all("a")
        return [link["href"] for link in links if "data-video" in link]

    assert videos(None) == []
    assert videos("../x/") == ["../x/videos/a.mp4"]


def test_an_empty_output_has_a_page(tmp_path: Path) -> None:
    words = Page(render_page(make_report(read_source(str(write_output(tmp_path, [])))), Pictures())).words
    assert "There are no videos." in words
    assert "No item failed." in words


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (number(None), "–"),
        (number(1234567), "1,234,567"),
        (number(0.123456), "0.1235"),
        (number(12345.6), "12,346"),
        (size(999), "999 bytes"),
        (size(1_500_000), "1.5 MB"),
        (duration(59.94), "59.9 s"),
        (duration(600), "10 min"),
        (duration(36_000), "10 h"),
    ],
)
def test_numbers_are_written_for_people(shown: str, expected: str) -> None:
    assert shown == expected

"""The page in a real browser: what a person sees, clicks and reaches by keyboard.

Not run where there is no Chromium, and says so.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.report.report import make_report
from pipeline.report.source import read_source
from pipeline.report.write import write_page
from tests.pipeline.report.outputs import failed_row, ok_row, record, write_output
from tests.pipeline.report.test_page import EVIL

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="NOT RUN: no Chromium on the path (apt-get install chromium): the page was not looked at"
)

SIZES = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with something in every part, and videos that play."""
    folder = tmp_path_factory.mktemp("browser")
    rows = [ok_row(f"i{n}", render_fps=20.0 + n % 4, flags=["frozen"] if n == 2 else []) for n in range(12)]
    rows += [ok_row("gone"), failed_row(EVIL, message=EVIL)]
    numbers = {EVIL: [*np.linspace(1, 2, 13), 90.0]}
    write_output(folder, rows, numbers, videos=True)
    (folder / "videos" / "gone.mp4").unlink()
    (folder / "items").mkdir()
    made = record("i0", {"crop": (1, 0, 10), "render": (2, 10, 30)})
    (folder / "items" / "i0.json").write_text(made.model_dump_json())
    source = read_source(str(folder))
    write_page(make_report(source, source))
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # A container's root has no sandbox to give; the page is our own.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=[(size, scheme) for size in SIZES for scheme in ("light", "dark")], ids="-".join)
def page(request: pytest.FixtureRequest, browser: Any, page_file: Path) -> Iterator[Any]:
    """The page, opened from disk; any error, dialog or request beyond the disk fails the test."""
    size, scheme = request.param
    context = browser.new_context(viewport=SIZES[size], color_scheme=scheme)
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("dialog", lambda dialog: (problems.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("console", lambda line: problems.append(line.text) if "Content Security Policy" in line.text else None)
    page.on("request", lambda sent: None if sent.url.startswith(("file:", "data:")) else problems.append(sent.url))
    page.goto(page_file.as_uri())
    yield page
    context.close()
    assert problems == []


def test_the_page_fits_its_window_and_its_pictures_are_drawn(page: Any) -> None:
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    drawn = "[...document.images].filter(i => { i.loading = 'eager'; return i.complete && i.naturalWidth > 0 }).length"
    page.wait_for_function(f"{drawn} === document.images.length")
    assert page.evaluate("document.images.length") >= 12
    assert page.locator(".chart svg").count() >= 3
    assert page.get_by_text(EVIL).count() >= 2


def test_text_can_be_read_on_its_ground(page: Any) -> None:
    """Contrast as WCAG 2 counts it: 4.5 to 1 for text, on the card and in charts."""
    ratios = page.evaluate(
        """() => {
          const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
            .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
            .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
          const rgb = text => text.match(/[0-9.]+/g).slice(0, 3).map(Number);
          const card = light(rgb(getComputedStyle(document.querySelector("section")).backgroundColor));
          const ratio = text => {
            const [a, b] = [light(rgb(text)), card].sort((x, y) => y - x);
            return (a + 0.05) / (b + 0.05);
          };
          const found = {};
          for (const name of ["h2", ".soft", "section a", ".bad", "td"])
            found[name] = ratio(getComputedStyle(document.querySelector(name)).color);
          found.chart = ratio(getComputedStyle(document.querySelector(".chart text")).fill);
          return found;
        }"""
    )
    assert {name: round(ratio, 2) for name, ratio in ratios.items() if ratio < 4.5} == {}


def test_a_click_plays_the_video_and_escape_goes_back_to_it(page: Any) -> None:
    shot = page.locator("#sheet a.shot").first
    shot.click()
    dialog = page.get_by_role("dialog")
    assert dialog.get_by_role("heading").inner_text() == "i0"
    page.wait_for_function("document.querySelector('video').currentTime > 0")
    dialog.get_by_role("button", name="Next").click()
    assert dialog.get_by_role("heading").inner_text() == "i1"
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert page.evaluate("document.activeElement.dataset.video") == "i0"


def test_a_video_that_is_gone_is_said_to_be(page: Any) -> None:
    page.locator("#sheet a[data-video=gone]").click()
    page.wait_for_selector(".problem:not([hidden])")
    assert "videos/gone.mp4" in page.locator(".problem").inner_text()
    page.get_by_role("button", name="Close").click()


def test_the_keyboard_reaches_the_parts_and_the_videos(page: Any) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent").startswith("Skip to")
    page.keyboard.press("Enter")
    page.wait_for_url("**#glance")
    page.get_by_role("link", name="Contact sheet").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**#sheet")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.dataset.video") == "i0"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert page.get_by_role("dialog").is_visible()


def test_without_scripts_the_links_lead_to_the_videos(browser: Any, page_file: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(page_file.as_uri())
    page.locator("#sheet a.shot").first.click()
    assert page.url == (page_file.parent / "videos" / "i0.mp4").as_uri()
    context.close()

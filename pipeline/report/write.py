"""Writing the page beside the videos that it shows, or elsewhere."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

from pipeline.errors import CannotRun
from pipeline.report.page import render_page
from pipeline.report.pictures import Pictures, take_pictures
from pipeline.report.report import PICTURES, Report

NAME = "report.html"
PICTURE_SECONDS = 40.0
"""How long decoding pictures may take; what is not there by then is left out."""


@dataclass(frozen=True)
class Written:
    """A page that was written."""

    uri: str
    size: int
    pictures: Pictures

    def line(self) -> str:
        """For people."""
        return f"report: {self.uri} ({self.size / 1e6:.1f} MB, {len(self.pictures.by_row)} pictures)"


def write_page(report: Report, to: Path | None = None, *, picture_seconds: float = PICTURE_SECONDS) -> Written:
    """Write the page as ``report.html`` into the output, or as the local file ``to``.

    Raises CannotRun where it can't be written.
    """
    wanted = list(dict.fromkeys(report.pictured()))[:PICTURES]
    pictures = take_pictures(report.source, wanted, picture_seconds)
    store = report.source.store
    if to is not None:
        page = render_page(report, pictures, videos_at=_videos_from(report, to)).encode()
        try:
            to.write_bytes(page)
        except OSError as exc:
            raise CannotRun(f"writing {to} failed: {exc.strerror}") from exc
        return Written(str(to), len(page), pictures)
    page = render_page(report, pictures).encode()
    with TemporaryDirectory(prefix="imtalker-report-") as folder:
        # As a file: its name tells object stores the type, without which browsers would save it and not show it.
        path = Path(folder) / NAME
        path.write_bytes(page)
        store.put_file(path, NAME)
    return Written(store.url(NAME), len(page), pictures)


def _videos_from(report: Report, page: Path) -> str | None:
    """The output as seen from a page elsewhere; None where no relative link leads there."""
    if not report.source.store.is_local:
        return None
    return quote(Path(os.path.relpath(report.source.store.root, page.absolute().parent)).as_posix()) + "/"

"""The report as one HTML file that needs nothing else: no network, no other file but the videos that it links to."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.resources import files
from itertools import groupby
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pipeline.report import charts
from pipeline.report.columns import GROUPS
from pipeline.report.distribution import FAR, FEWEST
from pipeline.report.failures import ADVICE
from pipeline.report.pictures import Pictures
from pipeline.report.report import GROUPS as FAILURES_SHOWN
from pipeline.report.report import WORST_WITH_PICTURE, Report

_TEMPLATES = "templates"
_NAMES_SHOWN = 60
"""Characters of a name in a label."""


def render_page(report: Report, pictures: Pictures, *, videos_at: str | None = "") -> str:
    """The page. Every text of items is escaped; a policy in the page lets no script but its own run.

    ``videos_at`` stands before the videos' names in links, a relative path that ends with ``/`` or is empty; None: the
    videos can't be reached from where the page will be, and nothing is linked.
    """
    environment = Environment(
        loader=PackageLoader("pipeline.report", _TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(num=number, size=size, long=duration, short=short)
    script = _asset("report.js")
    ids, source = report.source.ids, report.source

    def link(row: int) -> str | None:
        if videos_at is None or row not in source.videos:
            return None
        return videos_at + quote(source.videos[row])

    drawn = [spread for spread in report.distributions if not spread.constant]
    return environment.get_template(
        "report.html"
    ).render(
        report=report,
        glance=report.glance,
        ids=ids,
        link=link,
        pictures=pictures,
        style=Markup(_asset("report.css")),  # noqa: S704  (a file of this package)
        script=Markup(script),  # noqa: S704  (a file of this package)
        policy=_policy(script),
        settings=json.dumps(report.glance["settings"], indent=1),
        model={name: value for name, value in report.glance["model"].items() if not isinstance(value, dict)},
        hashes=report.glance["model"].get("weights_sha256") or {},
        groups=[
            (GROUPS[group], [(spread, charts.histogram(spread)) for spread in spreads])
            for group, spreads in groupby(drawn, key=lambda spread: spread.column.group)
        ],
        constant=[spread for spread in report.distributions if spread.constant],
        failures=report.failures[:FAILURES_SHOWN],
        kinds=_kinds(report),
        timeline=charts.stage_times(report.times.timeline) if report.times else None,
        started=_clock(report.times.timeline.started) if report.times else "",
        judged=sorted(column.name for column, _ in report.columns if column.judges),
        advice=ADVICE,
        far=FAR,
        fewest=FEWEST,
        with_picture=WORST_WITH_PICTURE,
        drawn_by=f"Vega-Lite {charts.VERSION} through vl-convert {version('vl-convert-python')}",
        written=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def number(value: Any) -> str:
    """For people: 4 figures, thousands apart, ``-`` for nothing."""
    if value is None:
        return "–"
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e15):
        return f"{int(value):,}"
    return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def size(value: float) -> str:
    """Bytes, in the unit that suits them."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"


def short(text: Any) -> str:
    text = str(text)
    return text if len(text) <= _NAMES_SHOWN else f"{text[: _NAMES_SHOWN - 1]}…"


def _kinds(report: Report) -> list[tuple[str, int]]:
    counts: dict[str, int] = {}
    for group in report.failures:
        counts[group.kind] = counts.get(group.kind, 0) + group.count
    return sorted(counts.items(), key=lambda one: -one[1])


def _asset(name: str) -> str:
    return (files("pipeline.report") / _TEMPLATES / name).read_text(encoding="utf-8")


def _policy(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; "
        "media-src 'self' file:; base-uri 'none'; form-action 'none'"
    )


def _clock(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")

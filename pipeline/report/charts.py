"""Charts as SVG text, drawn by Vega-Lite (vl-convert; BSD-3-Clause) while the page is written; it needs no script.

Colours are the page's own (CSS variables), so that one drawing serves light and dark.
"""

from __future__ import annotations

from typing import Any

import vl_convert
from markupsafe import Markup

from pipeline.accounting.timeline import Timeline
from pipeline.report.distribution import Distribution

VERSION = "6.4"
"""Of Vega-Lite."""
_INK, _GRID = "currentColor", "var(--line)"
_MAIN, _OTHER, _FAR = "var(--main)", "var(--other)", "var(--bad)"

_CONFIG: dict[str, Any] = {
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": _INK,
        "titleColor": _INK,
        "domainColor": _GRID,
        "tickColor": _GRID,
        "gridColor": _GRID,
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
    },
    "header": {"labelColor": _INK, "titleColor": _INK, "labelFontSize": 12},
    "legend": {"labelColor": _INK, "titleColor": _INK, "labelFontSize": 11},
}


def histogram(spread: Distribution) -> Markup:
    """Items by value; what lies beyond the bins has a bar of its own at that end."""
    low, high = spread.edges[0], spread.edges[-1]
    # A little apart from the others, and as wide as a twentieth of the axis.
    width, gap = (high - low) / 20, (high - low) / 60
    bars = [
        {"from": float(start), "to": float(end), "items": int(count), "what": "within"}
        for start, end, count in zip(spread.edges, spread.edges[1:], spread.counts, strict=False)
    ]
    for count, start, what in (
        (spread.below, low - gap - width, f"below {low:.4g}"),
        (spread.above, high + gap, f"above {high:.4g}"),
    ):
        if count:
            bars.append({"from": float(start), "to": float(start + width), "items": count, "what": what})
    x = {"field": "from", "type": "quantitative", "title": spread.column.unit or None, "scale": {"zero": False}}
    whole = not spread.counts.size or max(spread.counts.max(), spread.below, spread.above) < 4
    return _svg(
        {
            "width": 300,
            "height": 110,
            "data": {"values": bars},
            "mark": {"type": "bar", "binSpacing": 1, "minBandSize": 1},
            "encoding": {
                "x": {**x, "bin": {"binned": True}, "axis": {"grid": False, "tickCount": 5, "format": "~s"}},
                "x2": {"field": "to"},
                "y": {
                    "field": "items",
                    "type": "quantitative",
                    "title": "items",
                    "axis": {"tickCount": 3, "format": "d" if whole else "~s"},
                },
                "color": {"condition": {"test": "datum.what == 'within'", "value": _MAIN}, "value": _FAR},
            },
        }
    )


def stage_times(times: Timeline) -> Markup:
    """Workers of each stage, busy and waiting, over the time of the run."""
    edges = times.edges
    unit, divisor = ("minutes", 60.0) if times.seconds >= 180 else ("seconds", 1.0)
    parts = [
        {"stage": stage.stage, "what": what, "at": at / divisor, "workers": workers}
        for stage in times.stages
        for what, values in (("busy", stage.busy), ("waiting", stage.waiting))
        # The last part lasts until the end.
        for at, workers in zip(edges, [*values, values[-1]], strict=True)
    ]
    return _svg(
        {
            "data": {"values": parts},
            "facet": {
                "row": {
                    "field": "stage",
                    "title": None,
                    "sort": [stage.stage for stage in times.stages],
                    "header": {"labelAngle": 0, "labelAlign": "left", "labelAnchor": "middle"},
                }
            },
            "spec": {
                "width": 640,
                "height": 60,
                "mark": {"type": "area", "interpolate": "step-after"},
                "encoding": {
                    "x": {
                        "field": "at",
                        "type": "quantitative",
                        "title": f"{unit} since the first task began",
                        "axis": {"grid": False},
                    },
                    "y": {
                        "field": "workers",
                        "type": "quantitative",
                        "stack": "zero",
                        "title": "workers",
                        "axis": {"tickCount": 2},
                    },
                    "color": {
                        "field": "what",
                        "type": "nominal",
                        "title": None,
                        "scale": {"domain": ["busy", "waiting"], "range": [_MAIN, _OTHER]},
                        "legend": {"orient": "top"},
                    },
                    "order": {"field": "what"},
                },
            },
            "spacing": 8,
            "resolve": {"scale": {"y": "independent"}},
        }
    )


def _svg(spec: dict[str, Any]) -> Markup:
    whole = {"background": None, "config": _CONFIG, "padding": 2, **spec}
    text = vl_convert.vegalite_to_svg(whole, vl_version=VERSION, allowed_base_urls=[])
    # Vega escapes what it writes; no text of items comes here, only names of stages and units.
    return Markup(text)  # noqa: S704

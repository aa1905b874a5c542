"""Every item of a run as CSV, worst first, with the reasons."""

from __future__ import annotations

import csv
from typing import Any, TextIO

import numpy as np

from pipeline.report.report import Report

_STATUS_ORDER = {"failed": 0, "ok": 1}
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_csv(report: Report, file: TextIO) -> None:
    """The failed items, then those that are ok by their points, then the skipped ones; equal ones in manifest order.

    Columns are ``points`` and ``reasons`` and those of the results. A text that a spreadsheet would take for a formula
    gets an apostrophe before it.
    """
    source = report.source
    names = source.table.column_names
    columns = [source.column(name) for name in names]
    status = [_STATUS_ORDER.get(value, 2) for value in source.column("status")]
    order = np.lexsort((-report.ranking.points, np.array(status)))
    writer = csv.writer(file)
    writer.writerow(["points", "reasons", *map(_cell, names)])
    for row in order:
        reasons = "; ".join(report.ranking.reasons(int(row))) if report.ranking.points[row] else ""
        writer.writerow([round(float(report.ranking.points[row]), 2), reasons, *(_cell(c[row]) for c in columns)])


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        value = ";".join(map(str, value))
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value

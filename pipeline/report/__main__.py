"""The process that writes a run's report when the run has ended; started by `pipeline.report.after_run` alone."""

from __future__ import annotations

import json
import sys

from pipeline.errors import CannotRun
from pipeline.report.report import make_report
from pipeline.report.source import read_source
from pipeline.report.write import write_page


def main() -> int:
    """Read output and storage options as JSON from stdin; say on stdout where the report is, or on stderr why not."""
    request = json.load(sys.stdin)
    try:
        written = write_page(make_report(read_source(request["output"], request["storage_options"])))
    except CannotRun as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    sys.stdout.write(f"{written.line()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Starting work from the command line: a run of a manifest, or one item."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jobs.schema import Job, load_job, parse_job
from manifests.reader import single_row
from pipeline.accounting.estimate import estimate
from pipeline.config import RunSettings
from pipeline.errors import CannotRun
from pipeline.execute import in_process
from pipeline.interrupts import interruptible
from pipeline.ledger import Ledger
from pipeline.metrics.again import MeasureSummary, last_settings, measure_again
from pipeline.on_ray import on_ray
from pipeline.plan import Plan, make_plan
from pipeline.progress import RunProgress
from pipeline.records.index import RecordIndex
from pipeline.report.after_run import report_after_run
from pipeline.run import RunSummary, load_manifest, prepare, run
from pipeline.storage import Store


def job_from(config: Path | None, flags: Mapping[str, Any], settings: Mapping[str, Any]) -> Job:
    """The job of a file, of flags, or of both; flags win. Raises CannotRun when it is incomplete or wrong."""
    given = {name: value for name, value in {**flags, **settings}.items() if value is not None}
    if config is not None:
        # The file's own paths are absolute by now; those of flags stand in the working folder.
        return load_job(config).with_overrides(given).absolute()
    missing = [name for name in ("manifest", "output") if name not in given]
    if missing:
        raise CannotRun(f"{' and '.join(missing)} not given: name them, or a job file with --config")
    start = parse_job({"manifest": given["manifest"], "output": given["output"]}, "command line")
    return start.with_overrides(given).absolute()


def run_job(job: Job, progress: RunProgress) -> RunSummary:
    """Run a job here, or on the cluster that it names. Raises CannotRun when it can't run as a whole."""
    manifest = load_manifest(job.manifest, job.settings)
    info = prepare(job.settings)
    executor = partial(on_ray, address=job.ray.address)
    with interruptible():
        summary = run(
            manifest,
            job.settings,
            info,
            job.output,
            executor,
            progress,
            limit=job.limit,
            retry=job.retry,
            price=job.price,
        )
        if job.settings.report:
            progress.say(report_after_run(summary.output, job.settings.storage_options))
    return summary


def plan_job(job: Job) -> Plan:
    """What `run_job` would do. Nothing is written or fetched."""
    manifest = load_manifest(job.manifest, job.settings)
    info = prepare(job.settings.model_copy(update={"download": False}))
    ledger = Ledger(Store(job.output, job.settings.storage_options))
    return make_plan(manifest, job.settings, info, ledger, limit=job.limit, retry=job.retry)


def estimate_job(job: Job, items: int, calibration: str | None = None) -> list[dict[str, Any]]:
    """Time and cost of so many items, by what an earlier run into ``calibration`` (default: the job's output) took."""
    store = Store(calibration or job.output, job.settings.storage_options)
    return estimate(items, RecordIndex(store), job.settings, job.price)


def generate_one(row: Mapping[str, Any], output: str, settings: Mapping[str, Any], progress: RunProgress) -> RunSummary:
    """Make one video in this process, by the same stages as a run, and put it at ``output``.

    ``row`` holds manifest columns. Raises CannotRun when nothing can be attempted.
    """
    job = job_from(None, {"manifest": "-", "output": output}, settings)
    given = job.settings
    manifest = single_row(row, str(Path.cwd()), motion_from=given.motion_from, require_consent=given.require_consent)
    if (problem := manifest.rows[0].problem) is not None:
        raise CannotRun(f"{problem.message} ({problem.hint})")
    info = prepare(job.settings)
    with TemporaryDirectory(prefix="imtalker-generate-") as folder:
        summary = run(manifest, job.settings, info, folder, in_process, progress)
        if summary.ok:
            parent, _, name = job.output.rpartition("/")
            (video,) = (Path(folder) / "videos").iterdir()
            Store(parent or "/", job.settings.storage_options).put_file(video, name)
    return replace(summary, output=output, results=None)


_OF_MEASURING = (
    "metrics",
    "landmarks",
    "metric_weights",
    "gates",
    "storage_options",
    "resources",
    "device",
    "limits",
    "retries",
    "weights",
)
"""Settings of a job that measuring a finished run takes over from it; all others are the run's."""


def measure_output(
    output: str,
    config: Path | None,
    flags: Mapping[str, Any],
    address: str | None,
    progress: RunProgress,
    *,
    every: bool = False,
) -> MeasureSummary:
    """Measure the items of a finished run, here or on a cluster. Raises CannotRun where that is not possible."""
    job = load_job(config) if config else None
    options = job.settings.storage_options if job else {}
    ran, info = last_settings(Store(output, options))
    values = ran.model_dump()
    if job is not None:
        values |= {name: getattr(job.settings, name) for name in job.settings.model_fields_set & {*_OF_MEASURING}}
    start = parse_job(
        {"manifest": "-", "output": output, "settings": RunSettings.model_validate(values).model_dump()}, output
    )
    settings = start.with_overrides(flags).settings
    executor = partial(on_ray, address=address or (job.ray.address if job else None))
    with interruptible():
        return measure_again(output, settings, info, executor, progress, every=every)

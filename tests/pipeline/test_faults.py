"""Every kind of fault in one run: each gives one row, of the right stage and kind, and no neighbour is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.execute import Context, Executor, in_process
from pipeline.item.explain import explain, explanation_text
from pipeline.media import sandbox
from pipeline.media.sandbox import shared_sandbox
from pipeline.on_ray import on_ray
from pipeline.summary import RunSummary
from tests.faults import TROUBLES, Faults, all_faults, endless_stream, faulty_settings, with_faults
from tests.faulty_store import faulty_store
from tests.runs import results, run_manifest, write_manifest
from tests.s3_server import S3Server

OpenExecutor = Callable[[Context], AbstractContextManager[Executor]]


@contextmanager
def faulty_run(folder: Path, s3: S3Server, executor: OpenExecutor) -> Iterator[tuple[Faults, RunSummary]]:
    @contextmanager
    def faulty(context: Context) -> Iterator[Executor]:
        with executor(context) as opened:
            yield with_faults(opened)

    command = sandbox.COMMAND
    with faulty_store(s3, TROUBLES) as store, endless_stream() as endless:
        settings = faulty_settings(store)
        try:
            faults = all_faults(Faults(folder, s3.bucket(), store, endless))
            manifest = write_manifest(folder, faults.rows)
            yield faults, run_manifest(manifest, folder / "out", settings, executor=faulty)
        finally:
            sandbox.COMMAND = command
            shared_sandbox(settings.limits.max_decoder_bytes).close()


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory, s3: S3Server) -> Iterator[tuple[Faults, RunSummary]]:
    with faulty_run(tmp_path_factory.mktemp("faults"), s3, in_process) as run:
        yield run


def check(faults: Faults, summary: RunSummary) -> None:
    failing = {id: expected for id, expected in faults.expected.items() if expected is not None}
    assert len(failing) >= 20
    rows = results(faults.folder / "out")
    assert [row["id"] for row in faults.rows] == list(rows), "one row each, in order"
    found = {id: (row["error_kind"], row["error_stage"]) for id, row in rows.items() if row["status"] != "ok"}
    assert found == {id: (kind, stage) for id, (kind, stage, _) in failing.items()}
    for id, (_, stage, words) in failing.items():
        assert words in rows[id]["error_message"], id
        assert rows[id]["error_hint"], id
        assert (rows[id]["attempts"] > 0) == (rows[id]["last_error_at"] is not None) == (stage != "plan"), id
        assert rows[id]["video"] is None
    made = {id for id, expected in faults.expected.items() if expected is None}
    assert {path.stem for path in (faults.folder / "out" / "videos").iterdir()} == made
    assert (summary.rows, summary.ok, summary.failed, summary.skipped) == (len(rows), len(made), len(failing), 0)
    assert summary.exit_code == 3


def test_each_fault_gives_one_row_and_no_neighbour_is_lost(faulty: tuple[Faults, RunSummary]) -> None:
    check(*faulty)


def test_what_was_tried_again_is_counted(faulty: tuple[Faults, RunSummary]) -> None:
    faults, _ = faulty
    rows = results(faults.folder / "out")
    attempts: dict[str, Any] = {id: row["attempts"] for id, row in rows.items()}
    assert attempts["down"] == 3
    assert attempts["storm"] > 1
    assert attempts["reset"] > 1
    untroubled = set(attempts) - {"down", "storm", "reset"}
    planned = {id for id, row in rows.items() if row["error_stage"] == "plan"}
    assert {attempts[id] for id in untroubled - planned} == {1}
    assert rows["storm"]["first_error_at"] <= rows["storm"]["last_error_at"] <= rows["storm"]["finished_at"]
    assert rows["good-first"]["first_error_at"] is None
    text = explanation_text(explain(str(faults.folder / "out"), "storm"))
    assert "tried again" in text
    assert "storm.wav failed" in text


@pytest.mark.long
def test_each_fault_gives_one_row_on_ray_too(tmp_path: Path, s3: S3Server) -> None:
    with faulty_run(tmp_path, s3, on_ray) as (faults, summary):
        check(faults, summary)

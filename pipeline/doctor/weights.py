"""Weights: there, the files that were fetched, usable together, and reachable where they are still to come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline import talker
from pipeline.config import RunSettings
from pipeline.doctor.finding import Finding, Request, fail, note, ok
from pipeline.errors import CannotRun
from pipeline.weights import ModelRow, default_store, parts_of, verify
from pipeline.weights.hub import find


def check(request: Request) -> Iterator[Finding]:
    """Every file of the run's model is read, and compared with its checksum where one is known."""
    settings = request.settings
    pull = f"imtalker models pull {settings.model}"
    try:
        rows = [row for row in verify(settings.model) if _is_needed(row, settings)]
    except CannotRun as exc:
        yield fail(str(exc), "name another model, or mend the model store")
        return
    for row in rows:
        if row.status == "corrupt":
            yield fail(f"{row.path} is not the file that was fetched: its SHA-256 differs", f"delete it and `{pull}`")
        elif row.status == "unverified":
            yield note(f"{row.path} was not pulled: there is no checksum to compare it with", f"`{pull}` would tell")
    missing = [row for row in rows if row.status == "missing"]
    fetched = [row for row in missing if row.source != "package"]
    if fetched:
        yield _to_come(request, fetched, pull)
    if fetched or any(row.status == "corrupt" for row in rows):
        return
    try:
        info = talker.info(settings)
    except CannotRun as exc:
        yield fail(str(exc), "name files that exist and belong together")
        return
    if info.weights == "random":
        yield note(f"{info.model}: seeded stand-ins, made on the spot", "its videos show no face")
        return
    hashes = ", ".join(f"{part} {sha256[:12]}" for part, sha256 in sorted(info.weights_sha256.items()))
    yield ok(f"{info.model}: {hashes} (SHA-256)", **info.weights_sha256)


def _is_needed(row: ModelRow, settings: RunSettings) -> bool:
    if row.part in settings.weights:
        return False
    # A generator of one's own may hold its audio encoder; whether it does is seen when it is loaded.
    return not (row.status == "missing" and row.part == "wav2vec2" and "generator" in settings.weights)


def _to_come(request: Request, missing: Sequence[ModelRow], pull: str) -> Finding:
    files = ", ".join(row.file for row in missing)
    what = f"{request.settings.model}: {files} missing in {default_store()}"
    if request.on_node:
        return fail(what, f"`{pull}` on every machine, or set IMTALKER_MODELS to a folder that all of them see")
    if not request.settings.download:
        return fail(what, f"`{pull}`, or run without --no-download")
    try:
        for part in parts_of(request.settings.model):
            if part.name in {row.part for row in missing}:
                find(part.repository, "main", part.files[0])
    except CannotRun as exc:
        return fail(f"{what}, and {exc}", "reach the hub, or copy a model store from a machine that does")
    return note(f"{what}; the hub has them", f"the run fetches them first; `{pull}` does so now")

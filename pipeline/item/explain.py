"""All that is known about one item of a run: its record, its row of the results, and how to make it again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from manifests import ids
from pipeline.errors import CannotRun
from pipeline.item.reproduce import reproduce
from pipeline.ledger import STAGES, Record, clock_time
from pipeline.records.results import read_results
from pipeline.records.row import RESULTS_SCHEMA
from pipeline.storage import Store

_URIS = ("image", "audio", "driver")


def explain(output: str, item: str, storage_options: dict[str, Any] | None = None) -> dict[str, Any]:
    """Everything about the item with the id ``item``, or about row N where ``item`` is ``_invalid/N``.

    Plain values, for `explanation_text` and for machines. Raises CannotRun for an output that is no run's, with the
    nearest ids for an id that it does not have, and where the storage fails.
    """
    store = Store(output, storage_options or {})
    results = read_results(store)
    key, record = find_record(store, item)
    rows = _rows(results, record.id if record else item)
    if record is None and not rows:
        raise CannotRun(_unknown(store, results, item))
    row = next((r for r in rows if record is None or r["status"] == record.status), {})
    known: dict[str, Any] = {"id": record.id if record else item, "output": store.uri}
    if record is None:
        known |= {"status": row["status"], "flags": row["flags"], "stages": []}
    else:
        known |= {**_facts(record), "record": store.url(f"items/{key}.json")}
    named = {role: row[role] for role in _URIS if row.get(role)}
    known["row"] = {name: value for name, value in row.items() if name not in RESULTS_SCHEMA.names} | named
    if len(rows) > 1:
        known["notes"] = [f"{len(rows)} rows of the manifest have this id: see `_invalid/ROW` for the others"]
    if record is not None:
        found = reproduce(record, named, run_json(store))
        known["command"] = found.command
        known["notes"] = [*known.get("notes", []), *found.notes]
    return known


def explanation_text(known: Mapping[str, Any]) -> str:
    """`explain` for people: what happened, what it was made of, what each stage did, and how to do it again."""
    lines = [f"{known['id']}: {known['status']}{_list(known.get('flags'), ' (', ')')}"]
    if error := known.get("error"):
        lines.append(f"  {error['kind']} error in {error['stage']}: {error['message']}")
        lines += [f"  what to do: {error['hint']}"] if error["hint"] else []
        lines += [f"  | {text}" for text in error["trace"].splitlines()]
    for stage, retries in (known.get("retries") or {}).items():
        times = "once" if retries["count"] == 1 else f"{retries['count']} times"
        when = " to ".join(dict.fromkeys(clock_time(retries[end]) for end in ("first", "last")))
        lines.append(f"  tried again {times} in {stage} ({when}): {retries['message']}")
    for name in (
        "first",
        "last",
        "committed",
        "copied_from",
        "mode",
        "seed",
        "model",
        "weights",
        "precision",
        "version",
        "record",
    ):
        if known.get(name) is not None:
            lines.append(f"{name:<12}{known[name]}")
    for role, uri in (known.get("uris") or known["row"]).items():
        found = known.get("inputs", {}).get(role)
        lines.append(f"{role:<12}{uri}" + (f"  {found['size']} bytes, sha256 {found['sha256']}" if found else ""))
    for stage in known["stages"]:
        where = ", ".join(f"{name} {stage[name]}" for name in ("node", "pid", "gpu", "threads") if stage.get(name))
        time = "" if stage["seconds"] is None else f"{stage['seconds']:.2f} s"
        lines.append(f"{stage['stage']:<12}{stage['did']:<9}{time:>10}  {where}".rstrip())
    if video := known.get("video"):
        lines.append(f"{'video':<12}{video['uri']}  {video['size']} bytes, {video['frames']} frames")
        lines.append(f"{'frames':<12}sha256 {video['frames_sha256']}")
    for part, sha256 in (known.get("weights_sha256") or {}).items():
        lines.append(f"{part:<12}sha256 {sha256}")
    if known.get("settings"):
        lines.append(f"{'settings':<12}{json.dumps(known['settings'])}")
    lines += [f"{'note':<12}{text}" for text in known.get("notes", [])]
    lines += ["to make it again, alone:", f"  {known['command']}"] if "command" in known else []
    return "\n".join(lines)


def _list(values: Sequence[str] | None, before: str, after: str) -> str:
    return f"{before}{', '.join(values)}{after}" if values else ""


def _facts(record: Record) -> dict[str, Any]:
    """The record, in the order in which one reads it."""
    ended = [worker.ended_at for worker in record.workers.values() if worker.ended_at]
    return {
        "status": record.status,
        "error": record.error.as_dict() if record.error else None,
        "attempts": record.attempts,
        "retries": {stage: retries.model_dump() for stage, retries in record.retries.items()},
        "flags": record.flags,
        "manifest_row": record.index,
        "first": record.started_at,
        "last": clock_time(max(ended)) if ended else record.finished_at,
        "committed": record.finished_at,
        "copied_from": record.copied_from,
        "mode": record.mode,
        "consent": record.consent,
        "seed": record.seed,
        "inputs": {role: value.model_dump() for role, value in record.inputs.items()},
        "uris": record.uris,
        "stages": list(_stages(record)),
        "video": record.video,
        "settings": record.settings,
        "model": record.model,
        "weights": record.weights,
        "weights_sha256": record.weights_sha256,
        "precision": record.precision,
        "faces_seen": record.faces_seen,
        "decoder": record.decoder,
        "request": record.request,
        "fingerprint": record.fingerprint,
        "version": record.version,
    }


def _stages(record: Record) -> Iterator[dict[str, Any]]:
    """What became of the item in each stage that it came to, in order."""
    for stage in STAGES:
        failed = record.error is not None and record.error.stage == stage
        worker = record.workers.get(stage)
        if worker is None and not failed:
            continue
        did = "failed" if failed else "computed" if stage in record.computed else "reused"
        facts = worker.model_dump() if worker else {}
        yield {"stage": stage, "did": did, "seconds": record.seconds.get(stage), **facts}
        if failed:
            return


def _record(store: Store, key: str) -> Record | None:
    name = key.removeprefix("_invalid/")
    if not ids.is_valid(name):
        return None
    try:
        return Record.model_validate_json(store.get_bytes(f"items/{key}.json"))
    except FileNotFoundError:
        return None
    except ValidationError as exc:
        raise CannotRun(
            f"{store.url(f'items/{key}.json')} can't be read as a record ({exc.error_count()} faults); run again: the "
            "item is made anew"
        ) from exc


def find_record(store: Store, item: str) -> tuple[str, Record | None]:
    """The record of an item and its key; rows whose id can't name a file have keys of their own."""
    if (record := _record(store, item)) is not None:
        return item, record
    for path in sorted(store.list("items/_invalid")):
        key = path.removeprefix("items/").removesuffix(".json")
        if (record := _record(store, key)) is not None and record.id == item:
            return key, record
    return item, None


def _rows(results: pa.Table | None, item: str) -> list[dict[str, Any]]:
    if results is None or "id" not in results.column_names:
        return []
    rows: list[dict[str, Any]] = results.filter(pc.equal(results["id"], item)).to_pylist()
    return rows


def run_json(store: Store) -> Mapping[str, Any] | None:
    """Contents of an output's ``run.json``; None where it is missing or damaged."""
    try:
        found = json.loads(store.get_bytes("run.json"))
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _unknown(store: Store, results: pa.Table | None, item: str) -> str:
    """What to say of an id that is not there."""
    names = {key.removeprefix("items/").removesuffix(".json") for key in store.list("items") if key.endswith(".json")}
    if results is not None and "id" in results.column_names:
        names |= set(results["id"].to_pylist())
    if not names:
        return f"{store.uri} is not the output of a run: it holds neither results.parquet nor records (items/*.json)"
    near = get_close_matches(item, sorted(names), n=3)
    return f"{store.uri} has no item {item!r}; " + (f"near it: {', '.join(near)}" if near else f"it has {len(names)}")

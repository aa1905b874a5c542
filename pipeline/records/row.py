"""The row of the results table that is made from an item's record."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from pipeline.accounting.price import Price
from pipeline.accounting.usage import total
from pipeline.ledger import STAGES, Record
from pipeline.metrics.catalogue import METRICS

_TYPES = {"double": pa.float64(), "int64": pa.int64(), "string": pa.string()}

RESULTS_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("image", pa.string()),
        ("audio", pa.string()),
        ("driver", pa.string()),
        ("language", pa.string()),
        ("status", pa.string()),
        ("reused", pa.bool_()),
        ("error_kind", pa.string()),
        ("error_stage", pa.string()),
        ("error_message", pa.string()),
        ("error_hint", pa.string()),
        ("error_trace", pa.string()),
        ("attempts", pa.int64()),
        ("first_error_at", pa.string()),
        ("last_error_at", pa.string()),
        ("flags", pa.list_(pa.string())),
        ("video", pa.string()),
        ("frames", pa.int64()),
        ("duration_s", pa.float64()),
        ("size_bytes", pa.int64()),
        ("sha256", pa.string()),
        ("frames_sha256", pa.string()),
        ("has_audio", pa.bool_()),
        ("faces_seen", pa.int64()),
        ("mode", pa.string()),
        ("seed", pa.int64()),
        ("cfg_scale", pa.float64()),
        ("nfe", pa.int64()),
        ("model", pa.string()),
        ("weights", pa.string()),
        ("precision", pa.string()),
        ("settings", pa.string()),
        ("consent", pa.string()),
        ("same_identity", pa.bool_()),
        ("signature", pa.string()),
        ("fingerprint", pa.string()),
        *((f"{stage}_s", pa.float64()) for stage in STAGES),
        ("encode_s", pa.float64()),
        *((f"{stage}_cpu_s", pa.float64()) for stage in STAGES),
        *((f"{stage}_gpu_s", pa.float64()) for stage in STAGES),
        ("cpu_s", pa.float64()),
        ("gpu_s", pa.float64()),
        ("cost", pa.float64()),
        ("render_fps", pa.float64()),
        ("real_time_factor", pa.float64()),
        ("peak_memory_bytes", pa.int64()),
        ("worker_node", pa.string()),
        ("worker_gpu", pa.string()),
        ("started_at", pa.string()),
        ("finished_at", pa.string()),
        *((metric.name, _TYPES[metric.type]) for metric in METRICS),
    ]
)
"""Columns of results.parquet that the run fills; the manifest's own columns stand beside them."""


def results_row(record: Record, *, reused: bool, price: Price | None = None) -> dict[str, Any]:
    """One row under `RESULTS_SCHEMA`; the manifest's own columns in it are left empty."""
    whole = total(record.usage.values()).rounded()
    video, error = record.video or {}, record.error
    seconds = sum(record.seconds.values())
    render_s, duration = video.get("render_s"), video.get("duration_s")
    worker = record.workers.get(error.stage if error else "render")
    return {
        **dict.fromkeys(RESULTS_SCHEMA.names),
        "id": record.id,
        "status": record.status,
        "reused": reused,
        "error_kind": error.kind if error else None,
        "error_stage": error.stage if error else None,
        "error_message": error.message if error else None,
        "error_hint": error.hint if error else None,
        "error_trace": error.trace or None if error else None,
        "attempts": record.attempts,
        "first_error_at": record.first_error_at,
        "last_error_at": record.last_error_at,
        "flags": record.flags,
        "video": video.get("uri"),
        "frames": video.get("frames"),
        "duration_s": duration,
        "size_bytes": video.get("size"),
        "sha256": video.get("sha256"),
        "frames_sha256": video.get("frames_sha256"),
        "has_audio": video.get("has_audio"),
        "faces_seen": record.faces_seen,
        "mode": record.mode,
        "seed": record.seed,
        "cfg_scale": record.cfg_scale,
        "nfe": record.nfe,
        "model": record.model,
        "weights": record.weights,
        "precision": record.precision,
        "settings": json.dumps(record.settings) if record.settings else None,
        "consent": record.consent,
        "same_identity": record.same_identity,
        "signature": video.get("signature", {}).get("signed_by"),
        "fingerprint": record.fingerprint,
        **{f"{stage}_s": record.seconds.get(stage) for stage in STAGES},
        "encode_s": video.get("encode_s"),
        **{f"{stage}_cpu_s": usage.cpu_s for stage, usage in record.usage.items()},
        **{f"{stage}_gpu_s": usage.gpu_s for stage, usage in record.usage.items()},
        "cpu_s": whole.cpu_s if record.usage else None,
        "gpu_s": whole.gpu_s if record.usage else None,
        "cost": round(price.of(whole.cpu_s, whole.gpu_s), 6) if price and record.usage else None,
        "render_fps": round(video["frames"] / render_s, 3) if render_s else None,
        "real_time_factor": round(seconds / duration, 4) if duration else None,
        "peak_memory_bytes": video.get("peak_memory_bytes"),
        "worker_node": worker.node if worker else None,
        "worker_gpu": (worker.gpu or None) if worker else None,
        "started_at": record.started_at,
        "finished_at": record.finished_at,
        **{metric.name: record.metrics.get(metric.name) for metric in METRICS},
    }


def skipped_row(id: str, reason: str) -> dict[str, Any]:
    """The row of an item that was not attempted."""
    return {**dict.fromkeys(RESULTS_SCHEMA.names), "id": id, "status": "skipped", "reused": False, "flags": [reason]}

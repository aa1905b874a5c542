"""Fingerprints: short names for everything that shapes a result."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pipeline.config import RunSettings
from pipeline.stages import STAGE_VERSIONS
from pipeline.talker import TalkerInfo


def digest(value: Any) -> str:
    """64 hex digits of the canonical JSON of plain values."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def model_facts(info: TalkerInfo, settings: RunSettings) -> dict[str, Any]:
    """What of the model and its numerics shapes any network's output."""
    return {
        "model": info.model,
        "version": info.version,
        "weights": info.weights_sha256,
        "precision": settings.precision,
    }


def versions(info: TalkerInfo) -> dict[str, int]:
    """Versions of the code that shapes results: of the model's, and of each stage's."""
    return {"model": info.version, **STAGE_VERSIONS}


def cache_key(stage: str, facts: dict[str, Any]) -> str:
    """Store key of an intermediate result."""
    name = digest(facts)
    return f"cache/{stage}/{name[:2]}/{name}.npz"


def item_seed(run_seed: int, inputs: dict[str, str]) -> int:
    """63 bits from the run's seed and the content hashes of the inputs ({role: sha256}); never from the id."""
    return int(digest({"seed": run_seed, "inputs": inputs})[:16], 16) >> 1

"""The model store: where weights come from, where they lie, and whether they are what they should be."""

from pipeline.weights.catalogue import (
    FEATURE_PARTS,
    PARTS,
    Part,
    default_store,
    parse_revisions,
    parse_weights,
    parts_of,
)
from pipeline.weights.store import (
    ModelFiles,
    ModelRow,
    convert,
    ensure,
    list_models,
    locate,
    pull,
    sha256_of,
    verify,
)

__all__ = [
    "FEATURE_PARTS",
    "PARTS",
    "ModelFiles",
    "ModelRow",
    "Part",
    "convert",
    "default_store",
    "ensure",
    "list_models",
    "locate",
    "parse_revisions",
    "parse_weights",
    "parts_of",
    "pull",
    "sha256_of",
    "verify",
]

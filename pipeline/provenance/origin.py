"""What made a video, in the words that its tags and its signed manifest share."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pipeline.ledger import Record
from pipeline.reuse.fingerprint import digest

AI_GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""IPTC's name of media that a trained model made."""


@dataclass(frozen=True)
class Origin:
    """An item, what it was made of and by which model. Names of files and places are no part of it."""

    item: str
    model: str
    weights: str
    """``published``, ``trained`` or ``random``."""
    weights_sha256: dict[str, str]
    """Of each part's file."""
    seed: int | None
    settings_sha256: str
    """Of every setting that shaped the item."""
    fingerprint: str | None
    """Of all that shaped the video."""
    inputs_sha256: dict[str, str]
    """Contents of the files that it was made of, by role."""
    label: str
    producer: str | None
    consent: str | None
    version: str | None
    """Of this program."""

    @classmethod
    def of(cls, record: Record) -> Origin:
        """That of a record, be its video made already or not."""
        return cls(
            item=record.id,
            model=record.model or "",
            weights=record.weights or "",
            weights_sha256=dict(sorted(record.weights_sha256.items())),
            seed=record.seed,
            settings_sha256=digest(record.settings),
            fingerprint=record.fingerprint,
            inputs_sha256={role: given.sha256 for role, given in sorted(record.inputs.items())},
            label=record.settings.get("label", "none"),
            producer=record.settings.get("producer"),
            consent=record.consent,
            version=record.version,
        )

    @property
    def signed(self) -> bool:
        """Whether the label asks for a signed manifest."""
        return self.label != "none"

    def tags(self) -> dict[str, str]:
        """MP4 tags."""
        found = {
            "comment": "AI-generated video",
            "imtalker_item": self.item,
            "imtalker_model": self.model,
            "imtalker_weights": self.weights,
            **{f"imtalker_weights_sha256_{part}": sha256 for part, sha256 in self.weights_sha256.items()},
            "imtalker_seed": "" if self.seed is None else str(self.seed),
            "imtalker_settings_sha256": self.settings_sha256,
            "imtalker_fingerprint": self.fingerprint or "",
            **{f"imtalker_input_sha256_{role}": sha256 for role, sha256 in self.inputs_sha256.items()},
        }
        if self.producer:
            found["imtalker_producer"] = self.producer
        if self.label != "none":
            found["digital_source_type"] = AI_GENERATED
        if self.label == "cn":
            found["AIGC"] = json.dumps(self._aigc(), ensure_ascii=False)
        return found

    def _aigc(self) -> dict[str, str]:
        """The metadata field of GB 45438-2025: 1 says that it is generated; who passes it on adds the rest."""
        return {
            "Label": "1",
            "ContentProducer": self.producer or "",
            "ProduceID": f"{self.item}-{(self.fingerprint or '')[:16]}",
            "ReservedCode1": "",
            "ContentPropagator": "",
            "PropagateID": "",
            "ReservedCode2": "",
        }

    def facts(self) -> dict[str, Any]:
        """For the signed manifest: what is known, as JSON."""
        return {name: value for name, value in vars(self).items() if value not in (None, "", {})}

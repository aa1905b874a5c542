"""What earlier records tell a plan: contents of inputs, what items were made of, and which videos there are."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from pipeline.inputs.fetch import UNKNOWN
from pipeline.records.index import RecordIndex
from pipeline.reuse.stage_facts import Facts, changes

FIRST = "first time"


@dataclass(frozen=True, slots=True)
class Past:
    """One attempt, as its record tells it."""

    facts: Mapping[str, Any]
    """As `recorded_facts` gives them; shared by all records that agree."""
    contents: Mapping[str, str]
    """SHA-256 of its inputs by role, as far as they were read."""
    error_kind: str | None
    finished_at: str

    def why(self, facts: Facts, otherwise: str) -> str:
        """What has changed since, or why it has to be made again though nothing has."""
        inputs = {f"input {role}": content for role, content in self.contents.items()}
        if changed := sorted(changes(facts, {**self.facts, **inputs})):
            return f"{', '.join(changed)} changed"
        return otherwise if self.error_kind is None else f"failed before ({self.error_kind})"


@dataclass
class History:
    """All of an output's records, as far as a plan asks."""

    _contents: dict[tuple[str, str], str] = field(default_factory=dict)
    _uris: set[str] = field(default_factory=set)
    _items: dict[str, Past] = field(default_factory=dict)
    _by_content: dict[tuple[str, str], Past] = field(default_factory=dict)
    _videos: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def read(cls, index: RecordIndex, items: Collection[str], uris: Collection[str]) -> History:
        """What is known of those items and of those files. Raises `StorageError`."""
        history = cls()
        for record in index.attempts():
            contents = {}
            for role, (uri, sha256) in json.loads(record.inputs).items():
                contents[role] = sha256
                if uri in uris:
                    identity = json.loads(record.identities).get(role)
                    history._uris.add(uri)
                    if identity is not None:
                        history._contents[uri, identity] = sha256
            past = Past(_facts(record.made), contents, record.error_kind, record.finished_at or "")
            if record.key in items:
                history._items[record.key] = past
            for place in contents.items():
                known = history._by_content.get(place)
                if known is None or known.finished_at < past.finished_at:
                    history._by_content[place] = past
            if record.status == "ok" and record.fingerprint is not None:
                history._videos.setdefault(record.fingerprint, []).append(record.key)
        return history

    def content(self, uri: str, identity: str | None) -> str | None:
        """SHA-256 of a file that has been read before, None for one that has not."""
        return None if identity in (None, UNKNOWN) else self._contents.get((uri, identity))

    def knows(self, uri: str) -> bool:
        """Whether something was read from there, the same or another content."""
        return uri in self._uris

    def item(self, key: str) -> Past | None:
        return self._items.get(key)

    def use_of(self, role: str, content: str) -> Past | None:
        """The last attempt that used a content in that role."""
        return self._by_content.get((role, content))

    def videos(self, fingerprint: str) -> list[str]:
        """Keys of items that are ok and have that fingerprint."""
        return self._videos.get(fingerprint, [])


@lru_cache(maxsize=1024)
def _facts(text: str) -> Mapping[str, Any]:
    """Runs make thousands of records with the same facts."""
    facts: dict[str, Any] = json.loads(text)
    return facts

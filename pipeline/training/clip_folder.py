"""A folder of clips in the generator's layout: which of them are finished, and made of what."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, Field

from imtalker.training.motion_clips import MotionClip, clip_paths, write_clip
from pipeline.errors import InputError
from pipeline.storage import Store

RECORDS = "made"


class ClipRecord(BaseModel):
    """A clip that was made, or begun."""

    request: str = Field(description="fingerprint of what it was to be made of, and how")
    frames: int


class ClipFolder:
    """Clips on a local disk, in the published layout, and a record beside them of each that was made here.

    A clip is finished when its record says what it was to be made of and all of its files are there; the record is
    written before them, and the motion, by which trainings find clips, after them.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._root = Path(store.root)

    def read_records(self, stems: Iterable[str]) -> dict[str, ClipRecord]:
        """Records of clips that were made here, by stem."""
        by_key = {_key(stem): stem for stem in stems}
        found = self._store.get_many(by_key)
        return {by_key[key]: ClipRecord.model_validate_json(text) for key, text in found.items()}

    def is_whole(self, stem: str) -> bool:
        return all(path.is_file() for path in clip_paths(self._root, stem).values())

    def check_free(self, stem: str) -> None:
        """Raises InputError where files lie that a clip without record would replace."""
        strangers = [path for path in clip_paths(self._root, stem).values() if path.exists()]
        if strangers:
            raise InputError(
                f"{strangers[0]} is there already, and was not made by this command",
                hint="name another output, or move the clip's files away",
            )

    def keep(self, stem: str, request: str, clip: MotionClip) -> None:
        """Write a clip, in place of an earlier one. Raises OSError or StorageError where the disk fails."""
        clip_paths(self._root, stem)["motion"].unlink(missing_ok=True)
        record = ClipRecord(request=request, frames=len(clip))
        self._store.put_bytes(_key(stem), record.model_dump_json().encode())
        write_clip(self._root, stem, clip)

    def remove(self, stem: str) -> None:
        """Take away a clip that was made here."""
        for path in clip_paths(self._root, stem).values():
            path.unlink(missing_ok=True)
        (self._root / _key(stem)).unlink(missing_ok=True)


def _key(stem: str) -> str:
    return f"{RECORDS}/{stem}.json"

"""Items whose video is there already, under another id or another request: it is copied, not made again.

A copy is the same pictures and sound under its own tags, with a manifest and a signature of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av

from pipeline.config import RunSettings
from pipeline.errors import ItemError, error_record
from pipeline.inputs.fetch import file_sha256
from pipeline.ledger import Ledger, Record, now
from pipeline.locks.lease import confirm
from pipeline.media.retag import retag
from pipeline.metrics.catalogue import AGAINST_DRIVER
from pipeline.metrics.rendering import UNMEASURED
from pipeline.metrics.verdict import judged
from pipeline.provenance.certificate import Signing
from pipeline.provenance.manifest import sign
from pipeline.provenance.origin import Origin
from pipeline.records.index import RecordIndex
from pipeline.reuse.fingerprint import digest, versions
from pipeline.talker import TalkerInfo
from pipeline.tasks import Input, ItemTask

_AT_ONCE = 8
_WAITING = 8
"""Records in memory for each copy that is being made."""
_OF_ITS_MAKING = ("render_s", "encode_s", "peak_memory_bytes")
"""What a record tells of a video's making; a copy costs none of it."""


class Copies:
    """Copies videos within an output, and commits the items that they are for."""

    def __init__(
        self,
        ledger: Ledger,
        index: RecordIndex,
        settings: RunSettings,
        info: TalkerInfo,
        signing: Signing | None = None,
    ) -> None:
        """Without ``signing`` no copy is signed."""
        self._ledger, self._index, self._settings, self._info = ledger, index, settings, info
        self._signing = signing

    def make(self, copies: Iterable[tuple[ItemTask, str]], each: Callable[[ItemTask], None]) -> set[str]:
        """Make every copy that can be made; ``each`` hears of it, or of its failure.

        Returns keys of records whose video is gone or another one, so that what was to be copied from them has to be
        made. Raises `StorageError` for records that can't be read or written.
        """
        waiting: dict[str, list[ItemTask]] = {}
        for item, source in copies:
            waiting.setdefault(source, []).append(item)
        gone = set(waiting)

        def copied(found: tuple[str, Record]) -> tuple[str, bool]:
            key, record = found
            return key, self._all_of(record, waiting[key])

        records = self._index.records(waiting.keys())
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            # A few at a time: there may be a hundred thousand.
            while some := list(islice(records, _AT_ONCE * _WAITING)):
                for key, good in pool.map(copied, some):
                    if good:
                        gone.remove(key)
                        for item in waiting[key]:
                            each(item)
        return gone

    def _all_of(self, record: Record, items: list[ItemTask]) -> bool:
        """Copies of one video, committed; False if it is not what its record says."""
        with TemporaryDirectory(prefix="imtalker-copy-") as folder:
            source = Path(folder) / "source.mp4"
            try:
                self._ledger.store.get_file(_key(record.id), source)
            except FileNotFoundError:
                return False
            if record.video is None or file_sha256(source) != record.video["sha256"]:
                return False
            for item in items:
                try:
                    video = self._video(record, item, source)
                except (ItemError, av.FFmpegError) as exc:
                    item.error = error_record(exc, "render")
                    self._ledger.write(Record.of(item, self._settings, self._info))
                else:
                    item.video = video
                    copy = self._record(record, item, video)
                    item.error = copy.error
                    self._ledger.write(copy)
        return True

    def _video(self, record: Record, item: ItemTask, source: Path) -> dict[str, Any]:
        """What the copy's record says of it, once it is in place."""
        assert record.video is not None  # noqa: S101  (narrows the type)
        video = {name: value for name, value in record.video.items() if name not in _OF_ITS_MAKING}
        video["uri"] = self._ledger.store.url(_key(item.key))
        origin = Origin.of(self._record(record, item, video))
        if origin == Origin.of(record):
            return video
        target = source.with_name(f"{item.key}.mp4")
        retag(source, target, origin.tags())
        video.pop("signature", None)
        if self._signing is not None and origin.signed:
            sign(target, origin, self._signing, frames_sha256=video["frames_sha256"])
            video["signature"] = self._signing.facts()
        if item.fence is not None:
            confirm(self._ledger.store, item.fence)
        self._ledger.store.put_file(target, _key(item.key))
        return {**video, "size": target.stat().st_size, "sha256": file_sha256(target)}

    def _record(self, record: Record, item: ItemTask, video: Mapping[str, Any]) -> Record:
        """The earlier record, but for all that belongs to the item and to this run."""
        unmeasured = [UNMEASURED] if UNMEASURED in record.flags else []
        inputs = {
            role: Input(uri=item.uris[role], size=read.size, sha256=read.sha256) for role, read in record.inputs.items()
        }
        metrics = record.metrics
        if not item.same_identity:
            metrics = {name: value for name, value in metrics.items() if name not in AGAINST_DRIVER}
        copy = record.model_copy(
            update={
                "id": item.key,
                "index": item.index,
                "flags": [*item.flags, *unmeasured],
                "request": item.request,
                "seed": record.seed if item.seed is None else item.seed,
                "cfg_scale": item.cfg_scale,
                "nfe": item.nfe,
                "settings": item.settings,
                "consent": item.consent,
                "same_identity": item.same_identity,
                "weights": self._info.weights,
                "weights_sha256": self._info.weights_sha256,
                "versions": versions(self._info),
                "uris": item.uris,
                "inputs": inputs,
                "identities": item.identities,
                "limits": digest(self._settings.limits.model_dump()),
                "video": dict(video),
                "metrics": metrics,
                "seconds": {},
                "usage": {},
                "computed": [],
                "copied_from": record.id,
                "finished_at": now(),
                "fence": item.fence,
            }
        )
        return judged(copy, self._settings.gates)


def _key(id: str) -> str:
    return f"videos/{id}.mp4"

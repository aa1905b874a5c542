"""Networks that only measure, with weights that the user names."""

from __future__ import annotations

from pipeline.config import RunSettings
from pipeline.device import pick_device
from pipeline.errors import CannotRun
from pipeline.metrics.catalogue import Values
from pipeline.metrics.lse import Expert, expert


def lip_sync_expert(settings: RunSettings) -> Expert | None:
    """SyncNet on the device that the settings name; None where nobody named its weights.

    Raises CannotRun for a file that holds something else.
    """
    return _syncnet(settings, str(pick_device(settings.device)))


def given_weights(settings: RunSettings) -> Values:
    """What the metrics of an item will say about the weights they were measured with, if any.

    Raises CannotRun for a file that can't be used.
    """
    # Asked where no network runs, and there may be no GPU.
    found = _syncnet(settings, "cpu")
    return {} if found is None else {"syncnet_sha256": found.sha256}


def _syncnet(settings: RunSettings, device: str) -> Expert | None:
    path = settings.metric_weights.syncnet
    if path is None or settings.metrics == "off":
        return None
    try:
        return expert(path, device)
    except CannotRun as exc:
        raise CannotRun(f"metric_weights.syncnet: {exc}") from exc

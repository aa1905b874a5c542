"""The error of a manifest that can't be used at all."""

from __future__ import annotations


class ManifestError(Exception):
    """The manifest as a whole is unusable: unreadable, no ``image``, a column of the wrong type, no rows.

    A row that is wrong never raises this: it carries `manifests.row.Problem` values instead.
    """

"""Files of Hugging Face hub repositories: which version there is, and a download that can be resumed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from imtalker.files import file_sha256
from pipeline.errors import CannotRun

_SHA256 = re.compile(r"[0-9a-f]{64}")
_NOT_FOUND = 404


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository at one commit."""

    repository: str
    name: str
    commit: str
    etag: str
    size: int | None

    @property
    def sha256(self) -> str | None:
        """Its checksum where the hub tells it beforehand: large files are stored by it."""
        return self.etag if _SHA256.fullmatch(self.etag) else None


def find(repository: str, revision: str, names: tuple[str, ...]) -> RemoteFile:
    """The first of ``names`` that ``repository`` has at ``revision`` (branch, tag or commit).

    huggingface_hub's environment holds: ``HF_ENDPOINT``, ``HF_HUB_OFFLINE``, ``HF_TOKEN``, ``HF_HOME``. Raises
    CannotRun if the hub can't be reached or has no such file.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError

    with _explained(f"{' or '.join(names)} of {repository} at {revision}"):
        for name in names:
            try:
                found = get_hf_file_metadata(hf_hub_url(repository, name, revision=revision))
            except HfHubHTTPError as error:
                if error.response.status_code != _NOT_FOUND or name == names[-1]:
                    raise
            else:
                break
    if found.commit_hash is None or found.etag is None:
        raise CannotRun(
            f"{found.location} was not answered by a Hugging Face hub (no commit, no etag); check HF_ENDPOINT and "
            "the proxy"
        )
    return RemoteFile(repository, name, found.commit_hash, found.etag, found.size)


def fetch(remote: RemoteFile, path: Path) -> str:
    """Download ``remote`` to ``path`` and return its SHA-256. A download that was cut off goes on where it stopped.

    `hf_hub_download` drops what it has when its process ends, which for gigabytes is too much to lose; hence the
    client's own transfer function on a partial file beside ``path``. Raises CannotRun if the hub or the disk fails,
    or if the checksum is not the hub's; then the partial file is removed.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    partial = path.with_name(f".{path.name}.{remote.etag[:16]}.part")
    url = hf_hub_url(remote.repository, remote.name, revision=remote.commit)
    with _explained(f"{remote.name} of {remote.repository} at {remote.commit}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("ab") as file:
            if remote.size is not None and file.tell() > remote.size:
                file.truncate(0)
            http_get(url, file, resume_size=file.tell(), headers=build_hf_headers(), expected_size=remote.size)
        sha256 = file_sha256(partial)
        if remote.sha256 is not None and sha256 != remote.sha256:
            partial.unlink()
            raise CannotRun(
                f"{url} arrived with SHA-256 {sha256}, expected {remote.sha256}; it was thrown away. Pull again"
            )
        partial.replace(path)
    return sha256


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn whatever the client or the disk raises into one line."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        yield
    except OfflineModeIsEnabled as error:
        raise CannotRun(
            f"can't fetch {what}: HF_HUB_OFFLINE is set. Unset it, or copy a model store from a connected machine"
        ) from error
    except (GatedRepoError, RepositoryNotFoundError) as error:
        raise CannotRun(
            f"can't fetch {what}: the hub shows no such repository; check the name, or log in with `hf auth login`"
        ) from error
    except (HTTPError, OSError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise CannotRun(f"can't fetch {what}: {reason}. What has arrived is kept; pull again") from error

"""Signed manifests: C2PA's statement of what made a video, inside the file.

C2PA 2.x, "Content Credentials": the manifest holds a hash of the whole file but for itself, so that a change of
pictures, sound or tags shows.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from pipeline.errors import CannotRun, ItemError
from pipeline.provenance.certificate import Signing
from pipeline.provenance.origin import AI_GENERATED, Origin

ASSERTION = "imtalker.item"
"""Label of the program's own assertion: an `Origin`, the run, and the hash of the frames."""
SETTINGS: dict[str, Any] = {
    "version": 1,
    # A file must not make its reader open addresses.
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_after_sign": False},
    "builder": {
        "thumbnail": {"enabled": False},
        "created_assertion_labels": ["c2pa.actions", "c2pa.ingredient", ASSERTION],
    },
}
"""Of the C2PA library, for signing and for reading."""


def sign(path: Path, origin: Origin, signing: Signing, *, frames_sha256: str) -> None:
    """Put a signed manifest into a finished MP4, in place.

    Raises an ItemError of kind ``infrastructure`` where that fails, as with a certificate that is out of date by now;
    the file is as it was then.
    """
    from c2pa import C2paError

    signed = path.with_name(f".{path.name}.signed")
    try:
        with path.open("rb") as source, signed.open("w+b") as target:
            _sign(definition(origin, signing, frames_sha256), signing, "video/mp4", source, target)
        signed.replace(path)
    except (C2paError, OSError) as exc:
        raise ItemError(
            "infrastructure",
            f"signing the video failed: {exc}",
            hint="check signing.certificate and the space on the disk, and run again",
        ) from exc
    finally:
        signed.unlink(missing_ok=True)


def check(signing: Signing) -> None:
    """Sign a small picture: C2PA asks more of certificates than that they are valid. Raises CannotRun."""
    from c2pa import C2paError

    picture, signed = BytesIO(), BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    created = {"action": "c2pa.created", "digitalSourceType": AI_GENERATED}
    wanted = {"assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [created]}}]}
    try:
        _sign(wanted, signing, "image/png", picture, signed)
    except C2paError as exc:
        raise CannotRun(
            f"signing.certificate: C2PA can't sign with it: {exc}; it asks for a certificate by an authority, for "
            "signatures (digitalSignature), with the use emailProtection or documentSigning"
        ) from exc


def definition(origin: Origin, signing: Signing, frames_sha256: str) -> dict[str, Any]:
    """The manifest before it is signed, as the C2PA library takes it."""
    program = {"name": "imtalker", **({"version": origin.version} if origin.version else {})}
    created = {
        "action": "c2pa.created",
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "digitalSourceType": AI_GENERATED,
        "softwareAgent": program,
        "description": f"Talking-face video by the model {origin.model}",
        "parameters": {"ingredientIds": list(origin.inputs_sha256)},
    }
    return {
        "claim_generator_info": [program],
        "title": f"{origin.item}.mp4",
        "format": "video/mp4",
        "ingredients": [_ingredient(role, sha256) for role, sha256 in origin.inputs_sha256.items()],
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": [created]}},
            {
                "label": ASSERTION,
                "data": {**origin.facts(), "run": signing.run, "frames_sha256": frames_sha256},
            },
        ],
    }


def _ingredient(role: str, sha256: str) -> dict[str, str]:
    return {
        "label": role,
        "title": role,
        "format": "application/octet-stream",
        "relationship": "inputTo",
        "instance_id": f"urn:sha256:{sha256}",
        "description": f"sha256:{sha256}",
    }


def _sign(wanted: dict[str, Any], signing: Signing, kind: str, source: BinaryIO, target: BinaryIO) -> None:
    # The library takes a third of a second to load, and most commands don't need it.
    from c2pa import Builder, C2paSignerInfo, Context, Signer

    info = C2paSignerInfo(signing.algorithm.encode(), signing.chain, signing.key, None)
    with (
        Context.from_dict(SETTINGS) as context,
        Signer.from_info(info) as signer,
        Builder.from_json(json.dumps(wanted), context=context) as builder,
    ):
        builder.sign(signer, kind, source, target)

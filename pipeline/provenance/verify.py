"""Verifying a video: who made it, from what, and whether it was changed since."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from pipeline.config import RunSettings
from pipeline.errors import CannotRun, InputError, ItemError
from pipeline.inputs.fetch import fetched
from pipeline.media.probe import open_container
from pipeline.provenance.certificate import THROW_AWAY_NAME
from pipeline.provenance.manifest import ASSERTION, SETTINGS
from pipeline.provenance.origin import Origin

State = Literal["unchanged", "changed", "unsigned"]

_OF_THE_SIGNER = "signingCredential."
"""Beginning of C2PA's codes that say something of the certificate, and nothing of the file."""
_SIGNATURE_GOOD = "claimSignature.validated"
_CONTENT_GOOD = ("assertion.bmffHash.match", "assertion.dataHash.match")


@dataclass(frozen=True)
class Verification:
    """What a video says of itself, and what of that holds."""

    video: str
    state: State
    """``unsigned``: there is no manifest, so nobody can tell."""
    trusted: bool = False
    """Whether the signer's certificate is vouched for by one of the given authorities."""
    throw_away: bool = False
    """Whether the certificate is one that a run made for itself; anyone can make one that looks like it."""
    signer: dict[str, Any] = field(default_factory=dict)
    """Of the manifest that holds now: the certificate's names, serial number, and the algorithm."""
    program: dict[str, Any] = field(default_factory=dict)
    """What wrote that manifest."""
    problems: tuple[str, ...] = ()
    """What is wrong, in C2PA's words."""
    ai_generated: bool | None = None
    """Whether the manifest, or without one the tags, say so; None if they say nothing."""
    created: str | None = None
    """When, as the manifest states it: ISO 8601."""
    made: dict[str, Any] = field(default_factory=dict)
    """The program's own assertion: `Origin.facts`, the run and the hash of the frames; empty for others' videos."""
    ingredients: tuple[dict[str, Any], ...] = ()
    tags: dict[str, str] = field(default_factory=dict)
    """The MP4 tags. The manifest protects them; without one they are only a claim."""

    @property
    def exit_code(self) -> int:
        return 0 if self.state == "unchanged" else 3

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def verify(uri: str, settings: RunSettings, *, authorities: Path | None = None) -> Verification:
    """Look at a video's manifest, signature, hash and tags.

    Args:
        uri: a local path, or whatever a run can read.
        settings: limits, retries and storage options.
        authorities: PEM file of the certificates whose signers are trusted; default: none is.

    Raises CannotRun when the file, or the authorities' one, can't be read.
    """
    try:
        with fetched(uri, settings) as source:
            return _verified(uri, source.path, settings, _trust(authorities))
    except ItemError as exc:
        raise CannotRun(f"{exc.message} ({exc.hint})") from exc


def _verified(uri: str, path: Path, settings: RunSettings, trust: dict[str, Any]) -> Verification:
    from c2pa import C2paError, Context, Reader

    tags = _tags(path, settings)
    try:
        with (
            Context.from_dict({**SETTINGS, **trust}) as context,
            path.open("rb") as file,
            Reader("video/mp4", file, context=context) as reader,
        ):
            store = json.loads(reader.json())
    except C2paError.ManifestNotFound:
        if tags is None:
            raise InputError(f"expected a video, found something else: {uri}", hint="play it to check it") from None
        said = True if tags.get("comment", "").startswith("AI-generated") or "AIGC" in tags else None
        return Verification(uri, "unsigned", ai_generated=said, tags=tags)
    except C2paError as exc:
        if tags is None:
            raise InputError(f"expected a video: {uri}: {exc}", hint="play it to check it") from exc
        return Verification(uri, "changed", problems=(f"the manifest can't be read: {exc}",), tags=tags)
    return _judged(uri, store, tags or {})


def _judged(uri: str, store: Mapping[str, Any], tags: dict[str, str]) -> Verification:
    manifests = store["manifests"]
    active = manifests[store["active_manifest"]]
    problems = list(_problems(store))
    own = _data(active, ASSERTION)
    if own is None:
        # Another program's manifest over this one's: what it says of the file is that one's word.
        own = next((data for other in manifests.values() if (data := _data(other, ASSERTION)) is not None), None)
        if own is not None:
            names = ", ".join(info.get("name", "?") for info in active.get("claim_generator_info", ())) or "another"
            problems.append(f"edited since: a manifest by {names} stands over the one that the video was made with")
    signer = active.get("signature_info") or {}
    actions = (_data(active, "c2pa.actions.v2") or _data(active, "c2pa.actions") or {}).get("actions", [])
    created: dict[str, Any] = next((action for action in actions if action.get("action") == "c2pa.created"), {})
    return Verification(
        uri,
        "changed" if problems else "unchanged",
        trusted=store.get("validation_state") == "Trusted",
        throw_away=signer.get("issuer") == THROW_AWAY_NAME,
        signer=signer,
        program=next(iter(active.get("claim_generator_info", ())), {}),
        problems=tuple(problems),
        ai_generated="AlgorithmicMedia" in created.get("digitalSourceType", "") or None,
        created=created.get("when"),
        made=own or {},
        ingredients=tuple(
            {name: given[name] for name in ("title", "relationship", "description") if name in given}
            for given in active.get("ingredients", ())
        ),
        tags=tags,
    )


def _problems(store: Mapping[str, Any]) -> Iterator[str]:
    """Why the file is not as it was signed. That the signer is unknown is no reason."""
    results = store.get("validation_results", {}).get("activeManifest", {})
    failures = [found for found in results.get("failure", ()) if not found["code"].startswith(_OF_THE_SIGNER)]
    for found in failures:
        yield f"{found['code']}: {found.get('explanation', '')}"
    good = {found["code"] for found in results.get("success", ())}
    if _SIGNATURE_GOOD not in good and not failures:
        yield "the signature was not found to be valid"
    if not good.intersection(_CONTENT_GOOD) and not failures:
        yield "no hash of the content was found to hold"


def _data(manifest: Mapping[str, Any], label: str) -> dict[str, Any] | None:
    for assertion in manifest.get("assertions", ()):
        if assertion["label"] == label:
            data: dict[str, Any] = assertion["data"]
            return data
    return None


def _tags(path: Path, settings: RunSettings) -> dict[str, str] | None:
    """MP4 tags; None for what is no readable video."""
    try:
        with open_container(path, settings.limits) as container:
            return dict(container.metadata)
    except InputError:
        return None


def _trust(authorities: Path | None) -> dict[str, Any]:
    if authorities is None:
        return {}
    try:
        anchors = authorities.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as exc:
        raise CannotRun(f"{authorities}: expected certificates in PEM: {exc}") from exc
    if "BEGIN CERTIFICATE" not in anchors:
        raise CannotRun(f"{authorities}: expected certificates in PEM, found none")
    return {"trust": {"user_anchors": anchors}, "verify": {**SETTINGS["verify"], "verify_trust": True}}


def verification_text(found: Verification) -> str:
    """`verify` for people."""
    lines = [f"{found.video}: {_STATES[found.state]}"]
    lines += [f"  {problem}" for problem in found.problems]
    if found.state == "unsigned":
        lines.append("  anyone may have written or changed the tags below")
    if found.signer:
        names = [str(found.signer[name]) for name in ("issuer", "common_name") if found.signer.get(name)]
        lines.append(f"{'signed by':<14}{', '.join(dict.fromkeys(names))}")
        lines.append(f"{'certificate':<14}serial number {found.signer.get('cert_serial_number')}, {_credit(found)}")
    if found.program:
        lines.append(f"{'program':<14}{found.program.get('name', '?')} {found.program.get('version', '')}".rstrip())
    if found.ai_generated:
        lines.append(f"{'AI-generated':<14}yes")
    if found.created:
        lines.append(f"{'made':<14}{found.created}")
    for name in (*_ORDER, *(name for name in found.made if name not in _ORDER)):
        if (value := found.made.get(name)) is None:
            continue
        if isinstance(value, dict):
            lines += [f"{_words(name):<14}{role} sha256 {sha256}" for role, sha256 in value.items()]
        else:
            lines.append(f"{_words(name):<14}{value}")
    if not found.made:
        lines += [f"{'made of':<14}{given.get('title', '?')}" for given in found.ingredients]
        lines += [f"{'tag':<14}{name} = {value}" for name, value in found.tags.items()]
    return "\n".join(lines)


_ORDER = tuple(field.name for field in fields(Origin))
_STATES: dict[State, str] = {
    "unchanged": "not changed since it was signed",
    "changed": "CHANGED since it was signed",
    "unsigned": "no signed manifest",
}


def _words(name: str) -> str:
    return name.removesuffix("_sha256").replace("_", " ")


def _credit(found: Verification) -> str:
    if found.trusted:
        return "trusted: by one of the given authorities"
    if found.throw_away:
        return "untrusted: a run made it for itself, as anyone can"
    return "untrusted: by none of the given authorities"

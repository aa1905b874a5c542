"""What the result of each stage is made of: facts, whose digest names the result wherever it is kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.config import RunSettings
from pipeline.ledger import Record
from pipeline.provenance.label import drawn
from pipeline.reuse.fingerprint import cache_key, digest
from pipeline.stages import STAGE_VERSIONS
from pipeline.talker import TalkerInfo, Uses
from pipeline.tasks import AssetTask, ItemTask

Facts = dict[str, Any]
"""Name -> plain value. Names read as what may change: ``input audio`` (a SHA-256), ``setting nfe``, ``weights of
renderer``, ``version of crop``. The facts of a later stage hold those of the earlier ones that it builds on."""

_ROLES = {"portrait": "image", "audio": "audio", "driver": "driver"}
CONTROLS = ("pose", "camera", "gaze")
_LABEL = "setting label"


class StageFacts:
    """Facts for one run. ``contents`` are SHA-256s of inputs by role, or of the one input of an asset."""

    def __init__(self, settings: RunSettings, info: TalkerInfo) -> None:
        self._settings = settings
        self._info = info

    def crop(self, asset: AssetTask, content: str) -> Facts:
        """Of the square picture of a portrait, or of the look for a face in a driver."""
        facts = {**self._version("crop"), f"input {_ROLES[asset.kind]}": content}
        if asset.kind == "driver":
            return {**facts, "setting detector": self._settings.detector}
        crop = None
        if asset.crop:
            crop = {"rule": asset.crop_rule, "face": self._settings.face, "detector": self._settings.detector}
        return {**facts, **_crop_facts(crop), "resolution": self._info.resolution}

    def features(self, asset: AssetTask, content: str) -> Facts:
        """Of a portrait's code, a recording's features or a driver's motion."""
        facts = {**self._version("features"), **self._model(asset.kind)}
        if asset.kind == "portrait":
            return {**facts, **self.crop(asset, content)}
        if asset.kind == "driver":
            facts["resolution"] = self._info.resolution
        return {
            **facts,
            f"input {_ROLES[asset.kind]}": content,
            "setting max_seconds": self._settings.max_seconds,
        }

    def motion(self, item: ItemTask, contents: Mapping[str, str]) -> Facts:
        """Of an item's motion: generated, or its driver's."""
        if item.mode == "driver":
            assert item.driver is not None  # noqa: S101  (the mode says so)
            return self.features(item.driver, contents["driver"])
        assert item.audio is not None  # noqa: S101  (as above)
        return {
            **self.features(item.portrait, contents["image"]),
            **self.features(item.audio, contents["audio"]),
            **self._version("motion"),
            **self._model("motion"),
            **{f"input {role}": contents[role] for role in CONTROLS if role in contents},
            # Not the seed that is drawn from the run's and from the inputs, which are among the facts.
            **{f"setting {name}": item.settings[name] for name in ("seed", "cfg_scale", "nfe")},
        }

    def render(self, item: ItemTask, contents: Mapping[str, str]) -> Facts:
        """Of an item's video. Its id is none of them, nor are the names of its files."""
        facts = {
            **self.features(item.portrait, contents["image"]),
            **self.motion(item, contents),
            **self._version("render"),
            **self._model("render"),
            **{f"input {role}": content for role, content in contents.items()},
            **{f"setting video.{name}": value for name, value in self._settings.video.model_dump().items()},
            "setting max_seconds": self._settings.max_seconds,
            "setting mode": item.mode,
            _LABEL: drawn(self._settings.label),
        }
        if item.mode == "driver":
            facts["setting driver_face"] = self._settings.driver_face
        return facts

    def crop_key(self, asset: AssetTask, content: str) -> str:
        """Store key of a portrait's picture, or of the proof that a driver shows a face."""
        return cache_key("crop", self.crop(asset, content))

    def features_key(self, asset: AssetTask, content: str) -> str:
        return cache_key("features", self.features(asset, content))

    def motion_key(self, item: ItemTask, contents: Mapping[str, str]) -> str:
        """Store key of generated motion."""
        return cache_key("motion", self.motion(item, contents))

    def fingerprint(self, item: ItemTask, contents: Mapping[str, str]) -> str:
        """Of everything that shapes an item's pictures and sound."""
        facts = self.render(item, contents)
        # A video that shows no label is that of a version that knew none.
        return digest({name: value for name, value in facts.items() if (name, value) != (_LABEL, None)})

    def _version(self, stage: str) -> Facts:
        return {f"version of {stage}": STAGE_VERSIONS[stage]}

    def _model(self, step: str) -> Facts:
        uses = self._info.uses.get(step, Uses())
        parts = sorted(self._info.weights_sha256) if uses.parts is None else uses.parts
        return {
            "model": self._info.model,
            "version of the model": self._info.version,
            **{_weights(part): self._info.weights_sha256.get(part) for part in parts},
            **{f"setting {name}": getattr(self._settings, name) for name in uses.settings},
        }


def recorded_facts(record: Record) -> Facts:
    """The facts that a record tells, but for its inputs: those that a change is looked for in."""
    apart = ("crop", "video", "label", "producer")
    plain = {name: value for name, value in record.settings.items() if name not in apart}
    return {
        _LABEL: drawn(record.settings.get("label", "none")),
        "model": record.model,
        **{f"version of {'the model' if name == 'model' else name}": v for name, v in record.versions.items()},
        **{_weights(part): sha256 for part, sha256 in record.weights_sha256.items()},
        **{f"setting {name}": value for name, value in plain.items()},
        **{f"setting video.{name}": value for name, value in record.settings.get("video", {}).items()},
        **(_crop_facts(record.settings["crop"]) if "crop" in record.settings else {}),
    }


def changes(facts: Facts, before: Facts) -> Iterator[str]:
    """Names of facts that were others before; what ``before`` does not tell is left out."""
    for name, value in facts.items():
        # A part of the weights that had no file is not told, and differs from one that has.
        if before.get(name, None if name.startswith(_weights("")) else value) != value:
            yield name


def _weights(part: str) -> str:
    return f"weights of {part}"


def _crop_facts(crop: Mapping[str, Any] | None) -> Facts:
    if crop is None:
        return {"setting crop": False}
    return {
        "setting crop": True,
        "setting crop_rule": crop["rule"],
        "setting face": crop["face"],
        "setting detector": crop["detector"],
    }

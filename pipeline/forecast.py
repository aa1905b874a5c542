"""What a run will do, stage by stage, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.config import RunSettings
from pipeline.ledger import STAGES
from pipeline.records.history import FIRST, History, Past
from pipeline.reuse.cache import CACHED_STAGES, Cache, stage_of
from pipeline.reuse.stage_facts import Facts, StageFacts
from pipeline.talker import TalkerInfo
from pipeline.tasks import AssetTask, ItemTask

_NOT_KEPT = "not in the cache"
_INPUT_CHANGED = "input {} changed"


@dataclass
class StageForecast:
    """Results of one stage: pictures, features, motions or videos."""

    compute: int = 0
    reuse: int = 0
    drop: int = 0
    """Results that leave the cache at the end of the run."""
    why: Counter[str] = field(default_factory=Counter)
    """Reasons for what is computed."""


@dataclass
class Forecast:
    """What a run will compute, reuse and drop, if nothing fails. What was never read counts as computed."""

    stages: dict[str, StageForecast] = field(default_factory=lambda: {stage: StageForecast() for stage in STAGES})
    cache_files: int = 0
    cache_bytes: int = 0
    drops_more: bool = False
    """Whether what is added may drive out more than is foreseen: its size is not known yet."""

    def as_dict(self) -> dict[str, Any]:
        cache = {"files": self.cache_files, "size_bytes": self.cache_bytes, "drops_more": self.drops_more}
        stages = {name: {**vars(stage), "why": dict(stage.why)} for name, stage in self.stages.items()}
        return {"stages": stages, "cache": cache}

    def lines(self) -> list[str]:
        """For people."""
        lines = [f"{'stage':<10}{'compute':>9}{'reuse':>9}{'drop':>9}  why"]
        for name, stage in self.stages.items():
            reasons = "; ".join(f"{count} {why}" for why, count in stage.why.most_common())
            lines.append(f"{name:<10}{stage.compute:>9}{stage.reuse:>9}{stage.drop:>9}  {reasons}".rstrip())
        more = ", and more if what is added takes it over its limit" if self.drops_more else ""
        lines.append(f"cache     {self.cache_files} results, {self.cache_bytes / 1e6:.1f} MB before the run{more}")
        return lines


class Forecaster:
    """Counts what the tasks of a plan will find done."""

    def __init__(self, settings: RunSettings, info: TalkerInfo, cache: Cache, history: History) -> None:
        self._settings, self._cache, self._history = settings, cache, history
        self._facts = StageFacts(settings, info)
        self._forecast = Forecast()
        self._used: set[str] = set()

    def forecast(
        self,
        assets: Iterable[tuple[AssetTask, str | None, str]],
        items: Iterable[tuple[ItemTask, Mapping[str, str] | None]],
        videos_reused: int,
    ) -> Forecast:
        """``assets`` come with the content of their file and an item that wants them; ``items`` with all contents."""
        for asset, content, item in assets:
            self._asset(asset, content, item)
        for task, contents in items:
            self._item(task, contents)
        self._forecast.stages["render"].reuse = videos_reused
        self._drops()
        return self._forecast

    def _asset(self, asset: AssetTask, content: str | None, item: str) -> None:
        role = "image" if asset.kind == "portrait" else asset.kind
        stages = ["features"] if asset.kind != "audio" or asset.needs_features else []
        if asset.kind == "portrait" or (asset.kind == "driver" and self._settings.driver_face == "checked"):
            stages.insert(0, "crop")
        if content is None:
            why = _INPUT_CHANGED.format(role) if self._history.knows(asset.uri) or self._history.item(item) else FIRST
            for stage in stages:
                self._compute(stage, why)
            return
        past = self._history.item(item) or self._history.use_of(role, content)
        for stage in stages:
            facts, key = (
                (self._facts.crop(asset, content), self._facts.crop_key(asset, content))
                if stage == "crop"
                else (self._facts.features(asset, content), self._facts.features_key(asset, content))
            )
            self._count(stage, key, facts, past)

    def _item(self, item: ItemTask, contents: Mapping[str, str] | None) -> None:
        past = self._history.item(item.key)
        if contents is None:
            why = FIRST if past is None else "input changed"
            if item.mode == "audio":
                self._compute("motion", why)
            self._compute("render", why)
            return
        if item.mode == "audio":
            self._count("motion", self._facts.motion_key(item, contents), self._facts.motion(item, contents), past)
        facts = self._facts.render(item, contents)
        self._compute("render", FIRST if past is None else past.why(facts, "its video is gone"))

    def _count(self, stage: str, key: str, facts: Facts, past: Past | None) -> None:
        # The second one with a key finds what the first one leaves.
        if key in self._cache or key in self._used:
            self._forecast.stages[stage].reuse += 1
        else:
            self._compute(stage, FIRST if past is None else past.why(facts, _NOT_KEPT))
        self._used.add(key)

    def _compute(self, stage: str, why: str) -> None:
        self._forecast.stages[stage].compute += 1
        self._forecast.stages[stage].why[why] += 1

    def _drops(self) -> None:
        found = self._forecast
        found.cache_files = len(self._cache.results)
        found.cache_bytes = sum(stored.size for stored in self._cache.results.values())
        for key in self._cache.superfluous(self._used):
            found.stages[stage_of(key)].drop += 1
        added = sum(found.stages[stage].compute for stage in CACHED_STAGES)
        if not self._settings.cache.keep:
            for stage in CACHED_STAGES:
                found.stages[stage].drop += found.stages[stage].compute
        else:
            found.drops_more = added > 0


def announced(forecast: Forecast) -> str:
    """One line for the start of a run."""
    parts = [f"{name} {stage.compute} to compute, {stage.reuse} reused" for name, stage in forecast.stages.items()]
    return f"stages: {'; '.join(parts)}"

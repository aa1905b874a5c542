"""What to make: everything that shapes a portrait or a clip, drawn from one seed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import count
from math import lcm
from typing import Literal

from imtalker.avatars.identity import World
from imtalker.avatars.speech.texts import LANGUAGES, Line, Split, lines
from imtalker.seeded import raw_stream
from imtalker.training.avatar_pictures import HELD_OUT_IDENTITIES
from manifests.ids import is_valid

SplitName = Literal["train", "held-out"]

_VERSION = 2
"""To be raised when drawing, speech or motion change, so that older files are made anew."""

_IDENTITIES = 2**31
_BLOCK = 256


@dataclass(frozen=True)
class PortraitRecipe:
    """The picture of an identity, ``size`` pixels wide and high."""

    identity_seed: int
    world: World
    size: int

    @property
    def name(self) -> str:
        return f"{self.world}-{self.identity_seed}"

    def as_json(self) -> str:
        """The same text for the same picture."""
        return _canonical(asdict(self))


@dataclass(frozen=True)
class ClipRecipe:
    """A line spoken by an avatar; ``number`` tells the clips of a script apart.

    Raises ValueError where its name could not be the name of a file.
    """

    number: int
    portrait: PortraitRecipe
    line: Line
    performance_seed: int

    def __post_init__(self) -> None:
        if not is_valid(self.name):
            raise ValueError(f"expected a language that can be part of a file's name, found {self.line.language!r}")

    @property
    def name(self) -> str:
        return f"{self.portrait.name}-{self.line.language}-{self.number:05d}"

    def as_json(self) -> str:
        """The same text for the same clip."""
        return _canonical(asdict(self))


@dataclass(frozen=True)
class Script:
    """Portraits and clips that are made together. Raises ValueError where two have one name."""

    portraits: tuple[PortraitRecipe, ...]
    clips: tuple[ClipRecipe, ...]

    def __post_init__(self) -> None:
        for recipes in (self.portraits, self.clips):
            repeated = [name for name, times in Counter(recipe.name for recipe in recipes).items() if times > 1]
            if repeated:
                raise ValueError(f"expected a name of its own for everything, found repeated: {', '.join(repeated)}")


def draw_script(
    *,
    identities: int,
    clips: int,
    size: int,
    seed: int,
    world: World = "full",
    languages: Sequence[str] = (),
    split: SplitName = "train",
) -> Script:
    """``identities`` portraits and ``clips`` clips in all, given to the identities in turn.

    ``languages`` take turns, too; none are all of them. Identities, sentences and voices are all of the split. More
    clips of the same seed and identities are the same clips and further ones. Raises ValueError for numbers below 1,
    an odd size or one below 16, an unknown language, and where a split has fewer identities or a language
    fewer sentences.
    """
    if identities < 1 or clips < 1:
        raise ValueError(f"expected at least one identity and one clip, found {identities} and {clips}")
    if size < 16 or size % 2:
        raise ValueError(f"expected an even size of at least 16 pixels, as H.264 needs, found {size}")
    part = Split(split)
    people = [PortraitRecipe(who, world, size) for who in identity_seeds(identities, seed=seed, split=part)]
    tongues = tuple(dict.fromkeys(languages or LANGUAGES))
    spoken = lines(clips, seed=seed, sentence_split=part, voice_split=part, languages=tongues)
    # One further from round to round: else six people would speak one of six languages each.
    round_ = lcm(identities, len(tongues))
    performances = raw_stream(f"avatars/performances/{split}", clips, seed)
    return Script(
        tuple(people),
        tuple(
            ClipRecipe(number, people[(number + number // round_) % identities], line, int(performances[number]) >> 1)
            for number, line in enumerate(spoken)
        ),
    )


def identity_seeds(number: int, *, seed: int, split: Split) -> list[int]:
    """Different identities; those of :attr:`Split.HELD_OUT` are never trained on.

    A greater ``number`` gives the same ones and further ones. Raises ValueError where the split has fewer.
    """
    first, end = (0, HELD_OUT_IDENTITIES) if split is Split.HELD_OUT else (HELD_OUT_IDENTITIES, _IDENTITIES)
    if number > end - first:
        raise ValueError(f"expected at most {end - first} identities of the split {split.value}, found {number}")
    chosen: dict[int, None] = {}
    for block in count():
        for value in raw_stream(f"avatars/identities/{split.value}/{block}", _BLOCK, seed).tolist():
            if len(chosen) == number:
                return list(chosen)
            chosen[first + value % (end - first)] = None
    raise AssertionError("count has no end")


def _canonical(values: dict[str, object]) -> str:
    return json.dumps({"version": _VERSION, **values}, sort_keys=True, ensure_ascii=False)

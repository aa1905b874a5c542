"""A script of recorded lines, which needs no espeak-ng."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from imtalker.avatars.speech.performance import Performance, enact
from imtalker.avatars.speech.texts import Line
from pipeline.avatars.recipes import ClipRecipe, PortraitRecipe, Script
from pipeline.progress import RunProgress
from tests.imtalker.avatars import recorded_speech

SIZE = 64
UTTERANCES = {name: recorded_speech.utterance(name) for name in ("fast", "papa")}
PEOPLE = (PortraitRecipe(3, "full", SIZE), PortraitRecipe(11, "narrow", SIZE))
CLIPS = tuple(
    ClipRecipe(number, person, Line(spoken.text, "en", spoken.voice, 170, 50), 70 + number)
    for number, (person, spoken) in enumerate(zip(PEOPLE, UTTERANCES.values(), strict=True))
)
SCRIPT = Script(PEOPLE, CLIPS)


def performed(recipe: ClipRecipe) -> Performance:
    """In place of espeak-ng; a function of a module, as workers need."""
    spoken = next(spoken for spoken in UTTERANCES.values() if spoken.text == recipe.line.text)
    return enact(spoken, seed=recipe.performance_seed)


def quiet() -> RunProgress:
    return RunProgress(Console(quiet=True), 30.0)


def contents(root: Path) -> dict[str, bytes]:
    """Every file beneath a folder."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}

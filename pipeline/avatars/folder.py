"""The folder of a set of avatars: what lies where, what is finished, and how files get there."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.avatars.portraits import portrait_recipe
from pipeline.avatars.recipes import ClipRecipe, PortraitRecipe
from pipeline.avatars.states import states_recipe


class AvatarFolder:
    """Paths beneath ``root``. A clip's states are written last: with the right recipe in them the clip is finished."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clips_table = root / "clips.parquet"
        self.manifest = root / "manifest.parquet"

    def portrait(self, name: str) -> Path:
        return self.root / "portraits" / f"{name}.png"

    def video(self, name: str) -> Path:
        return self.root / "clips" / f"{name}.mp4"

    def audio(self, name: str) -> Path:
        return self.root / "audio" / f"{name}.wav"

    def states(self, name: str) -> Path:
        return self.root / "states" / f"{name}.parquet"

    def frames(self, name: str) -> Path:
        """The folder of a clip's pictures in the renderer's layout."""
        return self.root / "video_frame" / name

    def frame(self, name: str, index: int) -> str:
        """The name of one of those pictures."""
        return f"{name}_{index:06d}.png"

    def landmarks(self, name: str) -> Path:
        """A clip's landmarks in the renderer's layout."""
        return self.root / "lmd" / f"{name}.txt"

    def relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def has_portrait(self, recipe: PortraitRecipe) -> bool:
        return portrait_recipe(self.portrait(recipe.name)) == recipe.as_json()

    def has_clip(self, recipe: ClipRecipe, *, frames: bool) -> bool:
        """Whether the clip is there, made by this very recipe; with ``frames``, in the renderer's layout too."""
        needed = [place(recipe.name) for place in (self.video, self.audio)]
        if frames:
            needed += [self.frames(recipe.name), self.landmarks(recipe.name)]
        return all(path.exists() for path in needed) and states_recipe(self.states(recipe.name)) == recipe.as_json()

    def clear(self, name: str) -> None:
        """Take away a clip's files, and what a stopped process has left of them."""
        for place in (self.states, self.landmarks, self.frames, self.video, self.audio):
            target = place(name)
            for path in (target, *target.parent.glob(f".{target.name}.*.part")):
                _remove(path)

    def prepare(self, *, frames: bool) -> None:
        """Make the folders. Raises OSError where that fails."""
        places = [self.portrait, self.video, self.audio, self.states]
        for place in [*places, self.frames, self.landmarks] if frames else places:
            place("any").parent.mkdir(parents=True, exist_ok=True)


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """A path beside ``target`` that takes its place when the block ends well.

    It may become a file, or a folder where there is none yet.
    """
    unfinished = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        yield unfinished
        unfinished.replace(target)
    finally:
        _remove(unfinished)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

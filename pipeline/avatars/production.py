"""Making a folder of avatars: what is there already stays, the rest is made, on any number of processes."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

from imtalker.avatars.speech.espeak import EspeakError
from imtalker.avatars.speech.performance import Performance
from pipeline.avatars.clips import spoken, write_clip
from pipeline.avatars.folder import AvatarFolder, appearing
from pipeline.avatars.portraits import save_portrait
from pipeline.avatars.recipes import ClipRecipe, Script
from pipeline.avatars.tables import write_tables
from pipeline.errors import CannotRun, ItemError
from pipeline.progress import RunProgress

Perform = Callable[[ClipRecipe], Performance]


@dataclass(frozen=True)
class Produced:
    """Counts of a production: what it made, and what it found finished. ``frames`` are those made."""

    portraits: int
    portraits_kept: int
    clips: int
    clips_kept: int
    frames: int


def produce(
    script: Script,
    folder: AvatarFolder,
    progress: RunProgress,
    *,
    frames: bool = False,
    workers: int = 1,
    perform: Perform = spoken,
) -> Produced:
    """Make what the folder lacks of a script, then its tables; ``frames`` adds the renderer's layout.

    With one worker everything happens in this process, else in so many new ones, which give the same files;
    ``perform`` must be a function of a module then.
    Raises CannotRun where espeak-ng is needed and missing, or the folder can't be written to.
    """
    with _reported(folder):
        clips = [clip for clip in script.clips if not folder.has_clip(clip, frames=frames)]
        if clips:
            # Speech is what may be impossible here, so it is tried before anything is written.
            perform(clips[0])
        folder.prepare(frames=frames)
        portraits = [portrait for portrait in script.portraits if not folder.has_portrait(portrait)]
        progress.begin("portraits", len(portraits))
        for portrait in portraits:
            with appearing(folder.portrait(portrait.name)) as path:
                save_portrait(path, portrait)
            progress.advance()
        progress.begin("clips", len(clips))
        made = 0
        for count in _counts(folder, clips, frames, workers, perform):
            made += count
            progress.advance(frames=count)
        write_tables(script, folder)
    kept = len(script.portraits) - len(portraits), len(script.clips) - len(clips)
    return Produced(len(portraits), kept[0], len(clips), kept[1], made)


def _counts(
    folder: AvatarFolder, clips: list[ClipRecipe], frames: bool, workers: int, perform: Perform
) -> Iterator[int]:
    """Make the clips, and give the number of frames of each when it is finished."""
    if workers == 1:
        for clip in clips:
            yield _make(folder, clip, frames, perform)
        return
    context = multiprocessing.get_context("spawn")
    waiting = iter(clips)
    with ProcessPoolExecutor(min(workers, max(1, len(clips))), context, _leave_interrupts) as pool:
        # No more than are worked at: what a pool was given can't be taken back.
        running = {pool.submit(_make, folder, clip, frames, perform) for clip in islice(waiting, workers)}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            running |= {pool.submit(_make, folder, clip, frames, perform) for clip in islice(waiting, len(done))}
            for future in done:
                yield future.result()


def _make(folder: AvatarFolder, clip: ClipRecipe, frames: bool, perform: Perform) -> int:
    return write_clip(folder, clip, perform(clip), frames=frames)


def _leave_interrupts() -> None:
    """Ctrl-C reaches every process of a terminal; the first one ends the others when their clips are finished."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _reported(folder: AvatarFolder) -> Iterator[None]:
    """Raise what makes going on impossible as CannotRun."""
    try:
        yield
    except EspeakError as exc:
        raise CannotRun(str(exc)) from exc
    except ItemError as exc:
        raise CannotRun(f"{exc.message}; {exc.hint}") from exc
    except OSError as exc:
        raise CannotRun(f"{folder.root} can't be written to: {exc}") from exc
    except BrokenProcessPool as exc:
        raise CannotRun(
            "a worker ended without a word, most likely for want of memory; finished clips are kept: run again with "
            "fewer --workers"
        ) from exc

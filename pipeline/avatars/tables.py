"""The tables of a folder of avatars: its clips, and the manifest for `imtalker run`."""

from __future__ import annotations

import pyarrow as pa

from manifests.table import write_table
from pipeline.avatars.folder import AvatarFolder
from pipeline.avatars.recipes import Script
from pipeline.avatars.states import states_frames
from pipeline.media.timeline import FPS

CLIPS_SCHEMA = pa.schema(
    {
        "name": pa.string(),
        "identity_seed": pa.int64(),
        "world": pa.string(),
        "size": pa.int64(),
        "text": pa.string(),
        "language": pa.string(),
        "voice": pa.string(),
        "rate": pa.int64(),
        "pitch": pa.int64(),
        "performance_seed": pa.int64(),
        "frames": pa.int64(),
        "seconds": pa.float64(),
        "portrait": pa.string(),
        "video": pa.string(),
        "audio": pa.string(),
        "states": pa.string(),
    }
)
"""The last four are paths relative to the folder."""


def write_tables(script: Script, folder: AvatarFolder) -> None:
    """Write both tables of a script whose clips are all there: a row a clip, with its portrait and its sound.

    Raises ManifestError where the folder can't be written to.
    """
    rows = []
    for clip in script.clips:
        count = states_frames(folder.states(clip.name))
        rows.append(
            {
                "name": clip.name,
                "identity_seed": clip.portrait.identity_seed,
                "world": clip.portrait.world,
                "size": clip.portrait.size,
                "text": clip.line.text,
                "language": clip.line.language,
                "voice": clip.line.voice,
                "rate": clip.line.rate,
                "pitch": clip.line.pitch,
                "performance_seed": clip.performance_seed,
                "frames": count,
                "seconds": count / FPS,
                "portrait": folder.relative(folder.portrait(clip.portrait.name)),
                "video": folder.relative(folder.video(clip.name)),
                "audio": folder.relative(folder.audio(clip.name)),
                "states": folder.relative(folder.states(clip.name)),
            }
        )
    table = pa.Table.from_pylist(rows, schema=CLIPS_SCHEMA)
    write_table(table, str(folder.clips_table))
    manifest = table.select(["name", "portrait", "audio", "language", "text"])
    manifest = manifest.rename_columns(["id", "image", "audio", "language", "text"])
    # Avatars fill their pictures as a crop does.
    write_table(manifest.append_column("crop", pa.array([False] * len(rows))), str(folder.manifest))

"""What is true of every frame of a clip, as a Parquet table."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from imtalker.avatars import STATE_FIELDS
from imtalker.avatars.speech.performance import PERFORMANCE_COLUMNS
from pipeline.avatars.recipes import ClipRecipe
from pipeline.media.timeline import FPS

LANDMARK_NUMBERS = 2 * 68
STATES_SCHEMA = pa.schema(
    [
        pa.field("frame", pa.int32(), nullable=False),
        pa.field("time_s", pa.float64(), nullable=False),
        *(pa.field(name, pa.float32(), nullable=False) for name in STATE_FIELDS),
        pa.field("landmarks", pa.list_(pa.float32()), nullable=False),
    ]
)
"""``time_s`` is the middle of the frame, at which the state holds; ``landmarks`` are x and y of 68 points in turn, in
pixels of the clip, the first pixel's middle at 0, 0."""

_RECIPE = b"recipe"


def states_table(state: torch.Tensor, landmarks: torch.Tensor, recipe: ClipRecipe) -> pa.Table:
    """``state`` float32 [T, 14] with the columns of a performance, ``landmarks`` float32 [T, 68, 2]."""
    frames = len(state)
    columns = dict(zip(PERFORMANCE_COLUMNS, state.numpy().T, strict=True))
    offsets = pa.array(range(0, (frames + 1) * LANDMARK_NUMBERS, LANDMARK_NUMBERS), pa.int32())
    return pa.Table.from_arrays(
        [
            pa.array(range(frames), pa.int32()),
            pa.array([(frame + 0.5) / FPS for frame in range(frames)], pa.float64()),
            *(pa.array(columns[name], pa.float32()) for name in STATE_FIELDS),
            pa.ListArray.from_arrays(offsets, pa.array(landmarks.flatten().numpy(), pa.float32())),
        ],
        schema=STATES_SCHEMA.with_metadata({_RECIPE: recipe.as_json()}),
    )


def states_recipe(path: Path) -> str | None:
    """The recipe of the clip that a file of states belongs to; None for any other file, and for none."""
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowInvalid):
        return None
    recipe = metadata.get(_RECIPE)
    return None if recipe is None else recipe.decode()


def states_frames(path: Path) -> int:
    """Number of frames of a clip. Raises OSError or ``pyarrow.ArrowInvalid`` for a file that can't be read."""
    return int(pq.read_metadata(path).num_rows)

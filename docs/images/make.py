"""README's pictures, made of what `make demo` made: ``python docs/images/make.py outputs/demo``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.config import InputLimits
from pipeline.media.image import load_image, resize_square
from pipeline.media.video import open_pictures

HERE = Path(__file__).parent
DEMO = HERE.parents[1] / "manifests" / "demo"
SPOKEN = {"ana-english": "ana.png", "kofi-english": "kofi.jpg", "mei-english": "mei.webp"}
DRIVEN, DRIVEN_PORTRAIT = "kofi-driven", "kofi.jpg"
SIDE, GAP = 128, 4
SHOWN = 7
"""Frames of each video on the sheet."""
STEP, MILLISECONDS = 2, 80
"""Of the animation, whose sources have 25 frames a second."""

Frames = list[np.ndarray]


def frames_of(path: Path) -> Frames:
    pictures = open_pictures(path, InputLimits())
    return [resize_square(frame, SIDE) for _, frame in pictures.at(0, 1, None)]


def beside(tiles: Frames) -> np.ndarray:
    """Pictures in a row, white between them."""
    gap = np.full((SIDE, GAP, 3), 255, np.uint8)
    return np.concatenate([part for tile in tiles for part in (gap, tile)][1:], 1)


def sheet(portraits: dict[str, np.ndarray], videos: dict[str, Frames], driver: Frames) -> Image.Image:
    """A row for each video, its portrait first; above the last one the driver's frames."""
    blank = np.full((SIDE, SIDE, 3), 255, np.uint8)
    firsts = {**{name: portraits[name] for name in SPOKEN}, "driver": blank, DRIVEN: portraits[DRIVEN]}
    rows = []
    for name, first in firsts.items():
        frames = driver if name == "driver" else videos[name]
        count = min(len(driver), len(videos[DRIVEN])) if name in ("driver", DRIVEN) else len(frames)
        rows.append(beside([first, *(frames[(2 * i + 1) * count // (2 * SHOWN)] for i in range(SHOWN))]))
    gap = np.full((GAP, rows[0].shape[1], 3), 255, np.uint8)
    return Image.fromarray(np.concatenate([part for row in rows for part in (gap, row)][1:]))


def main() -> None:
    output = Path(sys.argv[1])
    portraits = {
        name: resize_square(load_image(DEMO / file, InputLimits()), SIDE)
        for name, file in {**SPOKEN, DRIVEN: DRIVEN_PORTRAIT}.items()
    }
    videos = {name: frames_of(output / "videos" / f"{name}.mp4") for name in portraits}
    driver = frames_of(DEMO / "driver.mp4")
    sheet(portraits, videos, driver).save(HERE / "demo.png", optimize=True)
    columns = [*(videos[name] for name in SPOKEN), driver, videos[DRIVEN]]
    images = [
        Image.fromarray(beside([frames[i] for frames in columns])) for i in range(0, min(map(len, columns)), STEP)
    ]
    images[0].save(HERE / "demo.gif", save_all=True, append_images=images[1:], duration=MILLISECONDS, loop=0)


if __name__ == "__main__":
    main()

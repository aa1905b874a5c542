"""Portraits: JPEG, PNG and WebP files of any mode to RGB arrays."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from pipeline.config import InputLimits
from pipeline.errors import InputError
from pipeline.media.files import check_file

FORMATS = ("JPEG", "PNG", "WEBP")

_BROKEN = (OSError, ValueError, SyntaxError, EOFError, OverflowError, struct.error, zlib.error)
"""What Pillow's decoders raise on damaged files; `Image.UnidentifiedImageError` is an `OSError`."""


def load_image(path: Path, limits: InputLimits) -> np.ndarray:
    """Read a portrait as the published implementation does: uint8 [H, W, 3] RGB, range 0..255.

    The EXIF orientation is applied, alpha is dropped (not composed), grey is replicated, and of 16 bits the upper
    eight are kept. Of an animation the first picture is taken. The format is recognised by content, not by name.

    Raises `InputError` for anything but an intact JPEG, PNG or WebP of at most ``limits.max_image_pixels``;
    the size is read from the header, before any pixel is decoded.
    """
    check_file(path, limits)
    try:
        with Image.open(path, formats=FORMATS) as image:
            _check_pixels(image.size, limits, path)
            return _rgb(ImageOps.exif_transpose(image))
    except Image.DecompressionBombError as exc:
        raise InputError(f"{path.name}: {exc}", hint="scale the picture down") from exc
    except _BROKEN as exc:
        raise InputError(
            f"expected an intact JPEG, PNG or WebP picture, found: {path.name}: {exc}",
            hint="open the file in a viewer and save it again as PNG",
        ) from exc


def resize_square(image: np.ndarray, size: int) -> np.ndarray:
    """Scale uint8 [H, W, 3] to [size, size, 3], bilinear and antialiased; the aspect ratio is not kept.

    The published implementation's ``Resize`` on a PIL image.
    """
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


def _check_pixels(size: tuple[int, int], limits: InputLimits, path: Path) -> None:
    width, height = size
    if width * height > limits.max_image_pixels:
        raise InputError(
            f"expected at most {limits.max_image_pixels} pixels, found {width}x{height}: {path.name}",
            hint="scale the picture down, or raise limits.max_image_pixels",
        )


def _rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):  # 16 bit grey; Pillow's own conversion would clip it at 255
        grey = (np.asarray(image).astype(np.int64) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    return np.array(image.convert("RGB"))

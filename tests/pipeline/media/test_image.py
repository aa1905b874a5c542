from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.config import InputLimits
from pipeline.errors import InputError
from pipeline.media.image import load_image, resize_square
from tests.media_files import cut_file, smooth_picture

LIMITS = InputLimits()


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("ending", ["png", "webp"])
def test_lossless_colour_pictures_are_read_exactly(tmp_path: Path, mode: str, ending: str) -> None:
    picture = smooth_picture(1, 33, 21)
    path = save(tmp_path / f"a.{ending}", Image.fromarray(picture).convert(mode), lossless=True)
    assert np.array_equal(load_image(path, LIMITS), picture)


def test_alpha_is_dropped_not_composed(tmp_path: Path) -> None:
    picture = np.dstack([smooth_picture(2), np.zeros((48, 64), np.uint8)])
    path = save(tmp_path / "clear.png", Image.fromarray(picture))
    assert np.array_equal(load_image(path, LIMITS), picture[:, :, :3])


@pytest.mark.parametrize("mode", ["L", "LA", "1", "P"])
def test_grey_and_palette_pictures_are_replicated_to_rgb(tmp_path: Path, mode: str) -> None:
    grey = Image.fromarray(np.where(smooth_picture(3)[:, :, 0] > 127, 255, 0).astype(np.uint8))
    path = save(tmp_path / "grey.png", grey.convert(mode))
    assert np.array_equal(load_image(path, LIMITS), np.repeat(np.asarray(grey)[:, :, None], 3, axis=2))


def test_sixteen_bit_grey_keeps_its_upper_byte(tmp_path: Path) -> None:
    deep = np.array([[0, 255, 256], [32768, 65280, 65535]], dtype=np.uint16)
    image = load_image(save(tmp_path / "deep.png", Image.fromarray(deep)), LIMITS)
    assert image[:, :, 0].tolist() == [[0, 0, 1], [128, 255, 255]]
    assert (image == image[:, :, :1]).all()


def test_cmyk_jpeg_has_the_colours_it_was_made_of(tmp_path: Path) -> None:
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[:, :] = (200, 60, 30)
    path = save(tmp_path / "print.jpg", Image.fromarray(picture).convert("CMYK"), quality=95)
    assert np.abs(load_image(path, LIMITS).astype(int) - picture).max() <= 4


def test_exif_orientation_is_obeyed(tmp_path: Path) -> None:
    """Orientation 6: the camera was turned, the viewer must turn the picture 90 degrees clockwise."""
    picture = smooth_picture(4, 40, 24)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "turned.png", Image.fromarray(picture), exif=exif)
    assert np.array_equal(load_image(path, LIMITS), np.rot90(picture, -1))


def test_the_format_is_recognised_by_content(tmp_path: Path) -> None:
    path = save(tmp_path / "really_png.jpg", Image.fromarray(smooth_picture(5)), format="PNG")
    assert load_image(path, LIMITS).shape == (48, 64, 3)


def test_a_decompression_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    """A file of 100 bytes that claims 10 gigapixels; decoding it would fail differently, for it holds no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    with pytest.raises(InputError, match=r"10000000000 pixels|100000x100000"):
        load_image(path, LIMITS)


def test_more_pixels_than_the_limit_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(smooth_picture(6, 10, 10)))
    assert load_image(path, InputLimits(max_image_pixels=100)).shape == (10, 10, 3)
    with pytest.raises(InputError, match="at most 99 pixels, found 10x10"):
        load_image(path, InputLimits(max_image_pixels=99))


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
@pytest.mark.parametrize("keep", [0.02, 0.5, 0.9])
def test_a_cut_off_picture_is_an_input_error(tmp_path: Path, ending: str, keep: float) -> None:
    whole = save(tmp_path / f"whole.{ending}", Image.fromarray(smooth_picture(7, 200, 160)))
    with pytest.raises(InputError) as caught:
        load_image(cut_file(whole, tmp_path / f"cut.{ending}", keep), LIMITS)
    assert caught.value.hint and f"cut.{ending}" in caught.value.message


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("empty.png", b"", "empty"),
        ("text.png", b"not a picture at all" * 20, "intact JPEG, PNG or WebP"),
        ("page.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "intact JPEG, PNG or WebP"),
    ],
)
def test_what_is_not_a_picture_is_an_input_error(tmp_path: Path, name: str, content: bytes, expected: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=expected):
        load_image(path, LIMITS)


def test_other_picture_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="intact JPEG, PNG or WebP"):
        load_image(save(tmp_path / "a.gif", Image.fromarray(smooth_picture(8))), LIMITS)


def test_a_missing_file_and_a_folder_are_input_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(InputError, match="found none at"):
            load_image(path, LIMITS)


def test_a_file_over_the_size_limit_is_not_opened(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(smooth_picture(9)))
    with pytest.raises(InputError, match="expected at most 10 bytes"):
        load_image(path, InputLimits(max_file_bytes=10))


def test_resize_square_stretches_and_averages() -> None:
    picture = np.zeros((8, 4, 3), np.uint8)
    picture[:, 2:] = 240
    small = resize_square(picture, 2)
    assert small.shape == (2, 2, 3)
    # A triangle of half width 2 weighs the columns 3/4, 3/4, 1/4, 0: a seventh comes from the other half.
    assert small[:, :, 0].tolist() == [[34, 206], [34, 206]]


def test_resize_square_leaves_a_fitting_picture_alone() -> None:
    picture = smooth_picture(10, 32, 32)
    assert np.array_equal(resize_square(picture, 32), picture)

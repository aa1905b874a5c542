"""Control files: what is read, and what is refused without running or allocating anything."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.errors import InputError
from pipeline.inputs.controls import WIDTHS, read_controls

URI = "s3://bucket/controls/file"


def saved(folder: Path, array: Any, name: str = "a.npy") -> Path:
    np.save(folder / name, array, allow_pickle=True)
    return folder / name


def refused(role: str, path: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        read_controls(role, path, URI)
    assert URI in caught.value.message
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("role", list(WIDTHS))
@pytest.mark.parametrize("dtype", ["<f4", "<f8", ">f4", "<f2", "<i4", "|u1"])
def test_arrays_of_numbers_become_float32(tmp_path: Path, role: str, dtype: str) -> None:
    array = np.arange(5 * WIDTHS[role]).reshape(5, WIDTHS[role]).astype(dtype)
    for stored in (np.ascontiguousarray(array), np.asfortranarray(array)):
        found = read_controls(role, saved(tmp_path, stored), URI)
        assert list(found) == [role]
        assert found[role].dtype == np.float32
        np.testing.assert_array_equal(found[role], array.astype(np.float32))


def test_the_sequence_does_not_need_its_file_any_more(tmp_path: Path) -> None:
    path = saved(tmp_path, np.ones((2, 3), np.float32))
    found = read_controls("pose", path, URI)["pose"]
    path.write_bytes(b"")
    assert found.sum() == 6
    found += 1  # and can be written to


@pytest.mark.parametrize(
    ("role", "shape"),
    [("pose", (5, 2)), ("pose", (3,)), ("pose", (1, 5, 3)), ("pose", (0, 3)), ("gaze", (5, 3)), ("camera", ())],
)
def test_other_shapes_are_named(tmp_path: Path, role: str, shape: tuple[int, ...]) -> None:
    error = refused(role, saved(tmp_path, np.zeros(shape, np.float32)))
    assert f"has shape {list(shape)}; expected [frames, {WIDTHS[role]}]" in error.message


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_values_that_are_not_finite_as_float32(tmp_path: Path, value: float) -> None:
    array = np.zeros((5, 3))
    array[4, 2] = value
    assert "not finite" in refused("pose", saved(tmp_path, array)).message


@pytest.mark.parametrize(
    "array",
    [
        np.array([["1", "2", "3"]]),
        np.zeros((5, 3), complex),
        np.zeros((5, 3), bool),
        np.zeros(5, [("x", "f4"), ("y", "f4")]),
        np.zeros((5, 3), "datetime64[s]"),
    ],
)
def test_arrays_of_something_else(tmp_path: Path, array: np.ndarray) -> None:
    assert "expected numbers" in refused("pose", saved(tmp_path, array)).message


def npy_that_promises(shape: tuple[int, ...]) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_2_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return header.getvalue() + bytes(60)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        b"1.0,2.0,3.0\n",
        npy_that_promises((10**12, 3)),
        npy_that_promises((6, 3)),
        b"\x93NUMPY\x01\x00\x10\x00__import__('os')",
    ],
    ids=["empty", "cut", "text", "terabytes", "short", "code"],
)
def test_files_that_are_no_arrays(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    assert "is not a plain .npy array" in refused("pose", tmp_path / "a.npy").message


def test_an_archive_of_arrays(tmp_path: Path) -> None:
    with (tmp_path / "a.npy").open("wb") as file:
        np.savez(file, pose=np.zeros((5, 3)))
    assert "is an archive" in refused("pose", tmp_path / "a.npy").message


SMIRK = {"pose_params": torch.arange(12.0).reshape(4, 3), "cam": torch.ones(4, 3), "shape_params": torch.zeros(4, 300)}


@pytest.mark.parametrize("name", ["a.pt", "a.PT"])
def test_a_smirk_file_gives_pose_and_camera(tmp_path: Path, name: str) -> None:
    torch.save(SMIRK, tmp_path / name)
    found = read_controls("pose", tmp_path / name, URI)
    assert sorted(found) == ["camera", "pose"]
    np.testing.assert_array_equal(found["pose"], np.arange(12, dtype=np.float32).reshape(4, 3))
    np.testing.assert_array_equal(found["camera"], np.ones((4, 3), np.float32))


@pytest.mark.parametrize("how", ["double", "bfloat16", "int", "gradient", "old format"])
def test_tensors_of_any_kind_in_a_smirk_file(tmp_path: Path, how: str) -> None:
    pose = {
        "double": SMIRK["pose_params"].double(),
        "bfloat16": SMIRK["pose_params"].bfloat16(),
        "int": SMIRK["pose_params"].int(),
        "gradient": SMIRK["pose_params"].clone().requires_grad_(),
        "old format": SMIRK["pose_params"],
    }[how]
    torch.save({**SMIRK, "pose_params": pose}, tmp_path / "a.pt", _use_new_zipfile_serialization=how != "old format")
    found = read_controls("pose", tmp_path / "a.pt", URI)
    assert found["pose"].dtype == np.float32
    np.testing.assert_array_equal(found["pose"], np.arange(12, dtype=np.float32).reshape(4, 3))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"pose_params": SMIRK["cam"]}, "does not hold 'pose_params' and 'cam'"),
        (torch.zeros(4, 3), "does not hold"),
        ([1, 2], "does not hold"),
        ({**SMIRK, "pose_params": [[1.0, 2.0, 3.0]]}, "holds list; expected numbers"),
        ({**SMIRK, "pose_params": torch.zeros(4, 3, dtype=torch.complex64)}, "expected numbers"),
        ({**SMIRK, "pose_params": torch.zeros(4, 6)}, "has shape [4, 6]"),
        ({**SMIRK, "cam": torch.full((4, 3), float("nan"))}, "camera in s3://bucket/controls/file holds values"),
    ],
)
def test_other_torch_files(tmp_path: Path, content: Any, words: str) -> None:
    torch.save(content, tmp_path / "a.pt")
    assert words in refused("pose", tmp_path / "a.pt").message


class Hostile:
    """Unpickling this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("how", ["zip", "old format", "plain pickle", "npy", "npy as pt"])
def test_a_hostile_pickle_is_refused_and_not_run(tmp_path: Path, how: str) -> None:
    mark = tmp_path / "it ran"
    content = {**SMIRK, "extra": Hostile(mark)}
    path = tmp_path / ("a.npy" if how == "npy" else "a.pt")
    if how.startswith("npy"):
        with path.open("wb") as file:
            np.save(file, np.array([Hostile(mark)], dtype=object), allow_pickle=True)
    elif how == "plain pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
    error = refused("pose", path)
    assert not mark.exists()
    # torch's own message advises to load it unsafely.
    assert "weights_only" not in error.message + error.hint
    pickle.loads(pickle.dumps(Hostile(mark)))  # noqa: S301  (the trap itself works)
    assert mark.exists()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_damaged_torch_file_is_an_input_error_wherever_it_is_damaged(tmp_path: Path) -> None:
    torch.save(SMIRK, tmp_path / "good.pt", _use_new_zipfile_serialization=False)
    content = (tmp_path / "good.pt").read_bytes()
    generator = np.random.default_rng(0)
    path = tmp_path / "a.pt"
    for _ in range(100):
        damaged = bytearray(content[: generator.integers(1, 600)] + content[600:])
        damaged[generator.integers(0, 400)] = generator.integers(0, 256)
        path.write_bytes(bytes(damaged))
        try:
            found = read_controls("pose", path, URI)
        except InputError:
            continue
        assert found["pose"].shape[1] == 3


def test_torch_files_are_for_poses_alone(tmp_path: Path) -> None:
    torch.save(SMIRK, tmp_path / "a.pt")
    assert "is not a plain .npy array" in refused("gaze", tmp_path / "a.pt").message

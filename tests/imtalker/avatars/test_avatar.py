"""What is painted: deterministic, independent of batch and size, and moved by its state as its truth says."""

from __future__ import annotations

from math import cos, pi, sin

import pytest
import torch
import torch.nn.functional as F

from imtalker.avatars import STATE_RANGES, AvatarState, Identity, Rendering, draw_identity, render
from imtalker.avatars.pose import NECK, RISE, ZOOM

PEOPLE = [draw_identity(seed) for seed in (3, 24, 41, 46, 47, 51)]
PERSON = draw_identity(46)
SIZE = 96
TIP, EARS, INNER_TOP, INNER_BOTTOM, CHIN = 30, [0, 16], [61, 62, 63], [67, 66, 65], 8


def paint(identity: Identity = PERSON, size: int = SIZE, **fields: torch.Tensor | float) -> Rendering:
    lengths = [len(value) for value in fields.values() if isinstance(value, torch.Tensor)]
    return render(identity, AvatarState.neutral(max(lengths, default=1)).replace(**fields), size, device="cpu")


def random_states(count: int, seed: int) -> AvatarState:
    part = torch.rand(count, len(STATE_RANGES), generator=torch.Generator().manual_seed(seed))
    low, high = torch.tensor(list(STATE_RANGES.values())).unbind(1)
    return AvatarState(low + (high - low) * part)


def picture_grid(size: int) -> torch.Tensor:
    """The middles of the pixels: [2, size, size]."""
    axis = (torch.arange(size) * 2 + 1) / size - 1
    return torch.stack(torch.meshgrid(axis, axis, indexing="xy"))


def changed(a: Rendering, b: Rendering) -> torch.Tensor:
    """Where two pictures differ visibly: bool [H, W]."""
    return ((a.image - b.image).abs().amax(1) > 2 / 255)[0]


def test_shapes_ranges_and_finiteness_over_the_whole_range() -> None:
    states = random_states(24, 0)
    result = render([draw_identity(seed) for seed in range(24)], states, 48, device="cpu")
    assert result.image.shape == (24, 3, 48, 48)
    assert result.eyes.shape == result.mouth.shape == (24, 1, 48, 48)
    assert result.landmarks.shape == (24, 68, 2)
    assert result.coordinates.shape == (24, 2, 48, 48)
    for values in (result.image, result.eyes, result.mouth, result.landmarks, result.coordinates):
        assert values.dtype == torch.float32
        assert bool(values.isfinite().all())
    for values in (result.image, result.eyes, result.mouth):
        assert 0 <= float(values.min()) <= float(values.max()) <= 1


def test_painting_twice_gives_the_same_bits() -> None:
    states = random_states(len(PEOPLE), 1)
    first, second = (render(PEOPLE, states, SIZE, device="cpu") for _ in range(2))
    assert torch.equal(first.image, second.image)
    assert torch.equal(first.coordinates, second.coordinates)


def test_a_batch_is_its_pictures_one_by_one() -> None:
    states = AvatarState(random_states(len(PEOPLE), 2).values)
    together = render(PEOPLE, states, SIZE, device="cpu")
    for i, person in enumerate(PEOPLE):
        alone = render(person, states.values[i : i + 1], SIZE, device="cpu")
        torch.testing.assert_close(together.image[i : i + 1], alone.image, atol=2e-4, rtol=0)
        torch.testing.assert_close(together.eyes[i : i + 1], alone.eyes, atol=2e-4, rtol=0)
        torch.testing.assert_close(together.mouth[i : i + 1], alone.mouth, atol=2e-4, rtol=0)
        torch.testing.assert_close(together.landmarks[i : i + 1], alone.landmarks, atol=1e-3, rtol=0)
        assert float(((together.coordinates[i] - alone.coordinates[0]).abs() > 1e-3).float().mean()) < 1e-3


def test_one_identity_serves_all_states() -> None:
    states = random_states(3, 3)
    torch.testing.assert_close(
        render(PERSON, states, SIZE, device="cpu").image, render([PERSON] * 3, states, SIZE, device="cpu").image
    )


def test_a_picture_is_the_same_at_any_size() -> None:
    states = AvatarState.neutral(len(PEOPLE)).replace(mouth_open=0.5, yaw=0.2)
    large, small = (render(PEOPLE, states, size, device="cpu") for size in (256, 128))
    difference = (F.avg_pool2d(large.image, 2) - small.image).abs()
    assert float(difference.mean()) < 2 / 255
    assert float((difference.amax(1) > 0.25).float().mean()) < 2e-3
    torch.testing.assert_close((large.landmarks + 0.5) / 2, small.landmarks + 0.5, atol=1e-3, rtol=0)
    assert float((F.avg_pool2d(large.mouth, 2) - small.mouth).abs().max()) < 0.05


def test_identities_differ() -> None:
    images = render(PEOPLE, AvatarState.neutral(len(PEOPLE)), SIZE, device="cpu").image
    for i in range(len(PEOPLE)):
        for j in range(i):
            assert float((images[i] - images[j]).abs().mean()) > 0.03


@pytest.mark.parametrize("person", PEOPLE)
def test_blink_and_gaze_change_the_eyes_only(person: Identity) -> None:
    rest = paint(person)
    for field, value in (("blink", 1.0), ("blink", 0.5), ("gaze_x", 1.0), ("gaze_y", -1.0)):
        other = paint(person, **{field: value})
        moved = changed(rest, other)
        assert int(moved.sum()) > 15
        assert not bool((moved & (rest.eyes[0, 0] == 0)).any())
        assert torch.equal(rest.eyes, other.eyes)
        assert torch.equal(rest.mouth, other.mouth)


@pytest.mark.parametrize("person", PEOPLE)
def test_the_mouths_fields_change_the_mouth_and_its_surroundings_only(person: Identity) -> None:
    rest = paint(person)
    for field, value in (("mouth_open", 1.0), ("mouth_width", 1.0), ("mouth_width", -1.0), ("mouth_round", 1.0)):
        other = paint(person, **{field: value})
        moved = changed(rest, other)
        either = torch.maximum(rest.mouth, other.mouth)
        near = F.max_pool2d(either, 2 * (SIZE // 16) + 1, 1, SIZE // 16)[0, 0] > 0.5
        assert int(moved.sum()) > 20
        assert not bool((moved & ~near).any())


def test_jaw_changes_the_lower_face_only() -> None:
    rest, other = paint(), paint(jaw=1.0)
    rows = changed(rest, other).any(1).nonzero()
    assert float(rows.min()) > float(rest.landmarks[0, 33, 1]) + 1
    drop = other.landmarks[0, :, 1] - rest.landmarks[0, :, 1]
    assert float(drop[CHIN]) > 0.04 * SIZE
    assert float(drop[17:48].abs().max()) == 0


def test_brows_move_the_brows_only() -> None:
    heights = paint(brows=torch.tensor([-1.0, 0.0, 1.0])).landmarks[:, :, 1]
    assert bool((heights[:-1, 17:27] > heights[1:, 17:27]).all())
    others = [i for i in range(68) if not 17 <= i < 27]
    assert torch.equal(heights[0, others], heights[2, others])
    rows = changed(paint(), paint(brows=1.0)).any(1).nonzero()
    assert float(rows.max()) < float(heights[1, 36:48].min()) + 1


def test_lips_open_and_lids_close_steadily() -> None:
    points = paint(mouth_open=torch.linspace(0, 1, 9)).landmarks
    opening = (points[:, INNER_BOTTOM, 1] - points[:, INNER_TOP, 1]).mean(1)
    assert float(opening[0]) == pytest.approx(0, abs=1e-4)
    assert bool((opening.diff() > 0).all())
    assert float(opening[-1]) > 0.08 * SIZE

    points = paint(blink=torch.linspace(0, 1, 9)).landmarks
    for top, bottom in ((37, 41), (38, 40), (43, 47), (44, 46)):
        height = points[:, bottom, 1] - points[:, top, 1]
        assert bool((height.diff() < 0).all())
        assert float(height[-1]) == pytest.approx(0, abs=1e-4)


def test_width_and_rounding_move_the_corners_of_the_mouth() -> None:
    width = lambda r: float(r.landmarks[0, 54, 0] - r.landmarks[0, 48, 0])  # noqa: E731
    assert width(paint(mouth_round=1.0)) < width(paint(mouth_width=-1.0)) < width(paint()) < width(paint(mouth_width=1))


def test_landmarks_lie_in_their_masks_and_in_order() -> None:
    result = render(PEOPLE, AvatarState.neutral(len(PEOPLE)).replace(mouth_open=0.6, pitch=0.1), 128, device="cpu")
    for mask, points in ((result.eyes, slice(36, 48)), (result.mouth, slice(48, 68))):
        grid = (result.landmarks[:, None, points] + 0.5) / 64 - 1
        assert float(F.grid_sample(mask, grid, align_corners=False).min()) > 0.4
    x, y = result.landmarks.unbind(-1)
    assert bool((x[:, :17].diff() > 0).all())
    assert bool((x[:, 17:27].diff() > 0).all())
    assert bool((y[:, 27:31].diff() > 0).all())
    assert bool((x[:, 31:36].diff() > 0).all())
    assert bool((x[:, 36:40].diff() > 0).all()) and bool((x[:, 42:46].diff() > 0).all())
    assert bool((x[:, 48:55].diff() > 0).all()) and bool((x[:, 60:65].diff() > 0).all())
    assert bool((y.argmax(1) == CHIN).all())


def test_dark_pupils_lie_between_the_lids() -> None:
    result = paint(size=256)
    for eye in (slice(36, 42), slice(42, 48)):
        column, row = result.landmarks[0, eye].mean(0).round().long().tolist()
        assert float(result.image[0, :, row - 3 : row + 4, column - 3 : column + 4].amin(1).min()) < 0.15


def test_the_nose_moves_further_than_the_ears() -> None:
    rest, left, right = paint(), paint(yaw=-0.3), paint(yaw=0.3)
    for turned, sign in ((left, -1), (right, 1)):
        move = sign * (turned.landmarks - rest.landmarks)[0, :, 0]
        assert float(move[TIP]) > 3 * float(move[EARS].max()) > 0
        assert float(move[TIP]) > float(move[27]) > 0
    nod = (paint(pitch=0.2).landmarks - rest.landmarks)[0, :, 1]
    assert float(nod[TIP]) > 0.05 * SIZE


def test_turning_narrows_the_far_eye() -> None:
    x = paint(yaw=0.4).landmarks[0, :, 0]
    assert float(x[45] - x[42]) < 0.8 * float(x[39] - x[36])


def test_roll_scale_and_shift_are_exact() -> None:
    base = AvatarState.neutral().replace(yaw=0.2, pitch=-0.1, mouth_open=0.4)
    rest = render(PERSON, base, SIZE, device="cpu").landmarks[0]
    roll, scale, x, y = 0.4, 0.8, 0.1, -0.05
    moved = render(PERSON, base.replace(roll=roll, scale=scale, x=x, y=y), SIZE, device="cpu").landmarks[0]
    middle = (SIZE - 1) / 2
    neck = torch.tensor([0.0, (NECK + RISE) * ZOOM * SIZE / 2])
    turn = torch.tensor([[cos(roll), sin(roll)], [-sin(roll), cos(roll)]])
    expected = ((rest - middle - neck) @ turn + neck) * scale + torch.tensor([x, y]) * SIZE + middle
    torch.testing.assert_close(moved, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("person", PEOPLE)
def test_coordinates_of_the_neutral_state_are_the_pictures_own(person: Identity) -> None:
    result = paint(person)
    assert float((result.coordinates[0] - picture_grid(SIZE)).abs().max()) < 1e-3


@pytest.mark.parametrize("person", PEOPLE)
def test_coordinates_find_every_content_in_the_neutral_picture(person: Identity) -> None:
    rest = paint(person, size=128)
    for state in ({"roll": 0.2, "x": 0.05}, {"yaw": 0.25}, {"pitch": 0.15}, {"yaw": -0.2, "jaw": 0.5, "scale": 1.1}):
        moved = paint(person, size=128, **state)
        found = F.grid_sample(rest.image, moved.coordinates.permute(0, 2, 3, 1), align_corners=False)
        # Background that comes to light has no place in the neutral picture.
        elsewhere = ((moved.coordinates - picture_grid(128)).abs() > 1e-4).any(1)[0]
        visible = elsewhere & (moved.coordinates.abs() < 1).all(1)[0]
        warped = (found - moved.image).abs().mean(1)[0][visible]
        still = (rest.image - moved.image).abs().mean(1)[0][visible]
        assert float(warped.mean()) < 0.4 * float(still.mean()), state
        assert float(warped.median()) < 4 / 255


def test_coordinates_follow_the_landmarks_of_the_face() -> None:
    rest, moved = paint(size=128), paint(size=128, yaw=0.25, pitch=-0.1, roll=pi / 12, scale=0.9)
    inside = [27, 28, 29, 30, 33, 36, 39, 42, 45, 51, 57]
    grid = (moved.landmarks[:, None, inside] + 0.5) / 64 - 1
    source = F.grid_sample(moved.coordinates, grid, mode="nearest", align_corners=False)[0, :, 0].T
    torch.testing.assert_close((source + 1) * 64 - 0.5, rest.landmarks[0, inside], atol=2.0, rtol=0)


def test_wrong_calls_are_refused() -> None:
    with pytest.raises(ValueError, match="1 identity or one for each of 3 states, found 2"):
        render(PEOPLE[:2], AvatarState.neutral(3), SIZE, device="cpu")
    with pytest.raises(ValueError, match="at least 16 pixels, found 8"):
        render(PERSON, AvatarState.neutral(), 8, device="cpu")
    with pytest.raises(ValueError, match=r"blink must lie in 0..1, found 2 in frame 0"):
        paint(blink=2.0)
    with pytest.raises(ValueError, match="identity"):
        render([], AvatarState.neutral(), SIZE, device="cpu")

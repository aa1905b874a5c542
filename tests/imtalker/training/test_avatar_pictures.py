"""Training pictures of avatars: who is shown, in which state, and who never is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from imtalker.avatars import STATE_FIELDS, draw_identity, render
from imtalker.avatars.state import AvatarState
from imtalker.training.avatar_pictures import HELD_OUT_IDENTITIES, AvatarPool, draw_states
from imtalker.training.picture_data import AvatarPictures, part_of

SIZE = 32


@pytest.fixture(scope="module")
def pool() -> AvatarPool:
    """Two groups of four avatars in three states."""
    return AvatarPool.draw(3, groups=2, states=3, size=SIZE)


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def place(pool: AvatarPool, picture: torch.Tensor) -> tuple[int, int, int]:
    """Group, person and state of the one picture of the pool that is this."""
    found = ((pool.images.float() / 255 - picture).abs().amax((-3, -2, -1)) < 1e-6).nonzero().tolist()
    assert len(found) == 1
    return tuple(found[0])


def test_a_pool_shows_the_identities_of_its_seed_and_no_other(pool: AvatarPool) -> None:
    first = HELD_OUT_IDENTITIES + (3 * 2 + 1) * 4
    for person in range(4):
        shown = render(draw_identity(first + person, "full"), pool.states[1], SIZE, device="cpu")
        assert torch.equal(pool.images[1, person], (shown.image * 255).round().byte())


def test_pools_of_seeds_below_zero_are_held_out() -> None:
    """Validation draws them: their identities are below the first that is trained on."""
    held_out = AvatarPool.draw(-1, groups=1, states=2, size=SIZE)
    shown = render(draw_identity(HELD_OUT_IDENTITIES - 4, "full"), held_out.states[0], SIZE, device="cpu")
    assert torch.equal(held_out.images[0, 0], (shown.image * 255).round().byte())


def test_states_are_those_of_speech_with_mouths_of_all_shapes() -> None:
    many = torch.cat([draw_states(12, draw(seed)) for seed in range(100)])
    AvatarState(many)  # refuses what is out of range
    column = dict(zip(STATE_FIELDS, many.unbind(1), strict=True))
    assert 0.1 < column["yaw"].std() < 0.17
    assert column["yaw"].abs().max() > 0.3
    assert (column["mouth_open"] == 0).float().mean() > 0.2
    assert column["mouth_open"].max() > 0.95
    assert torch.equal(draw_states(12, draw(5)), draw_states(12, draw(5)))
    assert not torch.equal(draw_states(12, draw(5)), draw_states(12, draw(6)))


def test_a_pool_is_drawn_once(pool: AvatarPool, tmp_path: Path) -> None:
    path = tmp_path / "pools" / "3.safetensors"
    first = AvatarPool.kept(path, 3, 2, 3, SIZE)
    written = path.stat().st_mtime_ns
    second = AvatarPool.kept(path, 3, 2, 3, SIZE)
    assert path.stat().st_mtime_ns == written
    for one in (first, second):
        assert all(torch.equal(value, getattr(pool, name)) for name, value in vars(one).items())


@pytest.mark.parametrize("strangers", [0.0, 1.0])
def test_the_driver_shows_the_targets_state(pool: AvatarPool, strangers: float) -> None:
    batch = pool.batch(6, 2, draw(0), strangers)
    assert batch.driver is not None and len(batch.target) == len(batch.driver) == 12
    for row in range(12):
        group, person, state = place(pool, batch.target[row])
        reference = place(pool, batch.reference[row // 2])
        driver = place(pool, batch.driver[row])
        assert reference[:2] == (group, person) and reference[2] != state
        assert (driver[0], driver[2]) == (group, state)
        assert (driver[1] == person) == (strangers == 0)
        assert place(pool, batch.negative[row // 2])[0] != group


def test_the_truth_is_that_of_the_pictures(pool: AvatarPool) -> None:
    batch = pool.batch(4, 1, draw(1))
    assert batch.truth is not None and batch.face is not None
    for row in range(4):
        group, person, state = place(pool, batch.target[row])
        at = place(pool, batch.reference[row])
        assert torch.equal(batch.truth.target_state[row], pool.states[group, state])
        assert torch.equal(batch.truth.reference_state[row], pool.states[at[0], at[2]])
        assert torch.equal(batch.truth.target_coordinates[row], pool.coordinates[group, person, state].float())
        assert torch.equal(batch.truth.reference_coordinates[row], pool.coordinates[at].float())
        assert torch.equal(batch.face[row, 0], pool.face[group, person, state].float() / 255)


def test_chance_is_the_generators(pool: AvatarPool) -> None:
    one, two, three = (pool.batch(4, 2, draw(seed)) for seed in (5, 5, 6))
    assert torch.equal(one.target, two.target) and torch.equal(one.driver, two.driver)
    assert not torch.equal(one.target, three.target)


def pictures(folder: Path, **changes: Any) -> AvatarPictures:
    sizes = {"references": 4, "targets": 2, "groups": 2, "states": 3, "steps": 10, "seed": 0} | changes
    return AvatarPictures(folder, SIZE, strangers=0.5, world="full", **sizes)


def test_parts_make_up_the_batch_with_targets_by_their_references(tmp_path: Path) -> None:
    data = pictures(tmp_path)
    (whole,) = data.parts(7, [0], 1)
    parts = data.parts(7, [0, 1], 2)
    for name in ("reference", "negative", "target", "driver", "face"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))
    assert torch.equal(torch.cat([part.truth.target_state for part in parts]), whole.truth.target_state)
    with pytest.raises(ValueError, match="4 references can't be cut into 3"):
        part_of(whole, 0, 3)


def test_steps_have_batches_of_their_own_and_new_avatars_come(tmp_path: Path) -> None:
    data = pictures(tmp_path)
    batches = [data.parts(step, [0], 1)[0].target for step in (8, 9, 10, 8)]
    assert torch.equal(batches[0], batches[3])
    assert not torch.equal(batches[0], batches[1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.safetensors", "1.safetensors"]
    later = pictures(tmp_path, anew=[12])
    assert torch.equal(later.parts(11, [0], 1)[0].target, data.parts(11, [0], 1)[0].target)
    later.parts(12, [0], 1)
    assert (tmp_path / "2.safetensors").exists()
    held_out = [data.held_out(3) for _ in range(2)]
    assert torch.equal(held_out[0].target, held_out[1].target) and len(held_out[0].target) == 3

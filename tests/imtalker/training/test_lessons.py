"""Lessons of parts of the renderer before its training."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from threading import Barrier

import pytest
import torch
from torch import Tensor

from imtalker.renderer.renderer import Renderer
from imtalker.training.avatar_pictures import AvatarPool
from imtalker.training.lessons import CodeLesson, Lesson, RouteLesson
from imtalker.training.norms import add_norms
from imtalker.training.picture_data import part_of
from imtalker.training.pictures import PictureBatch
from imtalker.training.share import ALONE, Share
from tests.imtalker.test_renderer import SMALL

# Codes that tell a state are longer.
SIZES = replace(SMALL, dim_motion=16)

Make = Callable[..., Lesson]


@pytest.fixture(scope="module")
def batch() -> PictureBatch:
    pool = AvatarPool.draw(seed=4, groups=2, states=4, size=SMALL.resolution, world="narrow")
    return pool.batch(4, 2, torch.Generator().manual_seed(0))


def fresh() -> Renderer:
    torch.manual_seed(0)
    renderer = Renderer(SIZES)
    add_norms(renderer)
    return renderer


def codes(learning_rate: float = 1e-3, share: Share = ALONE) -> CodeLesson:
    return CodeLesson(fresh(), steps=100, learning_rate=learning_rate, equalised_rate=10.0, share=share)


def routes(learning_rate: float = 1e-3, share: Share = ALONE) -> RouteLesson:
    return RouteLesson(fresh(), steps=100, learning_rate=learning_rate, equalised_rate=10.0, share=share)


ROUTING = ("dense_feature_encoder.", "adapt.", "latent_token_decoder.", "imt.")


@pytest.mark.parametrize(
    ("make", "parts", "rate", "steps"), [(codes, ("latent_token_encoder.",), 2e-2, 40), (routes, ROUTING, 5e-3, 80)]
)
def test_what_is_taught_gets_better_and_nothing_else_moves(
    make: Make, parts: tuple[str, ...], rate: float, steps: int, batch: PictureBatch
) -> None:
    lesson = make(rate)
    before = {name: p.clone() for name, p in lesson.renderer.named_parameters()}
    losses = [lesson.step([batch])[lesson.term] for _ in range(steps)]
    assert losses[-1] < 0.75 * losses[0]
    for name, p in lesson.renderer.named_parameters():
        learns = name.startswith(parts) and not name.endswith((".v_proj.weight", ".v_proj.bias"))
        assert torch.equal(p, before[name]) or learns, name
    changed = {name for name, p in lesson.renderer.named_parameters() if not torch.equal(p, before[name])}
    assert {part for part in parts if any(name.startswith(part) for name in changed)} == set(parts)


@pytest.mark.parametrize("make", [codes, routes])
def test_it_goes_on_exactly(make: Make, batch: PictureBatch) -> None:
    whole, first = make(1e-3), make(1e-3)
    for _ in range(3):
        whole.step([batch])
    first.step([batch])
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = make(1e-3)
    second.load_state_dict(torch.load(file, weights_only=True))
    second.step([batch])
    second.step([batch])
    for name, value in whole.renderer.state_dict().items():
        assert torch.equal(value, second.renderer.state_dict()[name]), name


@dataclass(frozen=True)
class Threads(Share):
    """Of two threads of this process."""

    given: dict[int, list[Tensor]] = field(default_factory=dict)
    meet: Barrier = field(default_factory=lambda: Barrier(2, timeout=60))

    def average(self, tensors: Iterable[Tensor]) -> None:
        mine = list(tensors)
        self.given[self.rank] = [tensor.clone() for tensor in mine]
        self.meet.wait()
        for tensor, *everyones in zip(mine, *self.given.values(), strict=True):
            tensor.copy_(torch.stack(everyones).mean(0))
        self.meet.wait()


@pytest.mark.parametrize("make", [codes, routes])
def test_two_processes_learn_as_one_from_two_parts(make: Make, batch: PictureBatch) -> None:
    parts = [part_of(batch, index, 2) for index in range(2)]
    alone, first = make(1e-3), Threads(0, 2)
    shared = [make(1e-3, share) for share in (first, replace(first, rank=1))]
    for _ in range(3):
        alone.step(parts)
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(lambda lesson, part: lesson.step([part]), shared, parts))
    one, other = (lesson.renderer.state_dict() for lesson in shared)
    for name, value in one.items():
        assert torch.equal(value, other[name]), name
    wanted = dict(alone.renderer.named_parameters())
    for name, p in shared[0].renderer.named_parameters():
        # Each step of Adam is as long as its rate, so a gradient of no size may turn it round.
        torch.testing.assert_close(p, wanted[name], rtol=0, atol=1e-4, msg=name)


@pytest.mark.parametrize("make", [codes, routes])
def test_pictures_without_a_known_state_are_refused(make: Make, batch: PictureBatch) -> None:
    with pytest.raises(ValueError, match="states are known"):
        make(1e-3).step([replace(batch, truth=None)])

"""Norms of the training leave no trace: folded into the plain renderer, they give the same pictures."""

from __future__ import annotations

import torch

from imtalker.renderer.renderer import Renderer
from imtalker.training.norms import add_norms, without_norms
from tests.imtalker.test_renderer import SMALL


def pictures(rows: int, seed: int) -> torch.Tensor:
    return torch.rand(rows, 3, SMALL.resolution, SMALL.resolution, generator=torch.Generator().manual_seed(seed))


def trained_a_little() -> Renderer:
    torch.manual_seed(0)
    renderer = Renderer(SMALL)
    add_norms(renderer)
    optimiser = torch.optim.Adam(renderer.parameters(), 1e-2)
    for seed in range(3):
        renderer(pictures(4, seed), pictures(4, seed + 10)).square().mean().backward()
        optimiser.step()
        optimiser.zero_grad()
    return renderer.eval()


def test_the_plain_renderer_gives_the_same_frames() -> None:
    renderer = trained_a_little()
    plain = without_norms(renderer)
    assert plain.state_dict().keys() == Renderer(SMALL).state_dict().keys()
    forgotten = Renderer(SMALL).eval()
    forgotten.load_state_dict({name: renderer.state_dict()[name] for name in plain.state_dict()})
    driving, source = pictures(2, 20), pictures(2, 21)
    with torch.inference_mode():
        codes, expected = renderer.encode_motion(driving), renderer(driving, source)
        torch.testing.assert_close(plain.encode_motion(driving), codes, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(plain(driving, source), expected, atol=1e-5, rtol=0)
        assert (forgotten.encode_motion(driving) - codes).abs().max() > 0.1, "norms must matter to be compared"


def test_codes_of_random_weights_tell_pictures_apart() -> None:
    torch.manual_seed(0)
    renderer = Renderer(SMALL)
    with torch.no_grad():
        before = renderer.encode_motion(pictures(16, 1)).std(0).mean()
        add_norms(renderer)
        after = renderer.train().encode_motion(pictures(16, 1)).std(0).mean()
    assert before < 0.2
    assert 0.9 < after < 1.1

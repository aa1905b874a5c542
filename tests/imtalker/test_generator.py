from __future__ import annotations

from typing import Any

import pytest
import torch

from imtalker import AudioEncoderConfig, GeneratorConfig, MotionGenerator
from imtalker.audio.waveform import normalise
from imtalker.generator.conditions import Conditions, fit_sequence
from imtalker.generator.sampling import draw_noise, guided_velocity
from imtalker.generator.transformer import rotate, time_features
from imtalker.seeded import seeded_state_dict, unit_noise
from imtalker.training.losses import flow_matching_loss, velocity_loss
from tests.imtalker import golden

CONFIGS = {
    "generator": GeneratorConfig(),
    "generator_small": GeneratorConfig(
        wav2vec_sec=1,
        num_prev_frames=4,
        dim_h=64,
        fmt_depth=2,
        num_heads=4,
        mlp_ratio=2,
        wav2vec2=AudioEncoderConfig(num_hidden_layers=2, intermediate_size=256, conv_dim=(32,) * 7),
    ),
}


def seeded_generator(config: GeneratorConfig, seed: int = 1) -> MotionGenerator:
    model = MotionGenerator(config)
    model.load_state_dict(seeded_state_dict(model.state_dict(), seed))
    return model.eval()


@pytest.fixture(autouse=True)
def fixed_randomness() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def small() -> MotionGenerator:
    return seeded_generator(CONFIGS["generator_small"])


def inputs(frames: int, rows: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Audio features [rows, frames, 768] and a reference [rows, 32]."""
    generator = torch.Generator().manual_seed(frames)
    return (
        torch.randn(rows, frames, 768, generator=generator),
        torch.randn(rows, 32, generator=generator),
    )


# Golden vectors.


@torch.no_grad()
def golden_outputs(model: MotionGenerator, file: golden.Golden) -> dict[str, torch.Tensor]:
    """Everything that the golden file names under ``out.``."""
    like = model.fmt.c_embedder.weight
    given = {key: value.to(like) for key, value in file.tensors.items() if not key.startswith("out.")}
    L, P = model.config.window, model.config.num_prev_frames
    out: dict[str, torch.Tensor] = {"t_freq": time_features(given["f_t"])}
    out["rope_cos"], out["rope_sin"] = model.fmt.rotary_emb(P + L)
    out |= _evaluation(model, given)
    out |= _samples(model, given)
    out |= _training(model, given, file.seed)
    return out


def _evaluation(model: MotionGenerator, given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    out: dict[str, torch.Tensor] = {}

    def catch(name: str, module: torch.nn.Module) -> Any:
        return module.register_forward_hook(lambda module, args, result: out.setdefault(f"forward.{name}", result))

    fmt, P = model.fmt, model.config.num_prev_frames
    watched = {"x_embed": fmt.x_embedder, "t_embed": fmt.t_embedder, "c_embed": fmt.c_embedder}
    watched |= {f"block_{k}": block for k, block in enumerate(fmt.blocks)}
    handles = [catch(name, module) for name, module in watched.items()]
    motion = torch.cat([given["f_prev_x"], given["f_x"]], dim=1)
    names = ("a", "pose", "cam", "gaze")
    conditions = Conditions(*(torch.cat([given[f"f_prev_{n}"], given[f"f_{n}"]], dim=1) for n in names))
    condition = conditions.total()
    out["forward"] = fmt(given["f_t"], motion, given["ref_x"], condition)
    for handle in handles:
        handle.remove()
    null = torch.cat([condition[:, :P], conditions.without_audio()[:, P:]], dim=1)
    for scale in (2.5, 1):
        out[f"forward_cfg{scale}"] = guided_velocity(fmt, given["f_t"], motion, given["ref_x"], condition, null, scale)
    return out


def _samples(model: MotionGenerator, given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    waveform = normalise(given["wave"][None] / 32768)
    features = model.encode_audio(waveform)
    noise, reference = given["x0"], given["ref_x"]
    pose, camera, gaze = given["pose"], given["cam"], given["gaze"]
    return {
        "audio_features": features,
        "audio_projected": model.audio_projection(features),
        "gaze_projected": model.gaze_projection(gaze),
        "pose_projected": model.pose_projection(pose),
        "cam_projected": model.cam_projection(camera),
        "sample_plain": model.sample(waveform, reference, noise=noise),
        "sample_cfg1_nfe4": model.sample(waveform, reference, noise=noise, cfg_scale=1, nfe=4),
        "sample_cond": model.sample_from_features(
            features, reference, noise=noise, pose=pose, camera=camera, gaze=gaze, cfg_scale=2
        ),
        "sample_pose_only": model.sample_from_features(
            features, reference, noise=noise, pose=pose, camera=camera, nfe=5
        ),
        "sample_fixed_noise": model.sample_from_features(features, reference, noise=noise[:1].expand_as(noise)),
    }


def _training(model: MotionGenerator, given: dict[str, torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
    def features(name: str, frames: int) -> torch.Tensor:
        values = unit_noise(f"input/{name}", 2 * frames * 768, seed).astype("float32")
        return torch.from_numpy(values).view(2, frames, 768).to(given["tr_m"])

    audio = torch.cat(
        [features("tr_a_prev", model.config.num_prev_frames), features("tr_a", model.config.window)], dim=1
    )
    pose, camera, gaze = (torch.cat([given[f"tr_{n}_prev"], given[f"tr_{n}"]], dim=1) for n in ("pose", "cam", "gaze"))
    motion, noise, t = given["tr_m"], given["tr_noise"], given["tr_t"]
    at = t[:, None, None]
    predicted = model(
        t,
        at * motion + (1 - at) * noise,
        given["tr_m_prev"],
        given["tr_ref"],
        model.project(audio, pose=pose, camera=camera, gaze=gaze),
    )
    return {
        "train_pred": predicted,
        "train_fm_loss": flow_matching_loss(predicted, motion, noise)[None],
        "train_velocity_loss": velocity_loss(predicted, motion, noise)[None],
    }


@pytest.fixture(scope="module")
def golden_runs() -> dict[str, tuple[golden.Golden, dict[str, torch.Tensor]]]:
    runs = {}
    for name, config in CONFIGS.items():
        file = golden.load(name)
        runs[name] = file, golden_outputs(seeded_generator(config, file.seed), file)
    return runs


Runs = dict[str, tuple[golden.Golden, dict[str, torch.Tensor]]]


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_golden_covers_every_output(golden_runs: Runs, name: str) -> None:
    file, outputs = golden_runs[name]
    assert set(outputs) == set(file.tolerances)


@pytest.mark.parametrize(
    ("name", "output"), [(name, output) for name in sorted(CONFIGS) for output in golden.load(name).tolerances]
)
def test_golden(golden_runs: Runs, name: str, output: str) -> None:
    file, outputs = golden_runs[name]
    file.check(output, outputs[output])


def test_the_golden_check_sees_one_wrong_value(golden_runs: Runs) -> None:
    file, outputs = golden_runs["generator_small"]
    wrong = outputs["forward"].clone()
    wrong[0, -1, -1] += 2 * file.atol("forward")
    with pytest.raises(AssertionError, match=r"generator_small: out\.forward deviates"):
        file.check("forward", wrong)


def test_golden_in_double_precision() -> None:
    file = golden.load("generator_small")
    model = seeded_generator(CONFIGS["generator_small"], file.seed).double()
    for output, tensor in golden_outputs(model, file).items():
        file.check(output, tensor, atol=1e-6)


# Parameters.


def test_state_dict_is_the_published_one() -> None:
    with torch.device("meta"):
        state = MotionGenerator(GeneratorConfig()).state_dict()
    spec = golden.state_spec("generator")
    assert list(state) == list(spec)
    assert {key: tuple(value.shape) for key, value in state.items()} == spec


def test_a_fresh_model_is_at_rest() -> None:
    """As training starts: the velocity is zero everywhere, so sampling returns the noise."""
    model = MotionGenerator(CONFIGS["generator_small"])
    features, reference = inputs(30)
    noise = torch.randn(2, 1, 25, 32)
    motion = model.sample_from_features(features, reference, noise=noise)
    assert torch.equal(motion, noise.transpose(0, 1).reshape(1, 50, 32)[:, :30])


def test_gradients_reach_all_but_the_audio_encoder(small: MotionGenerator) -> None:
    features, reference = inputs(29)
    conditions = small.project(features, pose=torch.randn(1, 29, 3), camera=torch.randn(1, 29, 3))
    state = torch.randn(1, 25, 32)
    velocity = small(torch.rand(1), state, torch.randn(1, 4, 32), reference, conditions)
    velocity.square().mean().backward()
    touched = {name.split(".")[0] for name, p in small.named_parameters() if p.grad is not None}
    small.zero_grad(set_to_none=True)
    assert touched == {"fmt", "audio_projection", "pose_projection", "cam_projection"}


def test_another_frame_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="fps=30"):
        MotionGenerator(GeneratorConfig(fps=30.0))


# The transformer's parts in closed form.


def test_time_zero_has_cosines_of_one_and_sines_of_zero() -> None:
    features = time_features(torch.zeros(2))
    assert torch.equal(features, torch.cat([torch.ones(2, 128), torch.zeros(2, 128)], dim=1))


def test_rotation_depends_on_the_distance_alone(small: MotionGenerator) -> None:
    cos, sin = small.fmt.rotary_emb(12)
    q, k = torch.randn(1, 16).expand(12, 16), torch.randn(1, 16).expand(12, 16)
    products = rotate(q, cos, sin) @ rotate(k, cos, sin).T
    for distance in range(-11, 12):
        diagonal = products.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-5, rtol=0)
    torch.testing.assert_close(products.diagonal(), (q * k).sum(dim=1), atol=1e-5, rtol=0)


def test_half_precision_does_not_round_the_rotary_angles(small: MotionGenerator) -> None:
    expected = small.fmt.rotary_emb(60)
    small.fmt.rotary_emb.bfloat16()
    actual = small.fmt.rotary_emb(60)
    small.fmt.rotary_emb.float()
    assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))


# Guidance.


@torch.no_grad()
def test_guidance_is_linear_in_its_scale(small: MotionGenerator) -> None:
    t, motion, reference = torch.rand(1), torch.randn(2, 29, 32), torch.randn(2, 32)
    condition, null = torch.randn(2, 29, 32), torch.randn(2, 29, 32)
    with_audio = small.fmt(t, motion, reference, condition)
    without = small.fmt(t, motion, reference, null)
    for scale in (0.0, 1.0, 2.5):
        actual = guided_velocity(small.fmt, t, motion, reference, condition, null, scale)
        torch.testing.assert_close(actual, without + scale * (with_audio - without), atol=2e-5, rtol=0)


def test_guidance_keeps_the_audio_of_earlier_windows(small: MotionGenerator) -> None:
    """At scale 0 a window ignores its own audio, but still hears that of its context."""
    features, reference = inputs(50)
    later, earlier = features.clone(), features.clone()
    later[:, 25:] += 1.0
    earlier[:, 24] += 1.0
    base = small.sample_from_features(features, reference, cfg_scale=0)
    assert torch.equal(small.sample_from_features(later, reference, cfg_scale=0), base)
    changed = small.sample_from_features(earlier, reference, cfg_scale=0)
    assert torch.equal(changed[:, :25], base[:, :25])
    assert not torch.allclose(changed[:, 25:], base[:, 25:], atol=1e-3)


# Windows.


def test_windows_only_look_back(small: MotionGenerator) -> None:
    features, reference = inputs(75)
    whole = small.sample_from_features(features, reference)
    start = small.sample_from_features(features[:, :50], reference)
    torch.testing.assert_close(whole[:, :50], start, atol=1e-5, rtol=0)


def test_a_short_last_window_repeats_its_last_frame(small: MotionGenerator) -> None:
    features, reference = inputs(33)
    filled = torch.cat([features, features[:, -1:].expand(-1, 17, -1)], dim=1)
    motion = small.sample_from_features(features, reference)
    assert motion.shape == (1, 33, 32)
    torch.testing.assert_close(motion, small.sample_from_features(filled, reference)[:, :33], atol=1e-6, rtol=0)


def test_one_point_of_time_returns_the_noise(small: MotionGenerator) -> None:
    features, reference = inputs(33)
    noise = torch.randn(2, 1, 25, 32)
    motion = small.sample_from_features(features, reference, noise=noise, nfe=1)
    assert torch.equal(motion, noise.transpose(0, 1).reshape(1, 50, 32)[:, :33])


# Noise and seeds.


def test_noise_of_seed_42_is_pinned() -> None:
    start = draw_noise([42], 1, 50, 32).flatten()[:6].tolist()
    assert start == pytest.approx([1.9269153, 1.4872841, 0.9007172, -2.1055210, 0.6784184, -1.2345448], abs=1e-6)


def test_noise_is_drawn_per_row_and_window() -> None:
    noise = draw_noise([7, 8, 7], 3, 50, 32)
    assert noise.shape == (3, 3, 50, 32)
    assert torch.equal(noise[:, 0], noise[:, 2])
    assert torch.equal(noise[:2, 1:2], draw_noise([8], 2, 50, 32))
    different = [noise[0, 0], noise[1, 0], noise[0, 1]]
    assert len({tensor.sum().item() for tensor in different}) == 3


def test_the_seed_decides(small: MotionGenerator) -> None:
    features, reference = inputs(30)
    torch.manual_seed(0)
    first = small.sample_from_features(features, reference, seed=5)
    torch.manual_seed(1)
    assert torch.equal(small.sample_from_features(features, reference, seed=5), first)
    assert not torch.allclose(small.sample_from_features(features, reference, seed=6), first, atol=1e-3)
    assert small.sample_from_features(features, reference, seed=2**63 - 1).isfinite().all()


def test_a_row_does_not_depend_on_its_neighbours(small: MotionGenerator) -> None:
    features, reference = inputs(33, rows=3)
    pose, gaze = torch.randn(3, 33, 3), torch.randn(20, 2)
    together = small.sample_from_features(features, reference, pose=pose, gaze=gaze, seed=[1, 2, 3])
    for row in range(3):
        alone = small.sample_from_features(
            features[row : row + 1],
            reference[row : row + 1],
            pose=pose[row],
            gaze=gaze[None],
            seed=[row + 1],
        )
        torch.testing.assert_close(together[row], alone[0], atol=2e-5, rtol=0)


def test_one_seed_for_a_batch_gives_every_row_its_noise(small: MotionGenerator) -> None:
    features, reference = inputs(30)
    both = small.sample_from_features(features.repeat(2, 1, 1), reference.repeat(2, 1), seed=9)
    torch.testing.assert_close(both[0], both[1])


# Conditions.


def test_sequences_are_cut_or_filled_with_zeros() -> None:
    sequence = torch.ones(1, 3, 2)
    assert torch.equal(fit_sequence(sequence, 2), torch.ones(1, 2, 2))
    assert torch.equal(fit_sequence(sequence, 5), torch.cat([sequence, torch.zeros(1, 2, 2)], dim=1))


def test_an_absent_condition_is_not_a_sequence_of_zeros(small: MotionGenerator) -> None:
    features, reference = inputs(25)
    absent = small.sample_from_features(features, reference)
    zeros = small.sample_from_features(features, reference, pose=torch.zeros(25, 3))
    assert not torch.allclose(absent, zeros, atol=1e-3)


# From the waveform, and what is refused.


@pytest.mark.parametrize(("samples", "frames"), [(1, 1), (640, 1), (641, 2), (16000, 25), (16001, 26)])
def test_a_waveform_of_any_length_has_its_frames(small: MotionGenerator, samples: int, frames: int) -> None:
    waveform = torch.randn(2, samples)
    motion = small.sample(waveform, torch.randn(2, 32), nfe=2)
    assert motion.shape == (2, frames, 32)
    assert motion.isfinite().all()


def test_sampling_is_encoding_then_sampling_from_features(small: MotionGenerator) -> None:
    waveform, reference = torch.randn(1, 9000), torch.randn(1, 32)
    features = small.encode_audio(waveform)
    assert features.shape == (1, 15, 768)
    expected = small.sample_from_features(features, reference, cfg_scale=2, nfe=3, seed=4)
    assert torch.equal(small.sample(waveform, reference, cfg_scale=2, nfe=3, seed=4), expected)


@pytest.mark.parametrize(
    ("waveform", "message"),
    [
        (torch.zeros(100), r"\[B, N\].*found torch.float32 \[100\]"),
        (torch.zeros(1, 0), r"at least one row and one sample, found torch.float32 \[1, 0\]"),
        (torch.zeros(1, 100, dtype=torch.int16), "floating point.*torch.int16"),
        (torch.full((1, 100), float("nan")), "must be finite"),
    ],
)
def test_unusable_waveforms_are_refused(small: MotionGenerator, waveform: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small.encode_audio(waveform)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"features": torch.zeros(30, 768)}, r"features must have the shape \[any, any, 768\], found \[30, 768\]"),
        ({"features": torch.zeros(2, 0, 768)}, r"one frame, found \[2, 0, 768\]"),
        ({"reference": torch.zeros(1, 32)}, r"reference must have the shape \[2, 32\], found \[1, 32\]"),
        ({"noise": torch.zeros(1, 2, 25, 32)}, r"noise must have the shape \[2, 2, 25, 32\], found \[1, 2, 25, 32\]"),
        ({"pose": torch.zeros(30, 2)}, r"pose must be \[frames, 3\].*found \[30, 2\]"),
        ({"camera": torch.zeros(3, 30, 3)}, r"camera must be .* 1 or 2; found \[3, 30, 3\]"),
        ({"gaze": torch.zeros(0, 2)}, r"gaze must be .*at least one frame.*found \[0, 2\]"),
        ({"seed": [1, 2, 3]}, r"one per row of the batch \(2\); found 3"),
        ({"cfg_scale": float("nan")}, "cfg_scale must be finite"),
        ({"nfe": 0}, "nfe .* at least 1, found 0"),
    ],
)
def test_what_does_not_fit_is_refused(small: MotionGenerator, changed: dict[str, Any], message: str) -> None:
    features, reference = inputs(30, rows=2)
    arguments = {"features": features, "reference": reference} | changed
    with pytest.raises(ValueError, match=message):
        small.sample_from_features(**arguments)

"""Named sizes of the model, and where their weights come from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from imtalker.config import AudioEncoderConfig, GeneratorConfig, RendererConfig

if TYPE_CHECKING:
    from imtalker.generator.generator import MotionGenerator
    from imtalker.renderer.renderer import Renderer

    Network = TypeVar("Network", Renderer, MotionGenerator)


@dataclass(frozen=True)
class Preset:
    """A model that can be asked for by name."""

    name: str
    renderer: RendererConfig
    generator: GeneratorConfig
    weights: Literal["published", "trained", "seeded"]
    """``published``: from checkpoint files that are fetched. ``trained``: part of this package (`pretrained_files`).
    ``seeded``: untrained stand-ins that are made on the spot."""
    seed: int = 0
    """Selects the seeded weights."""


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset("imtalker", RendererConfig(), GeneratorConfig(), "published"),
        Preset(
            "imtalker-tiny",
            RendererConfig(
                resolution=128,
                channels=(48, 32, 16, 8),
                motion_levels=3,
                motion_encoder_channels=(16, 32, 48, 48, 48),
                dim_identity=48,
                dim_hidden=48,
                num_heads=2,
                swin_res_threshold=64,
            ),
            GeneratorConfig(
                dim_h=64,
                fmt_depth=2,
                num_heads=4,
                mlp_ratio=2.0,
                wav2vec2=AudioEncoderConfig(
                    hidden_size=64,
                    num_hidden_layers=2,
                    num_attention_heads=4,
                    intermediate_size=128,
                    conv_dim=(32,) * 7,
                    num_conv_pos_embeddings=32,
                    num_conv_pos_embedding_groups=4,
                ),
            ),
            "seeded",
            seed=1,
        ),
        Preset(
            "imtalker-demo",
            RendererConfig(
                resolution=128,
                channels=(128, 96, 64, 32),
                motion_levels=4,
                motion_encoder_channels=(16, 32, 64, 96, 96),
                dim_identity=128,
                dim_hidden=128,
                num_heads=2,
                window_size=4,
                # Cells of two pixels: what attention moves by parts of a cell keeps no detail finer than a cell.
                swin_res_threshold=128,
                synthesis_threshold=64,
            ),
            GeneratorConfig(
                dim_h=192,
                fmt_depth=6,
                num_heads=4,
                mlp_ratio=2.0,
                # Its windows begin with twitches of the head otherwise.
                join_frames=6,
                wav2vec2=AudioEncoderConfig(
                    hidden_size=128,
                    num_hidden_layers=4,
                    num_attention_heads=4,
                    intermediate_size=384,
                    conv_dim=(96,) * 7,
                    num_conv_pos_embeddings=32,
                    num_conv_pos_embedding_groups=8,
                ),
            ),
            "trained",
        ),
    )
}


def find_preset(name: str) -> Preset:
    """The preset called ``name``; raises ValueError that lists the known ones."""
    try:
        return PRESETS[name]
    except KeyError:
        raise ValueError(f"unknown model {name!r}; known: {', '.join(PRESETS)}") from None


def pretrained_files(preset: Preset) -> dict[str, Path]:
    """The safetensors files of a ``trained`` preset by network, ``renderer`` and ``generator``; empty for others."""
    if preset.weights != "trained":
        return {}
    folder = Path(__file__).parent / "pretrained" / preset.name
    return {network: folder / f"{network}.safetensors" for network in ("renderer", "generator")}


def build_seeded(preset: Preset) -> tuple[Renderer, MotionGenerator]:
    """Both networks of ``preset`` with its seeded weights: float32, on the CPU, in evaluation mode.

    The same bits on every machine (see `imtalker.seeded`). The videos they make show no face. Raises ValueError
    for a preset with weights of its own.
    """
    return seeded_renderer(preset), seeded_generator(preset)


def seeded_renderer(preset: Preset) -> Renderer:
    """The renderer of `build_seeded`, alone."""
    from imtalker.renderer.renderer import Renderer

    _check_seeded(preset)
    return _seeded(Renderer(preset.renderer), preset.seed)


def seeded_generator(preset: Preset, *, hears: bool = True) -> MotionGenerator:
    """The generator of `build_seeded`, alone, and without its audio encoder if it needn't hear."""
    from imtalker.generator.generator import MotionGenerator

    _check_seeded(preset)
    return _seeded(MotionGenerator(preset.generator, hears=hears), preset.seed)


def _check_seeded(preset: Preset) -> None:
    if preset.weights != "seeded":
        raise ValueError(f"the weights of {preset.name!r} are {preset.weights}, not seeded: load its checkpoints")


def _seeded(network: Network, seed: int) -> Network:
    from imtalker.seeded import seeded_state_dict

    network.load_state_dict(seeded_state_dict(network.state_dict(), seed))
    return network.eval()

"""IMTalker (arXiv 2511.22167) in plain PyTorch: renderer, motion generator, audio encoder.

Names are imported on first use, so ``import imtalker`` loads neither torch nor transformers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imtalker.checkpoints import CheckpointError, load_generator, load_renderer
    from imtalker.config import AudioEncoderConfig, GeneratorConfig, RendererConfig
    from imtalker.engine.engine import PreparedSource, RenderEngine
    from imtalker.generator.generator import MotionGenerator
    from imtalker.renderer.renderer import Renderer

__all__ = [
    "AudioEncoderConfig",
    "CheckpointError",
    "GeneratorConfig",
    "MotionGenerator",
    "PreparedSource",
    "RenderEngine",
    "Renderer",
    "RendererConfig",
    "load_generator",
    "load_renderer",
]

_HOMES = {
    "AudioEncoderConfig": "imtalker.config",
    "CheckpointError": "imtalker.checkpoints",
    "GeneratorConfig": "imtalker.config",
    "MotionGenerator": "imtalker.generator.generator",
    "PreparedSource": "imtalker.engine.engine",
    "RenderEngine": "imtalker.engine.engine",
    "Renderer": "imtalker.renderer.renderer",
    "RendererConfig": "imtalker.config",
    "load_generator": "imtalker.checkpoints",
    "load_renderer": "imtalker.checkpoints",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)

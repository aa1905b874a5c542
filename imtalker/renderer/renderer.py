"""The renderer as a whole."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from imtalker.config import RendererConfig
from imtalker.renderer.identity import IdentityEncoder
from imtalker.renderer.motion import IdentityAdaptiveModule, MotionDecoder, MotionEncoder
from imtalker.renderer.synthesis import SynthesisNetwork
from imtalker.renderer.transfer import ImplicitMotionTransfer, SourceMaps


@dataclass(frozen=True)
class PreparedSource:
    """Everything that depends on the source picture alone."""

    identity: Tensor
    """[B, dim_identity]"""
    motion: Tensor
    """The source's own motion code, [B, dim_motion]."""
    maps: SourceMaps


class Renderer(nn.Module):
    """Source pictures and motion codes in, frames out. Attribute names are those of the published checkpoints.

    Call ``eval()`` before rendering: batch norms then use their stored statistics.
    """

    def __init__(self, config: RendererConfig | None = None) -> None:
        super().__init__()
        self.config = config or RendererConfig()
        self.dense_feature_encoder = IdentityEncoder(self.config)
        self.latent_token_encoder = MotionEncoder(self.config)
        self.latent_token_decoder = MotionDecoder(self.config)
        self.frame_decoder = SynthesisNetwork(self.config)
        self.adapt = IdentityAdaptiveModule(self.config)
        self.imt = ImplicitMotionTransfer(self.config)

    def encode_identity(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        """image [B, 3, R, R] in 0..1 -> feature maps coarse to fine, identity [B, dim_identity]."""
        return self.dense_feature_encoder(self._checked(image))

    def encode_motion(self, image: Tensor) -> Tensor:
        """image [B, 3, R, R] in 0..1 -> motion code [B, dim_motion]."""
        return self.latent_token_encoder(self._checked(image))

    def motion_maps(self, motion: Tensor, identity: Tensor) -> list[Tensor]:
        """motion [B, dim_motion], identity [B or 1, dim_identity] -> maps of the attention levels."""
        return self.latent_token_decoder(self.adapt(motion, identity))

    def prepare(self, source: Tensor, motion: Tensor | None = None) -> PreparedSource:
        """Do all source-side work.

        source [B, 3, R, R] in 0..1; motion [B, dim_motion] is the source's own code when it is known already.
        """
        features, identity = self.encode_identity(source)
        if motion is None:
            motion = self.encode_motion(source)
        maps = self.imt.prepare(self.motion_maps(motion, identity), features)
        return PreparedSource(identity, motion, maps)

    def render(self, prepared: PreparedSource, motion: Tensor) -> Tensor:
        """motion [B, dim_motion]; prepared of batch 1 or B -> frames [B, 3, R, R] in 0..1."""
        aligned = self.imt(self.motion_maps(motion, prepared.identity), prepared.maps)
        return self.frame_decoder(aligned)

    def forward(self, driving: Tensor, source: Tensor) -> Tensor:
        """Frames with the source's face and the driving pictures' motion; all float32 [B, 3, R, R] in 0..1."""
        return self.render(self.prepare(source), self.encode_motion(driving))

    def _checked(self, image: Tensor) -> Tensor:
        side = self.config.resolution
        if image.ndim != 4 or image.shape[1:] != (3, side, side):
            raise ValueError(f"expected pictures [B, 3, {side}, {side}], got {list(image.shape)}")
        return image

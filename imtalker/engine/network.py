"""The renderer's networks, folded and placed: the work of a step without the bookkeeping around it."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from imtalker.engine.convolution import pack_convolutions
from imtalker.engine.encoders import FoldedIdentityEncoder, FoldedMotionEncoder
from imtalker.engine.motion import FoldedAdaptation, FoldedMotionDecoder
from imtalker.engine.source import PreparedSource, SourceTables
from imtalker.engine.synthesis import FoldedSynthesis
from imtalker.engine.transfer import FoldedTransfer
from imtalker.renderer.renderer import Renderer


class RenderNetwork(nn.Module):
    """Everything up to the aligned features is float32, the synthesis network is ``dtype``.

    The best-match choice of the transfer is discontinuous in the motion maps, so half precision before it would
    show as blocks that jump.
    """

    def __init__(self, renderer: Renderer, device: torch.device, dtype: torch.dtype, *, pack: bool) -> None:
        super().__init__()
        config = renderer.config
        self.dtype = dtype
        with torch.no_grad():
            self.identity = FoldedIdentityEncoder(renderer.dense_feature_encoder)
            self.motion = FoldedMotionEncoder(renderer.latent_token_encoder)
            self.adapt = FoldedAdaptation(renderer.adapt, config.dim_motion)
            self.decoder = FoldedMotionDecoder(renderer.latent_token_decoder)
            # Rounding of the source's maps goes into the best matches of all frames, and is spared once per source.
            self.source_decoder = copy.deepcopy(renderer.latent_token_decoder).double()
            self.transfer = FoldedTransfer(renderer.imt, dtype)
            self.synthesis = FoldedSynthesis(renderer.frame_decoder, config.level_resolutions)
        self.synthesis.to(dtype)
        self.to(device)
        if pack:
            pack_convolutions(self)

    def prepare(self, picture: Tensor) -> PreparedSource:
        """picture float32 [3, R, R] on the device."""
        image = picture[None].contiguous(memory_format=torch.channels_last)
        features, identity = self.identity(image)
        addend = self.adapt.from_identity(identity.double())
        motion = self.motion(image)
        maps = [x.float() for x in self.source_decoder(self.adapt(motion, addend))]
        return PreparedSource(picture, motion, addend, self.transfer.prepare(maps, features))

    def pictures(self, motion: Tensor, identity: Tensor, tables: SourceTables) -> tuple[Tensor, Tensor]:
        """Motion codes float32 [B, dim_motion] -> pictures float32 [B, R, R, 3] in 0..1, whether finite, bool [B].

        Finiteness is that of the logits: the sigmoid would hide an overflow.
        """
        aligned, _ = self.transfer(self.decoder(self.adapt(motion, identity).float()), tables)
        logits = self.synthesis(aligned)
        finite = logits.sum((1, 2, 3), dtype=torch.float32).isfinite()
        return logits.float().sigmoid(), finite

    def best_matches(self, motion: Tensor, source: PreparedSource) -> Tensor:
        """Motion codes float32 [B, dim_motion] -> int64 [B, N], see `FoldedTransfer`."""
        _, best = self.transfer(self.decoder(self.adapt(motion, source.identity).float()), source.tables)
        if best is None:
            raise ValueError("every level attends: there is nothing to choose")
        return best

"""Batch norms while training, for the layers of the published model that have none.

The motion encoder, the tail of the identity encoder and the adaptation are deep and without norms. From random weights
they say nearly the same of every picture, and hardly learn. With a batch norm (Ioffe and Szegedy, 2015, arXiv
1502.03167) behind each of their layers they learn at once; at the end every norm is folded into the layer before it,
which leaves the plain architecture.

While norms use the statistics of a batch, the pictures beside one tell something of it: with eight of them, pictures
were 2 dB worse as soon as the running statistics were used. So these are used for the rest of a training, too
(`keep_statistics`), and the other layers get used to them.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from imtalker.layers.equalised import BiasedLeakyReLU, EqualConv2d, EqualLinear
from imtalker.renderer.renderer import Renderer


class NormedActivation(BiasedLeakyReLU):
    """A biased activation behind a batch norm."""

    norm: nn.BatchNorm2d

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.norm(x))


class NormedLinear(EqualLinear):
    norm: nn.BatchNorm1d

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.norm(super().forward(x)))


def add_norms(renderer: Renderer) -> None:
    """Put the norms in, in place. The parameters' names stay; those of the norms are added."""
    for _, activation in _convolutions(renderer):
        activation.__class__ = NormedActivation
        activation.add_module("norm", nn.BatchNorm2d(activation.bias.shape[1]))
    for linear in _linears(renderer):
        linear.__class__ = NormedLinear
        linear.add_module("norm", nn.BatchNorm1d(linear.weight.shape[0]))


def keep_statistics(renderer: Renderer) -> None:
    """Until ``train`` is called again, the norms use their running statistics and leave them as they are."""
    for module in renderer.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.eval()


@torch.no_grad()
def without_norms(renderer: Renderer) -> Renderer:
    """The plain renderer that does what ``renderer``, with norms, does in evaluation mode."""
    plain = Renderer(renderer.config)
    state = {name: value.detach().cpu() for name, value in renderer.state_dict().items()}
    plain.load_state_dict({name: state[name] for name in plain.state_dict()})
    for (conv, activation), (_, normed) in zip(_convolutions(plain), _convolutions(renderer), strict=True):
        gain, shift = _affine(cast(NormedActivation, normed).norm)
        conv.weight.mul_(gain[:, None, None, None])
        activation.bias.add_(shift[:, None, None])
    for linear, normed_linear in zip(_linears(plain), _linears(renderer), strict=True):
        gain, shift = _affine(cast(NormedLinear, normed_linear).norm)
        linear.weight.mul_(gain[:, None])
        linear.bias.copy_(linear.bias * gain + shift)
    return plain.eval()


def _convolutions(renderer: Renderer) -> list[tuple[EqualConv2d, BiasedLeakyReLU]]:
    pairs = []
    for block in renderer.latent_token_encoder.res_blocks:
        for layer in (block.conv1, block.conv2, block.skip):
            *_, conv, activation = cast(nn.Sequential, layer)
            pairs.append((conv, activation))
    return cast(list[tuple[EqualConv2d, BiasedLeakyReLU]], pairs)


def _linears(renderer: Renderer) -> list[EqualLinear]:
    encoder, identity, adapt = renderer.latent_token_encoder, renderer.dense_feature_encoder, renderer.adapt
    stacks = [[*network.linear_layers, network.final_linear] for network in (encoder, identity, adapt)]
    return cast(list[EqualLinear], [layer for stack in stacks for layer in stack])


def _affine(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """In evaluation mode a norm is ``gain * x + shift``."""
    mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    gain = norm.weight * torch.rsqrt(variance + norm.eps)
    return gain.cpu(), (norm.bias - gain * mean).cpu()

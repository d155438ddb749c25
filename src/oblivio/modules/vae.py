"""A small variational autoencoder of feature vectors, as a net beside the model."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from oblivio.core.errors import BadInput
from oblivio.core.seeds import mix
from oblivio.core.surgery import surgery


class VAE(nn.Module):
    """Encoder and mirrored decoder of linear layers with ReLU between; inputs are brought to one scale first.

    Buffers ``centre`` (width,) and ``scale`` () say how, ``latent`` is the size of a code;
    ``forward`` takes inputs as they are.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, width: int, hidden: Sequence[int], latent: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("scale", torch.ones(()))
        self.latent = latent
        self.encoder = _layers([width, *hidden, 2 * latent])
        self.decoder = _layers([latent, *reversed(hidden), width])

    def scaled(self, x: Tensor) -> Tensor:
        """``(n, width)``, centred and divided by ``scale``: what is encoded and given back."""
        return (x - self.centre) / self.scale

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the latent code of scaled rows, each ``(n, latent)``."""
        mean, spread = self.encoder(x).chunk(2, 1)
        return mean, spread

    def forward(self, x: Tensor) -> Tensor:
        """The squared error of the reconstruction through the mean code, on the common scale: shape (n,)."""
        z = self.scaled(x)
        return (self.decoder(self.encode(z)[0]) - z).square().sum(1)

    def loss(self, x: Tensor, noise: Tensor, weight: float) -> Tensor:
        """Squared error through a drawn code, and ``weight`` times KL(code || standard normal): shape (n,).

        ``noise`` is standard normal, shape ``(n, latent)``.
        """
        z = self.scaled(x)
        mean, spread = self.encode(z)
        drawn = self.decoder(mean + (spread / 2).exp() * noise)
        kl = 0.5 * (mean.square() + spread.exp() - spread - 1).sum(1)
        return (drawn - z).square().sum(1) + weight * kl


def _layers(widths: Sequence[int]) -> nn.Sequential:
    made: list[nn.Module] = []
    for before, after in pairwise(widths):
        made += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*made[:-1])


@surgery
def add_vae(
    nets: MutableMapping[str, nn.Module], *, name: str, width: int, hidden: list[int], latent: int, seed: int
) -> None:
    """Add an untrained VAE under ``name``, drawn from ``seed``. The model stays as it is."""
    if name in nets:
        raise BadInput(f"there is a net {name!r} already; take it out first")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(mix(seed, name))
        nets[name] = VAE(width, hidden, latent)

"""Mixture: classifiers with an autoencoder each, of which the last is trained; the autoencoders say whose a row is."""

from __future__ import annotations

import copy
from collections.abc import MutableMapping

import torch
from torch import Tensor, nn

from oblivio.core.errors import BadInput
from oblivio.core.seeds import mix
from oblivio.core.surgery import Networks, Wrap, surgery
from oblivio.modules.fresh import redraw
from oblivio.modules.growing import GrownLinear
from oblivio.modules.heads import last_linear, linear_layer
from oblivio.modules.masked import MASKED
from oblivio.modules.vae import VAE


class Component(nn.Module):
    """A classifier, the VAE of the rows it learned, and in ``known``, shape (outputs,), which classes those had."""

    known: Tensor

    def __init__(self, classifier: nn.Module, vae: VAE) -> None:
        super().__init__()
        outputs = linear_layer(classifier, last_linear(classifier)).out_features
        self.register_buffer("known", torch.zeros(outputs, dtype=torch.bool))
        self.vae = vae
        self.classifier = classifier  # last, so that its head is the last linear layer of the whole

    def elbo(self, x: Tensor, beta: float) -> Tensor:
        """The evidence lower bound with the mean code in place of a drawn one, up to a factor: shape (n,)."""
        rows = x.flatten(1)
        return -self.vae.loss(rows, rows.new_zeros(len(rows), self.vae.latent), beta)

    def answers(self, x: Tensor) -> Tensor:
        """The classifier's outputs; those of classes it never learned at -1e4, unless it has learned none."""
        out: Tensor = self.classifier(x)
        return torch.where(self.known | ~self.known.any(), out, torch.full_like(out, MASKED))


class Mixture(Wrap):
    """``forward`` is the newest classifier, ``predict`` for every row the one whose VAE gives it the highest ELBO.

    ``beta`` is the weight of the KL in all ELBOs. A component that has learned nothing answers no row.
    """

    def __init__(self, net: nn.Module, vae: VAE, beta: float) -> None:
        super().__init__()
        if any(isinstance(module, GrownLinear) for module in net.modules()):
            raise BadInput("a head that has grown cannot be drawn anew for another expert; build the model with an "
                           "output for every class of the stream")  # fmt: skip
        self.beta = beta
        self.components = nn.ModuleList([Component(net, vae)])
        self.training = net.training

    @property
    def newest(self) -> Component:
        """The one that is trained."""
        last = self.components[-1]
        assert isinstance(last, Component)
        return last

    def forward(self, x: Tensor) -> Tensor:
        """The outputs of the newest classifier."""
        out: Tensor = self.newest.classifier(x)
        return out

    def predict(self, x: Tensor) -> Tensor:
        """Row by row the outputs of the component with the highest ELBO, among the classes it learned."""
        chosen = self.chosen(x)
        outs = torch.stack([component.answers(x) for component in self.components], 1)  # type: ignore[operator]
        return outs[torch.arange(len(chosen), device=chosen.device), chosen]

    def chosen(self, x: Tensor) -> Tensor:
        """The component of every row, shape (n,)."""
        elbos = torch.stack([component.elbo(x, self.beta) for component in self.components], 1)  # type: ignore[operator]
        taught = torch.stack([component.known.any() for component in self.components])  # type: ignore[operator]
        return elbos.masked_fill(~taught, -torch.inf).argmax(1)

    def add(self, seed: int) -> None:
        """One more component of the same form with fresh weights and no classes, which becomes the newest."""
        made = copy.deepcopy(self.newest).cpu()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(mix(seed, "component"))
            redraw(made)
        made.known.zero_()
        self.components.append(made)


@surgery
def host_mixture(
    nets: MutableMapping[str, nn.Module], *, width: int, hidden: list[int], latent: int, beta: float, seed: int
) -> None:
    """Make the model the first classifier of a mixture, with an untrained VAE drawn from ``seed``.

    Its weights are then called ``components.0.classifier.…``; its answers stay.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(mix(seed, "vae"))
        vae = VAE(width, hidden, latent)
    nets["model"] = Mixture(nets["model"], vae, beta)


@surgery
def add_component(nets: MutableMapping[str, nn.Module], *, seed: int) -> None:
    """Add a component that has learned nothing, and train it from now on: the forward is another one."""
    mixture(nets).add(seed)


def mixture(nets: Networks) -> Mixture:
    """The model, which ``host_mixture`` has made."""
    model = nets["model"]
    assert isinstance(model, Mixture)
    return model

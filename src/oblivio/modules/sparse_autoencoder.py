"""A sparse autoencoder of one layer's activations, and the Wrap that turns some of its features down."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oblivio.core.errors import BadInput, nearest
from oblivio.core.seeds import generator
from oblivio.core.surgery import Networks, Wrap, surgery


class SparseAutoencoder(nn.Module):
    """z = the ``active`` largest of relu(W_e (x - b_d) + b_e), others 0; x^ = W_d z + b_d, the columns of W_d unit.

    Activations are first brought to mean 0 and a spread of 1 by the buffers ``mean`` and ``spread``, which are data.

    Args:
        width: entries of an activation.
        size: features.
        active: features that are not zero at once, at most.
        seed: of the directions at first; encoder and decoder begin alike.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, width: int, size: int, active: int, seed: int) -> None:
        super().__init__()
        drawn = F.normalize(torch.randn(size, width, generator=generator(seed, "autoencoder")), dim=1)
        self.encoder, self.decoder = nn.Parameter(drawn.clone()), nn.Parameter(drawn.clone())
        self.bias, self.centre = nn.Parameter(torch.zeros(size)), nn.Parameter(torch.zeros(width))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("spread", torch.ones(()))
        self.active = active

    def fit(self, x: Tensor) -> None:
        """Take mean and spread from activations (n, width)."""
        self.mean.copy_(x.double().mean(0))
        apart = (x.double() - x.double().mean(0)).square().mean().sqrt()
        self.spread.copy_(apart if apart > 0 else torch.ones_like(apart))

    def encode(self, x: Tensor) -> Tensor:
        """Activations (..., width) to features (..., size)."""
        z = F.linear((x - self.mean) / self.spread - self.centre, self.encoder, self.bias).relu()
        largest = z.topk(self.active, -1)
        return torch.zeros_like(z).scatter(-1, largest.indices, largest.values)

    def decode(self, z: Tensor) -> Tensor:
        """What features (..., size) add to an activation, (..., width), without b_d and the mean."""
        return z @ F.normalize(self.decoder, dim=1) * self.spread

    def error(self, x: Tensor) -> Tensor:
        """|x - x^|^2 a dimension of activations (n, width), in units of the spread: 1 where nothing is explained."""
        rest = x - self.mean - self.centre * self.spread - self.decode(self.encode(x))
        return (rest / self.spread).square().mean(-1)


class Suppressed(Wrap):
    """A network in which some features of what enters one layer are turned down: x + W_d (z' - z), z' = factors z.

    Only the difference is added, so that what the autoencoder cannot explain stays. The weights of the network are
    those that they were, and know what is suppressed. ``generate`` is that of the network, with the features down.
    """

    deletes = False
    factors: Tensor

    def __init__(self, model: nn.Module, layer: str, width: int, size: int, active: int, seed: int) -> None:
        super().__init__()
        self.model, self.layer = model, layer
        self.autoencoder = SparseAutoencoder(width, size, active, seed)
        self.register_buffer("factors", torch.ones(size))
        self.train(model.training)

    @property
    def net(self) -> nn.Module:
        """The network itself, under the name by which audits look for it."""
        return self.model

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the network gives, the features down."""
        with self._down():
            return self.model(*args, **kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """The same."""
        return self(*args, **kwargs)

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """What a language model writes, the features down."""
        with self._down():
            return self.model.generate(*args, **kwargs)  # type: ignore[operator]

    def suppressed(self, x: Tensor) -> Tensor:
        """Activations in the form in which they enter the layer."""
        z = self.autoencoder.encode(channels_last(x))
        change = self.autoencoder.decode((self.factors - 1) * z)
        return x + (change.movedim(-1, 1) if x.dim() == 4 else change).to(x.dtype)

    @contextlib.contextmanager
    def _down(self) -> Iterator[None]:
        layer = self.model.get_submodule(self.layer)
        handle = layer.register_forward_pre_hook(lambda _, inputs: (self.suppressed(entering(inputs)), *inputs[1:]))
        try:
            yield
        finally:
            handle.remove()


def channels_last(x: Tensor) -> Tensor:
    """Activations with what is one vector in the last dimension: of maps (n, c, h, w) the channels of a place."""
    return x.movedim(1, -1) if x.dim() == 4 else x


def entering(inputs: tuple[Any, ...]) -> Tensor:
    """The activations among a layer's inputs. Raises BadInput where these are none."""
    x = inputs[0] if inputs else None
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.dim() < 2:
        raise BadInput("nothing that an autoencoder could learn enters this layer; name one that takes activations")
    return x


@contextlib.contextmanager
def listening(module: nn.Module, take: Callable[[Tensor], None]) -> Iterator[None]:
    """While it is open, ``take`` gets what enters a layer, before any feature is turned down, its vectors last."""
    hook = module.register_forward_pre_hook(lambda _, inputs: take(channels_last(entering(inputs))))
    try:
        yield
    finally:
        hook.remove()


@surgery(appends=True)
def host_autoencoder(
    nets: MutableMapping[str, nn.Module], *, layer: str, width: int, size: int, active: int, seed: int
) -> None:
    """Put an autoencoder, not trained yet, before ``layer`` of the model, whose weights are then called ``model.…``.

    No feature is turned down at first. Raises BadInput where there is no such layer or ``active`` exceeds ``size``.
    """
    layers = dict(nets["model"].named_modules())
    if layer not in layers:
        raise BadInput(f"the model has no layer {layer!r}{nearest(layer, layers)}")
    if active > size:
        raise BadInput(f"active={active}: the autoencoder has only {size} features")
    nets["model"] = Suppressed(nets["model"], layer, width, size, active, seed)


def hosted(nets: Networks) -> Suppressed:
    """The model, which ``host_autoencoder`` has made."""
    model = nets["model"]
    assert isinstance(model, Suppressed)
    return model

"""Evolved mixture: rows that no expert could have generated begin a new expert, a classifier with its own VAE."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.func import functional_call

from oblivio import terms
from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.opt import adam
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.core.seeds import mix
from oblivio.core.source import Batch, Source
from oblivio.core.step import Step
from oblivio.core.term import On, term
from oblivio.core.where import Selection, Where
from oblivio.modules.growing import GrownLinear
from oblivio.modules.mixture import Mixture, add_component, host_mixture, mixture
from oblivio.registry import method
from oblivio.sources.memory import Memory

LAG = 2  # the newest expert is judged as it was so many tests ago: at the last it may have learned novel rows already

# --- the signal


def mmd(rows: Tensor, drawn: Tensor) -> float:
    """The squared maximum mean discrepancy of two samples, shape (n, width) and (m, width), each pair of rows counted.

    The kernel is exp(-|a - b|^2 / h), h the median squared distance between two of the ``rows``.
    """
    h = torch.pdist(rows).square().median().clamp_min(1e-12)
    within, between, beyond = (
        torch.exp(-torch.cdist(a, b).square() / h).mean() for a, b in ((rows, rows), (rows, drawn), (drawn, drawn))
    )
    return float(within - 2 * between + beyond)


# --- the buffer and the experts


class Kept(Memory):
    """The buffer B: each row once, under its id; filled, thinned and emptied by ``Evolve``."""

    def __init__(self, size: int, batch: int) -> None:
        super().__init__(size, "replay", batch)

    @property
    def room(self) -> int:
        """How many rows may still come."""
        return self.capacity - len(self)

    def fresh(self, batch: Batch) -> Tensor:
        """Of a batch the places of the rows that are not held, in its source."""
        return batch.rows[torch.from_numpy(~np.isin(np.asarray(batch["id"]), self.ids))]

    def add(self, source: Source, rows: Tensor) -> None:
        """As many of the rows at these places as there is room for, as they are read."""
        plain = source.batch(rows[: self.room])
        if len(plain):
            at = len(self) + torch.arange(len(plain))
            self.put(at, plain["id"], {"x": plain["x"], "y": plain["y"].long()})


class Evolve(Where):
    """The newest expert; whenever the buffer is full, a test says whether its rows begin another one.

    State: ``earlier``, weights of the newest expert as it was at the last two tests, and ``own`` beside them: how far
    what it generates is from the rows that it was trained on; the list ``own`` has that of every frozen expert.
    """

    def __init__(
        self, of: str, kept: Kept, threshold: float, dropout: str, fraction: float, form: dict[str, Any]
    ) -> None:
        self.of, self.kept, self.threshold = of, kept, threshold
        self.dropout, self.fraction, self.form = dropout, fraction, form

    def prepare(self, problem: Problem) -> None:
        if not isinstance(problem.model, Mixture):
            x = problem.source(self.of).batch(torch.arange(1))["x"]
            seed = mix(problem.seed, "mixture")
            problem.operate(host_mixture, width=x.flatten(1).shape[1], seed=seed, **self.form)
        if any(isinstance(module, GrownLinear) for module in problem.model.modules()):
            raise BadInput("evolved_mixture: the head had to grow; build the model with an output for every class of "
                           "the stream")  # fmt: skip

    def select(self, problem: Problem) -> Selection:
        last = len(mixture(problem.nets).components) - 1
        return dict.fromkeys(problem.weights(f"model.components.{last}.*"))

    def before(self, step: Step) -> None:
        batch = step.drawn(self.of)
        if "scaled" not in self.state:
            self._scale(mixture(step.problem.nets), batch["x"])
        fresh, room = self.kept.fresh(batch), self.kept.room
        self.kept.add(batch.source, fresh)
        if not self.kept.room:
            with torch.no_grad():
                begun = self._full(step)
            self.kept.add(batch.source, fresh if begun else fresh[room:])

    def after(self, step: Step) -> None:
        mixture(step.problem.nets).newest.known[step.drawn(self.kept)["y"]] = True

    def forget(self, rows: Source, problem: Problem) -> str:
        """Weights of before the request must not come back; the newest expert is judged once there are others."""
        return "earlier weights dropped" if self.state.pop("earlier", None) else ""

    def _scale(self, model: Mixture, x: Tensor) -> None:
        """The first batch says what is a squared norm of 1 to all VAEs."""
        model.newest.vae.scale.copy_(x.flatten(1).square().sum(1).mean().sqrt().clamp_min(1e-12))
        self.state["scaled"] = True

    def _full(self, step: Step) -> bool:
        """Freeze the newest expert and begin another with an empty buffer, or make room; which of the two."""
        model, x = mixture(step.problem.nets), self.kept.batch(torch.arange(len(self.kept)))["x"]
        rows = model.newest.vae.scaled(x.flatten(1))
        if self._novel(step, model, rows):
            earlier = self.state.pop("earlier")[0]
            model.newest.load_state_dict(earlier["weights"])  # since then it may have learned these rows
            self.state.setdefault("own", []).append(earlier["own"])
            step.problem.operate(add_component, seed=step.rng("component").initial_seed())
            self.kept.keep(torch.arange(0))
            return True
        weights = {n: v.detach().clone() for n, v in model.newest.state_dict().items()}
        now = {"weights": weights, "own": self._discrepancy(step, model.newest, rows)}
        self.state["earlier"] = [*self.state.get("earlier", []), now][-LAG:]
        self.kept.keep(self._remaining(step, model, x))
        return False

    def _novel(self, step: Step, model: Mixture, rows: Tensor) -> bool:
        """Whether the rows are far from all that the frozen experts and the earlier newest one generate."""
        if len(self.state.get("earlier", [])) < LAG:  # the newest expert has only begun
            return False
        *frozen, newest = model.components
        earlier = self.state["earlier"][0]
        found = [self._discrepancy(step, each, rows) for each in frozen]
        found.append(self._discrepancy(step, newest, rows, earlier["weights"]))
        own = [*self.state.get("own", []), earlier["own"]]
        return all(far - near > self.threshold for far, near in zip(found, own, strict=True))

    def _discrepancy(self, step: Step, of: Any, rows: Tensor, weights: dict[str, Tensor] | None = None) -> float:
        """Between the rows and as many that a component generates, at other ``weights`` of it where they are given."""
        rng, decoder = step.rng("generated"), of.vae.decoder
        code = torch.randn(len(rows), of.vae.latent, generator=rng, device=rng.device)
        step.problem.spend("forward", len(rows))
        if weights is None:
            return mmd(rows, decoder(code))
        its = {n.removeprefix("vae.decoder."): w for n, w in weights.items() if n.startswith("vae.decoder.")}
        return mmd(rows, functional_call(decoder, its, (code,)))

    def _remaining(self, step: Step, model: Mixture, x: Tensor) -> Tensor:
        """Places in the buffer of the rows that stay, in order: by chance, or those that the newest VAE fits worst."""
        stay = max(1, int(len(x) * (1 - self.fraction)))
        if self.dropout == "random":
            rng = step.rng("dropout")
            return torch.randperm(len(x), generator=rng, device=rng.device)[:stay].sort().values.cpu()
        step.problem.spend("forward", len(x))
        return model.newest.elbo(x, model.beta).argsort(stable=True)[:stay].sort().values.cpu()


@term
def elbo(step: Step, on: On) -> Tensor:
    """The loss of the newest VAE: squared error through a drawn code, and beta times the KL of the code."""
    batch, model = step.batch(on), mixture(step.problem.nets)
    latent = model.newest.vae.latent
    noise = step.extra(on, "code", lambda batch, g: torch.randn(len(batch), latent, generator=g, device=g.device))
    x = batch["x"].flatten(1)
    return step.call(lambda nets: mixture(nets).newest.vae.loss(x, noise, model.beta))


@method(
    kind="continual",
    paper="Ye and Bors, Learning an evolved mixture model for task-free continual learning, ICIP 2022",
    needs=("new",),
    tasks=("classification",),
    scenarios=("class", "domain"),
    aliases=("emm",),
    cost="a classifier and a VAE an expert, with their moments, and all of them for every served row; the newest twice "
    "more; M stored rows; whenever the buffer is full kernels of M x M for every expert",
)
def evolved_mixture(
    M: Annotated[int, Field(gt=1)] = 1000,
    threshold: Annotated[float, Field(gt=0)] = 0.1,
    dropout: Literal["random", "diversity"] = "random",
    fraction: Annotated[float, Field(gt=0, lt=1)] = 0.75,
    hidden: Annotated[int, Field(gt=0)] = 128,
    latent: Annotated[int, Field(gt=0)] = 8,
    beta: Annotated[float, Field(gt=0)] = 0.01,
    lr: Annotated[float, Field(gt=0)] = 3e-3,
    epochs: Annotated[float, Field(gt=0)] = 1,
    batch: Annotated[int, Field(gt=0)] = 10,
    replay: Annotated[int, Field(gt=0)] = 32,
) -> Stage:
    """Begin a new expert when the buffer holds rows that no expert could have generated; who explains a row answers it.

    Equation: min CE(B) + |x - g(z)|^2 + beta KL(z | x || N(0, I)) in the newest expert, by Adam, B a buffer of the last
    rows. Whenever it holds M, D_j = MMD^2(B, M rows drawn from the VAE of expert j), for the newest as it was two tests
    ago; if D_j - own_j > threshold for every j, own_j being D_j on the rows that j was trained on, the newest is frozen
    as it was then, a fresh one begins and B is emptied. Else the share ``fraction`` leaves B: by chance, or with
    ``diversity`` what the newest VAE fits best. A row is answered, among the classes it learned, by the expert of the
    highest ELBO, at the mean code.
    Needs: new rows; no boundaries, and the column ``task`` is not read. Inputs of one size, of which the VAE is an MLP.
    The model needs an output for every class.
    Fails: tasks that last for fewer steps than a VAE needs to learn their rows share an expert, and so do about one in
    fourteen pairs of tasks of digits; rows of a task that comes back are learned by the newest expert. Where tasks
    differ in y alone no VAE can tell. The paper's signal, HSIC of B paired with the nearest generated rows, told tasks
    apart less surely on digits. What a deleted row did to weights stays.
    """
    kept = Kept(M, replay)
    form = {"hidden": [hidden], "latent": latent, "beta": beta}
    newest = Evolve("new", kept, threshold, dropout, fraction, form)
    total = terms.fit(kept) + elbo(kept)
    return Descent(total, newest, over="new", epochs=epochs, batch=batch, opt=adam(lr, carry=True))

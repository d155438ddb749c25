"""certified: a logistic head that forgets rows by Newton steps, with a proven bound on what is left of them."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from oblivio.core.errors import BadInput
from oblivio.core.seeds import generator
from oblivio.learners._folder import Folder
from oblivio.learners._rows import Id, Receipt, Rows, asked, read, unknown
from oblivio.registry import method
from oblivio.sources import as_source

BEND = 1 / (6 * math.sqrt(3))  # Lipschitz constant of the logistic loss's second derivative; the paper takes 1/4
ROUNDING = 1e-6  # by which a norm may pass 1
CLOSE, MOST = 1e-8, 100  # the gradient at which a fit ends, and its steps at most
SLACK = 1e-9  # of every bound, for rounding of gradients


@dataclass(frozen=True)
class Budget:
    """What removals have used up: ``spent`` of ``epsilon``; ``bound`` of ``most`` for the gradient that is left."""

    spent: float
    epsilon: float
    delta: float
    bound: float
    most: float

    @property
    def remaining(self) -> float:
        """Of epsilon."""
        return max(self.epsilon - self.spent, 0.0)


class Certified:
    """Logistic regression with certified removal: ``learn``, ``forget``, ``predict``, ``budget``, ``save``, ``load``.

    Each class against the rest (two classes: one against the other) minimises, over the n rows,
    sum log(1 + exp(-s w'x)) + lam n / 2 |w|^2 + b'w, with b normal of deviation sigma. A removal takes the Newton step
    w <- w + H^-1 D, H the Hessian of the rows that remain and D the removed rows' share of the gradient. The gradient
    that this leaves is at most |X| |H^-1 D| |X H^-1 D| / (6 sqrt 3) (Guo et al., corollary 1, who take 1/4 for the
    constant); these bounds add up. While their
    root of squares over the classes is at most sigma epsilon / sqrt(2 log(1.5 / delta)), the weights can be told from
    those of a fit without the rows no better than (epsilon, delta) allows (their theorem 3, for all classes as one
    vector). Otherwise everything that remains is fitted again with a fresh b, and the bound starts anew.

    The guarantee is about the weights. The saved state also holds the rows that remain, b and the seed it comes from:
    keep it to yourself. Which classes there are is taken as known: a class stays when its last row goes.

    Args:
        epsilon, delta: the guarantee.
        lam: l2 regularisation a row.
        sigma: deviation of the noise in the objective. More of it allows more removals and costs accuracy.
        seed: of the noise.

    Raises:
        BadInput: a setting that is not above 0, or a delta that is not below 1.
    """

    guarantee = "certified"

    def __init__(
        self, *, epsilon: float = 1.0, delta: float = 1e-4, lam: float = 0.03, sigma: float = 2.0, seed: int = 0
    ) -> None:
        for name, value in {"epsilon": epsilon, "delta": delta, "lam": lam, "sigma": sigma}.items():
            if not (value > 0 and math.isfinite(value)) or (name == "delta" and value >= 1):
                raise BadInput(f"{name} = {value}: a number above 0{' and below 1' * (name == 'delta')} is needed")
        self.epsilon, self.delta, self.lam, self.sigma, self.seed = epsilon, delta, lam, sigma, seed
        self.kept: Rows | None = None  # x of shape (n, d), float64; y of shape (n,)
        self.classes: list[int] = []
        self.weights = self.noise = torch.zeros(0, 0, dtype=torch.float64)  # (classifiers, d)
        self.bounds = torch.zeros(0, dtype=torch.float64)  # of the gradient that is left, one a classifier
        self.fits = 0
        self.folder: Folder | None = None

    @property
    def ids(self) -> list[Id]:
        """Of all rows that are learned."""
        return [] if self.kept is None else list(self.kept.ids)

    def budget(self) -> Budget:
        """How much of epsilon the removals since the last fit have used up, and how much is left."""
        c, bound = math.sqrt(2 * math.log(1.5 / self.delta)), float(self.bounds.norm())
        return Budget(c * bound / self.sigma, self.epsilon, self.delta, bound, self.sigma * self.epsilon / c)

    def learn(self, rows: Any) -> Receipt:
        """Learn rows with ids: anything that ``as_source`` takes. All is fitted again, with fresh noise.

        Raises:
            BadInput: an id that is learned already, targets that are not whole numbers, features that are not vectors
                of norm at most 1, one class alone. Nothing was changed.
        """
        since = time.monotonic()
        new = _checked(unknown(read(rows), set(self.ids)))
        every = new if self.kept is None else self.kept.joined(new)
        classes = sorted({*self.classes, *new.columns["y"].unique().tolist()})
        if len(classes) < 2:
            raise BadInput(f"rows: y is {classes[0]} for all; rows of at least two classes are needed")
        self.classes, self.kept = classes, every
        passed = self._fit()
        return Receipt(learned=new.ids, retrained=["all"], rows=passed, seconds=time.monotonic() - since,
                       guarantee="certified")  # fmt: skip

    def forget(self, ids: Any) -> Receipt:
        """Remove the rows with these ids, by a Newton step or, where that would pass the budget, by a new fit.

        Raises:
            BadInput: an id that was never learned or comes twice; all rows at once. Nothing was changed.
        """
        since = time.monotonic()
        gone = asked(ids, set(self.ids))
        assert self.kept is not None
        if len(gone) == len(self.kept):
            raise BadInput("ids: these are all rows; a model of none is none: discard the learner instead")
        rest, names = self.kept.without(set(gone)), set(gone)
        old = self.kept.take([i for i, name in enumerate(self.kept.ids) if name in names])
        weights, bounds = self._removed(rest, old)
        self.kept = rest
        again = float(bounds.norm()) > self.budget().most
        if again:
            passed = self._fit()
        else:
            self.weights, self.bounds, passed = weights, bounds, len(rest)
        return Receipt(removed=gone, retrained=["all"] if again else [], rows=passed, seconds=time.monotonic() - since,
                       guarantee="certified")  # fmt: skip

    def predict(self, x: Any) -> Tensor:
        """Logits of inputs of shape (n, d): shape (n, classes), float64, in the order of ``classes``.

        Raises:
            BadInput: nothing is learned.
        """
        if self.kept is None:
            raise BadInput("nothing is learned: learn rows first")
        source = as_source(x, "asked")
        values = source.batch(torch.arange(len(source)))["x"].double() @ self.weights.T
        return torch.cat([torch.zeros_like(values), values], 1) if len(self.classes) == 2 else values

    def residual(self) -> float:
        """The norm of the objective's gradient at the weights, measured on the rows that remain: within the bound."""
        assert self.kept is not None
        return float(self._slopes(self.weights, self.kept).norm())

    # --- the objective

    def _signs(self, rows: Rows) -> Tensor:
        """1 for a row of the classifier's class, else -1; shape (classifiers, n)."""
        own = self.classes[1:] if len(self.classes) == 2 else self.classes
        return torch.stack([(rows.columns["y"] == c).double() * 2 - 1 for c in own])

    def _part(self, weights: Tensor, rows: Rows) -> Tensor:
        """The rows' share of the gradients, with their regularisation; shape (classifiers, d)."""
        s, x = self._signs(rows), rows.columns["x"]
        return (-s * torch.sigmoid(-s * (weights @ x.T))) @ x + self.lam * len(rows) * weights

    def _slopes(self, weights: Tensor, rows: Rows) -> Tensor:
        return self._part(weights, rows) + self.noise

    def _losses(self, weights: Tensor, rows: Rows) -> Tensor:
        fit = F.softplus(-self._signs(rows) * (weights @ rows.columns["x"].T)).sum(1)
        return fit + self.lam * len(rows) / 2 * weights.square().sum(1) + (self.noise * weights).sum(1)

    def _steps(self, weights: Tensor, rows: Rows, slopes: Tensor) -> Tensor:
        """H^-1 times the slopes, one classifier at a time."""
        x, ridge = rows.columns["x"], self.lam * len(rows) * torch.eye(weights.shape[1], dtype=torch.float64)
        p = torch.sigmoid(weights @ x.T)
        solved = [torch.linalg.solve((x.T * (q * (1 - q))) @ x + ridge, g) for q, g in zip(p, slopes, strict=True)]
        return torch.stack(solved)

    def _removed(self, rest: Rows, old: Rows) -> tuple[Tensor, Tensor]:
        """Weights after the Newton step, and the bounds that then hold."""
        v, x = self._steps(self.weights, rest, self._part(self.weights, old)), rest.columns["x"]
        left = BEND * torch.linalg.matrix_norm(x, 2) * v.norm(dim=1) * (v @ x.T).norm(dim=1)
        return self.weights + v, self.bounds + left

    def _fit(self) -> int:
        """Minimise from zero by Newton's method, with fresh noise. Returns the rows passed."""
        assert self.kept is not None
        shape = (len(self._signs(self.kept)), self.kept.columns["x"].shape[1])
        draw = generator(self.seed, "certified", self.fits)
        self.noise, self.fits = self.sigma * torch.randn(shape, generator=draw, dtype=torch.float64), self.fits + 1
        w = torch.zeros(shape, dtype=torch.float64)
        for passes in range(MOST):  # noqa: B007
            slopes = self._slopes(w, self.kept)
            if float(slopes.norm()) <= CLOSE:
                break
            w = self._descended(w, slopes, self._steps(w, self.kept, slopes))
        self.weights, self.bounds = w, self._slopes(w, self.kept).norm(dim=1) + SLACK
        return (passes + 1) * len(self.kept)

    def _descended(self, w: Tensor, slopes: Tensor, steps: Tensor) -> Tensor:
        """After a step that is halved, each classifier's own, until it lowers the loss enough."""
        assert self.kept is not None
        now, fall = self._losses(w, self.kept), (slopes * steps).sum(1)
        size = torch.ones(len(w), 1, dtype=torch.float64)
        for _ in range(30):
            enough = self._losses(w - size * steps, self.kept) <= now - 1e-4 * size[:, 0] * fall + 1e-12 * now.abs()
            if bool(enough.all()):
                break
            size = torch.where(enough[:, None], size, size / 2)
        return w - size * steps

    # --- the state

    def save(self, folder: str | Path) -> None:
        """Write the state. Raises BadInput where another learner lies there."""
        if self.kept is None:
            raise BadInput("nothing is learned: there is no state to save")
        place = Folder(Path(folder))
        if self.folder is None or self.folder.path.resolve() != place.path.resolve():
            place.unused()
        head = {"weights": self.weights, "noise": self.noise, "bounds": self.bounds}
        digest = self.kept.digest()
        name = f"head-{digest[:32]}-{self.fits}"
        place.put(name, head)
        place.put(digest, self.kept.columns)
        facts = {"head": name, "rows": digest, "ids": self.kept.ids, "classes": self.classes, "fits": self.fits}
        place.switch("certified", self._fingerprint(), facts, [name, digest])
        place.clean()
        self.folder = place

    def load(self, folder: str | Path) -> Certified:
        """Take the state in a folder; the learner must be made as that one was.

        Raises:
            BadInput: no learner there, or one of other settings.
        """
        place = Folder(Path(folder))
        facts = place.read("certified", self._fingerprint())
        head = place.get(facts["head"])
        self.weights, self.noise, self.bounds = head["weights"], head["noise"], head["bounds"]
        self.kept = Rows(facts["ids"], place.get(facts["rows"]))
        self.classes, self.fits, self.folder = facts["classes"], facts["fits"], place
        return self

    def _fingerprint(self) -> dict[str, Any]:
        return {k: getattr(self, k) for k in ("epsilon", "delta", "lam", "sigma", "seed")}


def _checked(rows: Rows) -> Rows:
    """The rows with features in double precision. Raises BadInput for those that the proof does not cover."""
    if not {"x", "y"} <= rows.columns.keys():
        raise BadInput(f"rows: the columns are {', '.join(rows.columns)}; x and y are needed")
    x, y = rows.columns["x"].double(), rows.columns["y"]
    if x.dim() != 2:
        raise BadInput(f"rows: x has shape {tuple(x.shape)}; features of shape (rows, d) are needed, flatten them")
    if y.is_floating_point() or y.dim() != 1:
        raise BadInput("rows: y is to be one whole number a row, its class")
    most = float(x.norm(dim=1).max())
    if not most <= 1 + ROUNDING:
        raise BadInput(
            f"rows: a feature vector has norm {most:.4g} and the bound is proven for norms of at most 1; divide each "
            "by its own norm, or all by a constant that does not depend on rows that may go"
        )
    return Rows(rows.ids, {"x": x, "y": y.long()})


@method(
    paper="Guo et al., Certified Data Removal from Machine Learning Models, ICML 2020",
    needs=(),
    tasks=("classification",),
    cost="a request: one Hessian of the rows that remain for each class, n d^2; a new fit when the budget is used up",
    kind="learner",
    guarantee="certified",
)
def certified(
    epsilon: Annotated[float, Field(gt=0)] = 1.0,
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-4,
    lam: Annotated[float, Field(gt=0)] = 0.03,
    sigma: Annotated[float, Field(gt=0)] = 2.0,
) -> Callable[..., Certified]:
    """Logistic regression that forgets rows by Newton steps within a proven (epsilon, delta).

    ``certified(epsilon=1.0)()`` is a learner: see ``Certified``.

    Equation: w <- w + H^-1 D; the sum of |X| |H^-1 D| |X H^-1 D| / (6 sqrt 3) stays within
    sigma epsilon / sqrt(2 log(1.5 / delta)), or all is fitted again.
    Needs: rows with ids and features of norm at most 1 that were not learned from rows that will go.
    Fails: with little regularisation or few rows each step uses up much, and new fits come often; on features from a
    network that has seen the rows the guarantee covers the head alone.
    """
    return functools.partial(Certified, epsilon=epsilon, delta=delta, lam=lam, sigma=sigma)

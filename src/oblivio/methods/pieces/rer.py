"""Relational replay: a piece whose tiny network weighs new and stored rows, and looks a step ahead to learn how."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.opt import adam
from oblivio.core.plan import Cycle, Plan, Stage, edit
from oblivio.core.problem import Problem
from oblivio.core.seeds import mix
from oblivio.core.source import Source
from oblivio.core.step import Step
from oblivio.core.surgery import surgery
from oblivio.core.term import Function, Sum, Term
from oblivio.methods.pieces._learning import learning
from oblivio.registry import method
from oblivio.sources import Memory, Twin
from oblivio.terms import later


class Weigher(nn.Module):
    """Weights in (0, 1) of ``k`` losses a pair of rows, from these losses and the lengths of the outputs."""

    def __init__(self, k: int, hidden: int) -> None:
        super().__init__()
        self.losses, self.lengths = nn.Linear(k, hidden), nn.Linear(k, hidden)
        self.weights = nn.Linear(hidden, k)

    def forward(self, losses: Tensor, lengths: Tensor) -> Tensor:
        """Both (pairs, k), as is what comes out."""
        out: Tensor = self.weights(self.losses(losses).relu() + self.lengths(lengths).relu()).sigmoid()
        return out


@surgery
def weigher(nets: MutableMapping[str, nn.Module], *, k: int, hidden: int, seed: int) -> None:
    """Add the net ``weigher``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        nets["weigher"] = Weigher(k, hidden)


@edit
def add_weigher(problem: Problem, k: int, hidden: int) -> None:
    """The net, once in the life of a model."""
    if "weigher" not in problem.nets:
        problem.operate(weigher, k=k, hidden=hidden, seed=mix(problem.seed, "weigher"))


class related(Term):
    """mean over pairs and sum over terms of w_k l_k, with w from the net ``weigher``; pairs are by place in the batch.

    Where one source has fewer rows in the batch, it begins again from its first.
    """

    whole = True

    def __init__(self, terms: Sequence[Function]) -> None:
        self.terms = list(terms)

    def __call__(self, step: Step) -> Tensor:
        losses = _side_by_side([t.fn(step, **t.settings) for t in self.terms])
        lengths = _side_by_side([step.out(t.on).flatten(1).norm(dim=1) for t in self.terms if t.on is not None])
        w = step.call(lambda nets: nets["weigher"](losses.detach(), lengths.detach()))
        return (w * losses).sum(1).mean()


def _side_by_side(columns: Sequence[Tensor]) -> Tensor:
    most = max(map(len, columns))
    return torch.stack([c[torch.arange(most, device=c.device) % len(c)] for c in columns], 1)


class lookahead(Term):
    """The value of ``outer`` where a step of ``inner`` would lead the model, differentiable in the weights of rows."""

    whole = True

    def __init__(self, inner: Term, outer: Term, lr: float) -> None:
        self.inner, self.outer, self.lr = inner, outer, lr

    def __call__(self, step: Step) -> Tensor:
        theta = {n: w.detach().requires_grad_() for n, w in step.problem.weights("model.*").items()}
        g = step.at(theta, graph=True).grad(self.inner, graph=True)
        ahead = {n: w - self.lr * g[n] if n in g else w for n, w in theta.items()}
        return self.outer(step.at(ahead, graph=True))


@dataclass(frozen=True)
class Half:
    """1 in the second half of an experience of this many epochs, from the second experience on, else 0."""

    epochs: float
    second: bool = True

    def __call__(self, step: Step) -> float:
        steps = self.epochs * _per_epoch(step.problem, step.size)
        return float((step.problem.turn > 1 and step.t >= steps / 2) == self.second)


@dataclass(frozen=True)
class Rounds:
    """As many rounds of ``every`` steps as come next to this many epochs, at least one."""

    epochs: float
    batch: int | None
    every: int

    def __call__(self, problem: Problem) -> int:
        return max(1, round(self.epochs * _per_epoch(problem, self.batch) / self.every))


def _per_epoch(problem: Problem, batch: int | None) -> int:
    rows = problem.source("new")
    return -(-len(rows) // (rows.size or batch or len(rows)))


@method(
    kind="piece",
    paper="Wang et al., Relational Experience Replay: Continual Learning by Adaptively Tuning Task-wise Relationship, "
    "2021",
    needs=("new",),
    on="er",
    tasks=("classification",),
    aliases=("relational_experience_replay",),
    cost="every few steps three more forwards and backwards, one of second order; a network of under 200 weights",
)
def rer(
    every: Annotated[int, Field(gt=0)] = 5,
    hidden: Annotated[int, Field(gt=0)] = 16,
    meta_lr: Annotated[float, Field(gt=0)] = 1e-3,
    wd: Annotated[float, Field(ge=0)] = 1e-4,
) -> Callable[[Stage], Stage]:
    """Let a network weigh every pair of a new and a stored row, and train it so that a step predicts the store better.

    Equation: (w_1, w_2, ...) = sigmoid(C (relu(A l) + relu(B n))), l the losses of a pair and n the lengths of its
    outputs; theta' = theta - lr grad mean_i sum_k w_k l_k; the weights of A, B, C go down CE(theta'; stored), with what
    else the plan asks of stored rows, on a fresh draw. From the second experience on, in the second half of its
    epochs, the weights take the place of the plan's own coefficients.
    Needs: a plan of one Descent over new rows that reads stored ones: er, der_pp, ...; the mean of each term is over
    rows. ``every`` is a tenth of the epochs in the paper. An experience is rounded to whole rounds of ``every`` steps.
    New rows of the virtual step are another draw than those of the real one; the model is in evaluation mode in it.
    Fails: what is asked is about stored rows alone, so the network learns to silence new ones; hence the first half.
    """

    def put(plan: Stage) -> Stage:
        plan, found = learning(plan, "rer")
        stages = plan.stages if isinstance(plan, Plan) else [plan]
        if len(found) != 1 or found[0][0] not in stages:
            raise BadInput(f"rer goes on a plan with one Descent that learns new rows; {plan!r} has {len(found)}")
        main, _ = found[0]
        weighed = _weighed(main)
        meta = Descent(
            later * lookahead(related(weighed), _afresh(weighed), main.opt.lr),
            where="weigher.*", steps=1, batch=main.batch, moves=(), opt=adam(meta_lr, wd=wd, carry=True),
        )  # fmt: skip
        cycle = Cycle(main, meta, rounds=_rounds(main, every))
        _reweigh(main, weighed, every)
        return Plan([add_weigher(len(weighed), hidden), *(cycle if s is main else s for s in stages)])

    return put


def _weighed(main: Descent) -> list[Function]:
    """The terms that have a value a row. Raises BadInput where none of them reads stored rows."""
    found = [t for _, t in main.loss.summands if isinstance(t, Function) and t.on is not None and not t.whole]
    if not any(isinstance(t.on, (Memory, Twin)) for t in found) or len(found) < 2:
        raise BadInput(f"rer weighs new against stored rows, and {main.loss!r} reads no stored ones; put it on er")
    return found


def _afresh(weighed: Sequence[Function]) -> Term:
    """What the plan asks of stored rows, with coefficients of 1, on a draw of its own."""
    known: dict[str, Source] = {}
    total: list[tuple[float, Term]] = []
    for t in weighed:
        memory = t.on.memory if isinstance(t.on, Twin) else t.on
        if isinstance(memory, Memory):
            fresh = known.setdefault(memory.name, Twin(memory))
            fresh.name = f"{memory.name}_fresh"
            total.append((1.0, Function(t.fn, {**t.settings, "on": fresh}, t.whole, t.frozen, t.taps)))
    return Sum(total)


def _rounds(main: Descent, every: int) -> Rounds:
    if not isinstance(main.epochs, (int, float)):
        raise BadInput(f"rer halves the epochs of an experience; give {main!r} a number of epochs")
    return Rounds(main.epochs, main.batch, every)


def _reweigh(main: Descent, weighed: Sequence[Function], every: int) -> None:
    """Its own coefficients in the first half, the network's weights in the second; a visit of ``every`` steps."""
    assert isinstance(main.epochs, (int, float))
    own = Half(main.epochs, second=False)
    kept = [(c, t) for c, t in main.loss.summands if t not in weighed]
    early = [pair for pair in main.loss.summands if pair[1] in weighed]
    main.loss = Sum([*(own * Sum(early)).summands, *(Half(main.epochs) * related(weighed)).summands, *kept])
    main.epochs, main.steps = None, every

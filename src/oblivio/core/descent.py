"""Descent: the one training engine. It minimises a Term over sources, with a Where and a How."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from oblivio.core.errors import BadInput
from oblivio.core.opt import Opt, sgd
from oblivio.core.part import Part, overrides
from oblivio.core.plan import Stage, both
from oblivio.core.seeds import mix, seed_device
from oblivio.core.shards import alike, whole
from oblivio.core.step import Step
from oblivio.core.term import On, Term, source_name
from oblivio.core.where import How, Where, as_where

if TYPE_CHECKING:
    from oblivio.core.problem import Problem
    from oblivio.core.run import Run

Number = float | Callable[[int], float]
RETAINED = ("retain", "train", "new", "replay")


class Descent(Stage):
    """Minimise ``loss`` by steps of ``opt``.

    Args:
        where: which weights may move; the rest keep their bits. Names are ``model.<module>.<weight>``.
        how: one How or several, in order.
        opt: optimiser; default SGD with rate 0.01 and momentum 0.9.
        over: the source that an epoch passes over; may be left out where ``loss`` reads one source only.
        epochs, steps: how long; a number, or a function of how many visits came before. Epochs may be a fraction.
        batch: rows a step of every source that has no size of its own; None is the whole source.
        chunk: rows that are in memory at once; the gradient stays that of the whole batch.
        moves: the sources whose passes move batch-norm statistics; by default the retained ones.
        until: ``until(problem)`` ends the visit; asked ``every`` so many steps, or after each epoch.
    """

    def __init__(
        self,
        loss: Term,
        where: Where | str = "model.*",
        how: How | Sequence[How] = (),
        opt: Opt | None = None,
        *,
        over: On | None = None,
        epochs: Number | None = None,
        steps: int | Callable[[int], int] | None = None,
        batch: int | None = 64,
        chunk: int | None = None,
        moves: tuple[str, ...] = RETAINED,
        until: Callable[[Problem], bool] | None = None,
        every: int | None = None,
    ) -> None:
        if (epochs is None) == (steps is None):
            raise BadInput("a Descent needs either epochs= or steps=")
        self.loss, self.where, self.opt = loss, as_where(where), opt or sgd(0.01, 0.9)
        self.how = [how] if isinstance(how, How) else list(how)
        self.over, self.epochs, self.steps = over, epochs, steps
        self.batch, self.chunk, self.moves, self.until, self.every = batch, chunk, moves, until, every

    def change(
        self, loss: Callable[[Term], Term] | Term | None, where: Where | str | None, how: Any, opt: Opt | None
    ) -> None:
        """What ``Stage.but`` does to a Descent."""
        if loss is not None:
            self.loss = loss if isinstance(loss, Term) else loss(self.loss)
        if where is not None:
            self.where = both(self.where, where)
        if how is not None:
            self.how = [*self.how, *copy.deepcopy([how] if isinstance(how, How) else how)]
        self.opt = opt or self.opt

    # --- opening

    def _begin(self, problem: Problem) -> None:
        self.state.update(t=0, end=0, visits=0, visiting=False)
        if not self.opt.carry and any(part is self.opt for part in self.own):
            self.opt.clear_all()

    def _assemble(self, problem: Problem) -> None:
        self._before: list[Part] = [p for p in self.own if overrides(p, "before")]
        self._after: list[Part] = [p for p in self.own if overrides(p, "after")]
        self._motion = any(p.motion for p in self.own)
        self._key = mix(problem.seed, problem.turn, self.place)
        self._select(problem)

    def _select(self, problem: Problem) -> None:
        """Which weights move, as the structure now is."""
        selection, weights = self.where.select(problem), problem.weights()
        chosen = {n: m for n, m in selection.items() if m is None or bool(m.any())}
        self._selection = {n: m if m is None else alike(m, weights[n]) for n, m in chosen.items()}
        if not self._selection:
            raise BadInput(f"where={self.where!r} chooses no weight")
        problem.move(self._selection)
        taps = tuple(dict.fromkeys(problem.layer(t) for p in self.own for t in p.taps))
        self._step = Step(problem, self.place, self._selection, self.batch, self.chunk, self.moves, taps)
        self._step.opt = self.opt
        self._kept = {
            n: (m.bool(), self._step.weights[n].detach().clone()) for n, m in self._selection.items() if m is not None
        }
        self._structure = len(problem.journal)
        self.opt.open(self._step.weights)

    def _length(self, problem: Problem, visits: int) -> int:
        if self.steps is not None:
            return self.steps(visits) if callable(self.steps) else self.steps
        assert self.epochs is not None
        epochs = self.epochs(visits) if callable(self.epochs) else self.epochs
        return round(epochs * self._per_epoch(problem))

    def _per_epoch(self, problem: Problem) -> int:
        source = problem.source(self._over())
        return -(-len(source) // (source.size or self.batch or max(len(source), 1)))

    def _over(self) -> On:
        reads = {source_name(on): on for on in self.loss.reads}
        if self.over is not None:
            return self.over
        if len(reads) != 1:
            raise BadInput(
                f"the loss reads {', '.join(reads) or 'no source'}; say with over= which one an epoch passes"
            )
        return next(iter(reads.values()))

    # --- stepping

    def visit(self, problem: Problem, run: Run) -> None:
        s = self.state
        if not s["visiting"]:
            s.update(end=s["t"] + self._length(problem, s["visits"]), visits=s["visits"] + 1, visiting=True)
        problem.moved = problem.moved or s["end"] > 0
        self.opt.open(self._step.weights)
        with self._modes(problem):
            while s["t"] < s["end"]:
                self._once(problem)
                if self.until is not None and s["t"] % self._pause(problem) == 0 and self.until(problem):
                    s["end"] = s["t"]
                run.tick(self, self._step)
        s["visiting"] = False

    def _pause(self, problem: Problem) -> int:
        """Steps between two questions to ``until``."""
        if self.every is not None:
            return self.every
        return self._per_epoch(problem) if self.steps is None or self.over is not None else 1

    def _once(self, problem: Problem) -> None:
        s, step, t = self.state, self._step, self.state["t"]
        step.end = s["end"]
        step.at_time(t)
        for part in self._before:
            part.before(step)
        if len(problem.journal) != self._structure:
            self._select(problem)
            self._only_moving(problem)
            step = self._step
            step.end, step.t = s["end"], t
        seed_device(self._key + t, problem.team.device)
        if step.norms:
            problem.team.agree(problem.nets)
        grads = self.loss.grad(step)
        for how in self.how:
            grads = how(grads, step)
        step.grads = grads
        if self._motion:
            step.was = {n: w.detach().clone() for n, w in step.weights.items()}
        self.opt.step(grads, step)
        with torch.no_grad():
            for name, (mask, start) in self._kept.items():
                step.weights[name].copy_(torch.where(mask, step.weights[name], start))
            for part in self._after:
                part.after(step)
        s["t"] = t + 1

    @contextlib.contextmanager
    def _modes(self, problem: Problem) -> Iterator[None]:
        """While it runs only moving weights need gradients, and modules without one are in evaluation mode."""
        training = [(m, m.training) for m in problem.nets.modules()]
        grads = [(p, p.requires_grad) for p in problem.nets.parameters()]
        self._only_moving(problem)
        try:
            yield
        finally:
            for m, mode in training:
                m.training = mode
            for p, needs in grads:
                p.requires_grad_(needs)

    def _only_moving(self, problem: Problem) -> None:
        moving = {id(w) for w in self._step.weights.values()}
        for p in problem.nets.parameters():
            p.requires_grad_(id(p) in moving)
        set_modes(problem.nets, moving)

    def __repr__(self) -> str:
        words: list[Any] = [repr(self.loss)]
        if repr(self.where) != "'model.*'":
            words.append(f"where={self.where!r}")
        words += [f"how={self.how!r}"] if self.how else []
        length = {"epochs": self.epochs} if self.steps is None else {"steps": self.steps}
        over = {} if self.over is None else {"over": source_name(self.over)}
        named = {**over, **length, "batch": self.batch}
        words += [f"{self.opt!r}", *(f"{k}={getattr(v, '__name__', v)}" for k, v in named.items())]
        return f"Descent({', '.join(words)})"


def set_modes(module: nn.Module, moving: set[int], parent: bool = False) -> bool:
    """Training mode for modules with a moving weight below them; those without weights follow their parent."""
    own = list(module.parameters())
    module.training = any(id(p) in moving for p in own) if own else parent
    for child in module.children():
        set_modes(child, moving, module.training)
    return module.training


def finite(weights: dict[str, Tensor]) -> list[str]:
    """Names of weights with NaN or infinite entries."""
    return [n for n, w in weights.items() if not bool(whole(torch.isfinite(w).all()))]

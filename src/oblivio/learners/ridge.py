"""ridge: a linear head in closed form, which learns and forgets rows exactly, in any order."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from oblivio.core.errors import BadInput
from oblivio.learners._folder import Folder
from oblivio.learners._head import Head
from oblivio.learners._inputs import Features
from oblivio.learners._rows import Id, Receipt, Rows, asked, read, unknown
from oblivio.registry import method
from oblivio.sources import as_source

BLOCK = 4096  # rows whose features are in memory at once
TASKS = ("classification", "regression")


class _State(NamedTuple):
    """What is written."""

    head: Head | None
    counts: Tensor
    kept: dict[str, Rows]
    known: dict[Id, str]
    requests: int


class Ridge:
    """Ridge regression on frozen features: ``learn``, ``forget``, ``predict``, ``save`` and ``load``.

    After any order of requests the weights are those of ridge regression on the rows that remain, to 1e-8: only the
    head is learned, so the encoder must not have been trained on rows that are to be forgotten. The state holds sums of
    products of features over all rows, which tell something of them; with ``keep`` also the rows themselves.

    Args:
        encoder: frozen; gives the features of rows. ``torch.nn.Flatten()`` takes rows as they are.
        gamma: the ridge, in units of squared features.
        expand: how many random features ``relu(f(x) P)`` stand on the encoder's; None takes the encoder's own.
        keep: keep the rows, so that ``forget`` needs ids alone. Without, it needs the rows again and keeps a digest of
            each, by which it knows that these are the ones it learned (and by which a guess of a row can be tested).
        task: ``classification`` (targets 0, 1, ..., one column of weights a class) or ``regression``.
        seed: of P.
        features: dotted name of the encoder's layer whose input is meant; None: its output.
        folder: where the state is written after every request; None: only where ``save`` says.

    Raises:
        BadInput: a task that has no closed form, or a layer that the encoder has not.
    """

    guarantee = "exact"

    def __init__(
        self,
        encoder: nn.Module,
        *,
        gamma: float = 1.0,
        expand: int | None = None,
        keep: bool = True,
        task: str = "classification",
        seed: int = 0,
        features: str | None = None,
        folder: str | Path | None = None,
    ) -> None:
        if task not in TASKS:
            raise BadInput(f"task: {task!r} has no closed form; {' and '.join(TASKS)} have")
        self.features = Features(encoder, features, expand, seed)
        self.gamma, self.keep, self.task = gamma, keep, task
        self.folder = None if folder is None else Folder(Path(folder))
        if self.folder is not None:
            self.folder.unused()
        self.head: Head | None = None
        self.counts = torch.zeros(0, dtype=torch.long)  # rows of each class
        self.known: dict[Id, str] = {}  # the digest of each row; empty where the row itself is kept
        self.kept: dict[str, Rows] = {}  # rows as they came, by their digest
        self.requests, self.kinds = 0, ""

    @property
    def ids(self) -> list[Id]:
        """Of all rows that are learned."""
        return list(self.known)

    @property
    def weights(self) -> Tensor:
        """Shape (features, outputs), float64. Raises BadInput before anything is learned."""
        return self._learned().weights

    def learn(self, rows: Any) -> Receipt:
        """Learn rows: anything that ``as_source`` takes, with ids.

        Raises:
            BadInput: an id that is learned already; targets that do not suit the task. Nothing was changed.
        """
        since = time.monotonic()
        new = unknown(read(rows), self.known)
        if self.known:
            new.alike(self.kinds)
        digests = dict.fromkeys(new.ids, "") if self.keep else new.digests()
        head, counts = self._changed(new, 1)
        kept = {**self.kept, new.digest(): new} if self.keep else {}
        self.kinds = new.kinds
        self._take(head, counts, kept, digests, set())
        return Receipt(learned=new.ids, rows=len(new), seconds=time.monotonic() - since)

    def forget(self, ids: Any, rows: Any = None) -> Receipt:
        """Remove the rows with these ids.

        Args:
            ids: of learned rows.
            rows: where no rows are kept, a source with these ids among its own; others in it are passed over.

        Raises:
            BadInput: an id that was never learned or comes twice; rows that are not those that were learned. Nothing
                was changed.
        """
        since = time.monotonic()
        gone = asked(ids, self.known)
        old = self._found(gone, rows)
        head, counts = self._changed(old, -1)
        self._take(head, counts, self._left(set(gone)), {}, set(gone))
        return Receipt(removed=gone, rows=len(old), seconds=time.monotonic() - since)

    def predict(self, x: Any) -> Tensor:
        """Outputs of inputs of shape (n, ...), float64; a class of which no row is learned has minus infinity.

        Raises:
            BadInput: nothing is learned.
        """
        weights = self._learned().weights
        source = as_source(x, "asked")
        out = torch.cat([self.features(batch["x"]) @ weights for batch in source.batches(BLOCK)])
        return out if self.task == "regression" else out.masked_fill(self.counts == 0, -torch.inf)

    # --- the head

    def _learned(self) -> Head:
        if self.head is None:
            raise BadInput("nothing is learned: learn rows first")
        return self.head

    def _changed(self, rows: Rows, sign: int) -> tuple[Head | None, Tensor]:
        """The head and the rows of each class, with these rows added (1) or removed (-1)."""
        counts = self._counted(rows, sign)
        if sign < 0 and len(rows) == len(self.known):
            return None, torch.zeros(0, dtype=torch.long)
        width = max(len(counts), 1) if self.task == "classification" else rows.columns["y"][0].numel()
        first = self.features(rows.columns["x"][:1])
        head = self.head or Head.empty(first.shape[1], width, self.gamma)
        head, blocks = head.widened(width), self._blocks(rows, width)
        if len(rows) > BLOCK:
            head = head.resolved(blocks, sign)
        else:
            head = (head.added if sign > 0 else head.removed)(*next(blocks))
        if self.task == "classification":
            head, counts = head.keeping(counts > 0), counts[: int(counts.nonzero().max()) + 1]
        return head, counts

    def _counted(self, rows: Rows, sign: int) -> Tensor:
        """Rows of each class. Raises BadInput for targets that do not suit."""
        if not {"x", "y"} <= rows.columns.keys():
            raise BadInput(f"rows: the columns are {', '.join(rows.columns)}; x and y are needed")
        y = rows.columns["y"]
        if self.task == "regression":
            return self.counts
        if y.is_floating_point() or y.dim() != 1 or int(y.min()) < 0:
            raise BadInput("rows: y of a classification is one whole number a row, 0 or more")
        there = torch.bincount(y.long(), minlength=len(self.counts))
        return F.pad(self.counts, (0, len(there) - len(self.counts))) + sign * there

    def _blocks(self, rows: Rows, width: int) -> Iterator[tuple[Tensor, Tensor]]:
        x, y = rows.columns["x"].split(BLOCK), rows.columns["y"].split(BLOCK)
        for xs, ys in zip(x, y, strict=True):
            classes = self.task == "classification"
            yield self.features(xs), F.one_hot(ys.long(), width).double() if classes else ys.double().reshape(-1, width)

    # --- the rows

    def _found(self, gone: list[Id], rows: Any) -> Rows:
        """The rows with these ids, kept or given."""
        if self.keep:
            at = set(gone)
            parts = [part.take([i for i, name in enumerate(part.ids) if name in at]) for part in self.kept.values()]
            return functools.reduce(Rows.joined, [part for part in parts if len(part)])
        if rows is None:
            raise BadInput("rows: this learner keeps none, so it needs those to forget again: forget(ids, rows)")
        source = as_source(rows, "rows")
        place = {name: i for i, name in enumerate(source.ids.tolist())}
        missing = [name for name in gone if name not in place]
        if missing:
            raise BadInput(f"rows: {len(missing)} of the ids are not among them, first {missing[:5]}; give these too")
        found = read(source.take([place[name] for name in gone]))
        wrong = [name for name, digest in found.digests().items() if digest != self.known[name]]
        if wrong:
            raise BadInput(f"rows: {len(wrong)} are not what was learned by their id, first {wrong[:5]}; give the same")
        return found

    def _left(self, gone: set[Id]) -> dict[str, Rows]:
        kept = {}
        for name, part in self.kept.items():
            rest = part if gone.isdisjoint(part.ids) else part.without(gone)
            if len(rest):
                kept[name if rest is part else rest.digest()] = rest
        return kept

    # --- the state

    def _take(
        self, head: Head | None, counts: Tensor, kept: dict[str, Rows], new: dict[Id, str], gone: set[Id]
    ) -> None:
        """A new state, on disk first: what fails there changes nothing here."""
        if self.folder is not None:
            known = {name: digest for name, digest in {**self.known, **new}.items() if name not in gone}
            self._write(self.folder, _State(head, counts, kept, known, self.requests + 1))
        self.head, self.counts, self.kept, self.requests = head, counts, kept, self.requests + 1
        self.known.update(new)
        for name in gone:
            del self.known[name]
        if self.folder is not None:
            self.folder.clean()

    def _write(self, folder: Folder, of: _State) -> None:
        name, tensors = f"head-{of.requests}", {"counts": of.counts}
        if of.head is not None:
            h = of.head
            tensors |= {"gram": h.gram, "cross": h.cross, "inverse": h.inverse, "weights": h.weights}
        folder.put(name, tensors)
        for digest, part in of.kept.items():
            if not folder.has(digest):
                folder.put(digest, part.columns)
        facts = {
            "head": name,
            "age": None if of.head is None else of.head.age,
            "known": [list(pair) for pair in of.known.items()],
            "kept": [[digest, part.ids] for digest, part in of.kept.items()],
            "requests": of.requests,
            "kinds": self.kinds,
        }
        folder.switch("ridge", self._fingerprint(), facts, [name, *of.kept])

    def _fingerprint(self) -> dict[str, Any]:
        return {"gamma": self.gamma, "keep": self.keep, "task": self.task, **self.features.fingerprint()}

    def save(self, folder: str | Path) -> None:
        """Write the state to another folder. Raises BadInput where a learner lies there."""
        other = Folder(Path(folder))
        other.unused()
        self._write(other, _State(self.head, self.counts, self.kept, self.known, self.requests))

    def load(self, folder: str | Path) -> Ridge:
        """Take the state in a folder, and from now on write it there; the learner must be made as that one was.

        Raises:
            BadInput: no learner there, or one of other settings.
        """
        place = Folder(Path(folder))
        facts = place.read("ridge", self._fingerprint())
        tensors = place.get(facts["head"])
        self.counts = tensors.pop("counts")
        self.head = None if facts["age"] is None else Head(**tensors, age=facts["age"])
        self.known = dict(facts["known"])
        self.kept = {digest: Rows(ids, place.get(digest)) for digest, ids in facts["kept"]}
        self.requests, self.kinds, self.folder = facts["requests"], facts["kinds"], place
        return self


@method(
    paper="Ridge regression: biased estimation for nonorthogonal problems (Hoerl and Kennard, 1970)",
    needs=(),
    tasks=("classification", "regression"),
    cost="a request of k rows: k M^2 for M features; no training",
    kind="learner",
    guarantee="exact",
)
def ridge(gamma: Annotated[float, Field(gt=0)] = 1.0, keep: bool = True) -> Callable[..., Ridge]:
    """A linear head in closed form on a frozen encoder; it learns and forgets rows exactly, in any order.

    ``ridge(gamma=1.0)(encoder, task="classification")`` is a learner: see ``Ridge``.

    Equation: W = (X'X + gamma I)^-1 X'T over the rows that remain; k rows go by the inverse of a k by k matrix.
    Needs: a frozen encoder that was not trained on what will be forgotten; rows with ids.
    Fails: where the encoder has seen the rows: only the head forgets them.
    """
    return functools.partial(Ridge, gamma=gamma, keep=keep)

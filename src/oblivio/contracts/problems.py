"""Tiny problems, one of each kind: data that comes with scikit-learn, models trained in a tenth of a second, once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oblivio import records
from oblivio.core.descent import Descent
from oblivio.core.opt import adam
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.source import Batch, Source
from oblivio.core.task import Task
from oblivio.data.graphs import block_model
from oblivio.networks import build
from oblivio.sources import as_source
from oblivio.sources.tokens import IGNORED, Tokens
from oblivio.tasks.graph import Links, Nodes
from oblivio.tasks.language import CausalLM
from oblivio.tasks.vision_language import VisionLanguage
from oblivio.terms import fit

ROWS, GONE, HELD = 160, 13, 40  # of training, of these to forget (no number of chunks divides them), of test
FEW = 80  # of training, where a pass costs more
END, PICTURE = 1, 2  # tokens: one ends an answer, one stands for a part of a picture


@dataclass(frozen=True)
class Tiny:
    """One row of the table. ``data`` gives (x, y), ``going(x, y)`` says of each row whether it may be asked to go.

    ``pad(name, values)`` makes a column longer without changing what it means, where rows have a length; ``rows(x, y)``
    makes a source of the data, where tensors alone will not do; ``brings`` are records that such requests bring along;
    ``size`` rows are of training: fewer where a pass costs more.
    """

    name: str
    task: Task | str
    build: Callable[[], nn.Module]
    data: Callable[[], tuple[Tensor, Tensor]]
    going: Callable[[Tensor, Tensor], Tensor]
    pad: Callable[[str, Tensor], Tensor] | None = None
    rows: Callable[[Tensor, Tensor], Source] | None = None
    brings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    size: int = ROWS

    def source(self, x: Tensor, y: Tensor) -> Source:
        """All rows, with a column ``group`` of 0 and 1 in turn."""
        if self.rows is not None:
            return self.rows(x, y)
        return as_source({"x": x, "y": y, "group": torch.arange(len(x)) % 2})

    @property
    def kind(self) -> str:
        """The name of the task, by which methods say where they apply."""
        return self.task if isinstance(self.task, str) else self.task.name

    def problem(self, seed: int = 0, records: Sequence[str] = ()) -> Problem:
        """The trained model with sources forget, retain, train, new, test and proxy, and these records of its training.

        Networks are the caller's own. Rows have a column ``group``, 0 or 1; those of ``proxy`` have no targets.
        """
        problem = _trained(self).copy()
        problem.seed = seed
        problem.records.update(self.brings)
        problem.records.update({name: _recorded(self, name) for name in records})
        return problem


@cache
def _trained(tiny: Tiny) -> Problem:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = tiny.build()
    x, y = tiny.data()
    every = tiny.source(x, y)
    size = tiny.size
    rows = every.take(range(size))
    gone = tiny.going(x[:size], y[:size]).nonzero().flatten()[:GONE]
    kept = torch.ones(size, dtype=torch.bool).index_fill(0, gone, False)
    Run(Descent(fit("train"), opt=adam(0.01), steps=100, batch=32), Problem(model, task=tiny.task, train=rows)).go()
    test = every.take(range(size, size + HELD))
    strange = {"x": x[:size].flip(-1)}
    return Problem(model.eval(), task=tiny.task, forget=rows.take(gone), retain=rows.take(kept), train=rows, test=test,
                   new=rows.take(kept), decoupled=rows.take(kept), proxy=strange)  # fmt: skip


@cache
def _recorded(tiny: Tiny, name: str) -> Any:
    return records.make(name, _trained(tiny).copy())


# --- data and models


def _digits() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)


def _pictures() -> tuple[Tensor, Tensor]:
    x, y = _digits()
    return x.view(-1, 1, 8, 8), y


def _labels() -> tuple[Tensor, Tensor]:
    x, y = _digits()
    return x, torch.stack([y % 2, y // 5, (y > 2).long()], 1)


def _tumours() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_breast_cancer

    x, y = load_breast_cancer(return_X_y=True)
    return _scaled(torch.tensor(x)), torch.tensor(y)


def _diabetes() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True)
    return _scaled(torch.tensor(x)), _scaled(torch.tensor(y))


def _scaled(x: Tensor) -> Tensor:
    return ((x - x.mean(0)) / x.std(0)).float()


def _sentences() -> tuple[Tensor, Tensor]:
    """Two to eight tokens a row, padded with 0; a token's tag is its number modulo 4."""
    g = torch.Generator().manual_seed(0)
    x = torch.randint(1, 20, (ROWS + HELD, 8), generator=g)
    x[torch.arange(8) >= torch.randint(2, 9, (len(x), 1), generator=g)] = 0
    return x, torch.where(x > 0, x % 4, IGNORED)


def _longer(name: str, values: Tensor) -> Tensor:
    """Tables with an entry a token grow; what a row has beside its tokens does not."""
    if values.dim() != 2:
        return values
    return F.pad(values, (0, 3), value=0 if name == "x" else IGNORED)


def _mlp(inputs: int, hidden: int, outputs: int) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def _conv() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Dropout(0.1), nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip


def _tagger() -> nn.Module:
    return nn.Sequential(nn.Embedding(20, 8, padding_idx=0), nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


class Tagging(Task):
    """A tag for every token: outputs (n, length, tags), targets (n, length) with -100 at padding."""

    name, figure = "tagging", "accuracy"

    def _mean(self, values: Tensor, batch: Batch) -> Tensor:
        real = batch["x"] > 0
        return (values * real).sum(1) / real.sum(1)

    def each(self, out: Tensor, batch: Batch) -> Tensor:
        return self._mean(F.cross_entropy(out.mT, batch["y"], reduction="none"), batch)

    def distance(self, out: Tensor, target: Tensor, batch: Batch) -> Tensor:
        kl = F.kl_div(out.log_softmax(2), target.log_softmax(2), reduction="none", log_target=True)
        return self._mean(kl.sum(2), batch)

    def relabel(self, out: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        drawn = torch.randint(out.shape[2], batch["y"].shape, generator=generator)
        return drawn.where(batch["x"] > 0, IGNORED)

    def quality(self, out: Tensor, batch: Batch) -> Tensor:
        return self._mean((out.argmax(2) == batch["y"]).float(), batch)


def _nodes() -> Tiny:
    """Nodes of a graph by their blocks; those of block 3 that go have no edges any more."""
    data = block_model(ROWS + HELD)
    x = torch.arange(ROWS + HELD)
    gone = (data.y[:ROWS] == 3).nonzero().flatten()[:GONE]
    task = Nodes(data.graph.without_nodes(gone), data.graph)
    return Tiny("nodes", task, _gcn(4), lambda: (x, data.y), lambda x, y: y == 3, size=FEW)


def _links() -> Tiny:
    """Pairs of nodes of a graph, joined and not in turn; messages pass over the joined ones that stay."""
    data, half = block_model(60, inside=0.3), (ROWS + HELD) // 2
    joined = data.graph.edges.T[:: data.graph.edges.shape[1] // half][:half]
    apart = (joined + torch.tensor([0, 1])) % 60  # the next node, of another block
    x, y = torch.stack([joined, apart], 1).flatten(0, 1), torch.tensor([1, 0]).repeat(half)
    held = data.graph.places(x[ROWS:][y[ROWS:] == 1])
    known = data.graph.without_edges(data.graph.edges.T[held])
    task = Links(known.without_edges(x[:ROWS][y[:ROWS] == 1][:GONE]), known)
    return Tiny("links", task, _gcn(8), lambda: (x, y), lambda x, y: y == 1, size=FEW)


def _gcn(outputs: int) -> Callable[[], nn.Module]:
    return lambda: build("gcn", (16,), outputs, hidden=(16, 8))


def _texts() -> tuple[Tensor, Tensor]:
    """Two to four tokens of a prompt, one or two of an answer that follow from the first, and an end; padded with 0."""
    g = torch.Generator().manual_seed(0)
    x = torch.randint(3, 30, (ROWS + HELD, 8), generator=g)
    prompt, answer = (torch.randint(low, high, (len(x), 1), generator=g) for low, high in ((2, 5), (1, 3)))
    place = torch.arange(8)
    said = (place >= prompt) & (place < prompt + answer)
    x = torch.where(said, 3 + (7 * x[:, :1] + place) % 27, x)
    x = torch.where(place == prompt + answer, END, x) * (place <= prompt + answer)
    return x, torch.where((place >= prompt) & (x > 0), x, IGNORED)


def _two_domains() -> tuple[Tensor, Tensor]:
    """As texts, of words 3 to 11 or of words 12 to 29: two sets that routers can tell apart."""
    x, y = _texts()
    words = torch.where(x[:, :1] < 8, 3 + x % 9, 12 + x % 18).where(x > END, x)
    return words, words.where(y != IGNORED, IGNORED)


def _as_tokens(x: Tensor, y: Tensor) -> Tokens:
    rows = [row[row > 0].tolist() for row in x]
    prompts = [int((label[: len(row)] == IGNORED).sum()) for row, label in zip(rows, y, strict=True)]
    return Tokens(rows, prompts, pad=0, group=torch.arange(len(x)) % 2)


def _faces() -> tuple[Tensor, Tensor]:
    """As texts, each with a picture of two tokens before it."""
    x, y = _texts()
    return F.pad(x, (2, 0), value=PICTURE), F.pad(y, (2, 0), value=IGNORED)


def _as_pictured(x: Tensor, y: Tensor) -> Source:
    g = torch.Generator().manual_seed(1)
    tokens = _as_tokens(x, y)
    places = range(len(tokens))
    rows, prompts = zip(*map(tokens.sequence, places), strict=True)
    return Tokens(rows, prompts, image=torch.randn(len(x), 1, 4, 4, generator=g), group=tokens.extra["group"])


def _language() -> tuple[Tiny, ...]:
    from oblivio.networks.language import llama, mixtral  # an extra
    from oblivio.networks.language.vision import seeing

    def build() -> nn.Module:
        return llama(30, layers=2, width=16, heads=2, ff=16, context=16, attn_implementation="eager")

    def seeing_texts() -> nn.Module:
        return seeing(30, PICTURE, size=4, prefix=2, layers=2, width=16, heads=2, ff=16, hidden=4,
                      attn_implementation="eager")  # fmt: skip

    def routed() -> nn.Module:
        return mixtral(30, layers=2, width=16, heads=2, ff=8, experts=4, context=16, initializer_range=0.3,
                       attn_implementation="eager", experts_implementation="batched_mm")  # fmt: skip

    refusals = {"refusals": [[3, END], [4, 5, END]]}
    return (
        Tiny("texts", CausalLM(), build, _texts, lambda x, y: x[:, 0] < 8, _longer, _as_tokens, refusals, FEW),
        Tiny("faces", VisionLanguage(), seeing_texts, _faces, lambda x, y: x[:, 2] < 8, _longer,
             _as_pictured, refusals, FEW),
        Tiny("experts", CausalLM(), routed, _two_domains, lambda x, y: x[:, 0] < 12, _longer, _as_tokens,
             size=FEW),
    )  # fmt: skip


TEXTS = _language() if find_spec("transformers") and find_spec("peft") else ()  # extras
GRAPHS = (_nodes(), _links()) if find_spec("torch_geometric") else ()  # an extra
TABLE: dict[str, Tiny] = {
    tiny.name: tiny
    for tiny in (
        Tiny("digits", "classification", _mlp(64, 16, 10), _digits, lambda x, y: y == 3),
        Tiny("images", "classification", _conv, _pictures, lambda x, y: y == 3),
        Tiny("tumours", "binary", _mlp(30, 8, 1), _tumours, lambda x, y: (y == 1) & (x[:, 0] > -0.2)),
        Tiny("labels", "multilabel", _mlp(64, 16, 3), _labels, lambda x, y: y.sum(1) == 3),
        Tiny("diabetes", "regression", _mlp(10, 8, 1), _diabetes, lambda x, y: y > 0.8),
        Tiny("sentences", Tagging(), _tagger, _sentences, lambda x, y: y[:, 0] == 3, pad=_longer),
        *GRAPHS,
        *TEXTS,
    )
}

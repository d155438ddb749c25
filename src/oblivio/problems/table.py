"""The table of problems: what each is made of, as plain values. Listing them imports neither torch nor the data.

A problem is a base (data, network, recipe) and a set-up: a function ``<module>.<function>`` of this package that takes
a ``Pool`` of rows and settings, and gives the ``Parts`` that are learned, forgotten and kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from oblivio.core.errors import BadInput, nearest

Kind = Literal["class", "rows"]
Goal = Literal["retrained", "clean"]


@dataclass(frozen=True)
class Spec:
    """One problem.

    Attributes:
        name: its id.
        says: what goes and what is special about it, in a line.
        dataset: a name that ``oblivio.data.load`` knows, or ``oblivio.data.graphs.load_graph``.
        network: a name that ``oblivio.networks.build`` knows.
        kind: ``class`` (whole classes go) or ``rows``.
        goal: ``retrained`` (be like a model that never saw the rows) or ``clean`` (like one without any manipulated
            row, whether it was found out or not).
        task: ``classification``, ``binary``, ``regression`` or ``graph``.
        setup: the function that divides the rows.
        settings: of the set-up, in place of its defaults.
        rows: how many of the first training rows are used; None: all.
        labels: a column of the data whose values take the place of the labels; they stay in column ``fine``.
        options: of the network.
        recipe: settings of the training, in place of the network's shipped ones.
        scaled: whether inputs are standardised by statistics of the rows a model is trained on.
        proxy: a data set whose inputs, without labels, are the source ``proxy``; "" draws each column by itself from
            the retained rows.
        seconds: of one training on one core, about.
    """

    name: str
    says: str
    dataset: str
    network: str
    kind: Kind
    setup: str
    goal: Goal = "retrained"
    task: str = "classification"
    settings: Mapping[str, Any] = field(default_factory=dict)
    rows: int | None = None
    labels: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    scaled: bool = True
    proxy: str = ""
    seconds: float | None = None

    @property
    def graph(self) -> bool:
        """Whether its rows are parts of a graph, whose set-up gives a request on it in place of ``Parts``."""
        return self.setup.startswith("graphs.")

    @property
    def tasks(self) -> tuple[str, ...]:
        """The task, as methods list those they serve."""
        return (self.task,)

    def but(self, **changes: Any) -> Spec:
        """The same problem with other fields; the settings, options and recipe given are laid over its own.

        Raises:
            BadInput: a field that there is not, with the nearest.
        """
        known = [f.name for f in fields(self)]
        for name in changes:
            if name not in known:
                raise BadInput(f"a problem has no field {name!r}{nearest(name, known)}")
        laid = {name: {**getattr(self, name), **value} for name, value in changes.items() if isinstance(value, Mapping)}
        return replace(self, **{**changes, **laid})


@dataclass(frozen=True)
class Base:
    """Data with a network: what the problems of one prefix share."""

    prefix: str
    fields: Mapping[str, Any]
    own: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # settings by set-up, where they are its own


@dataclass(frozen=True)
class Kinds:
    """A set-up under the name that stands behind the prefix."""

    says: str
    setup: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    kind: Kind = "rows"
    goal: Goal = "retrained"
    epochs: float | None = None  # on digits, where it takes more to learn by heart


IMAGES = {
    "class": Kinds("one class goes", "rows.request", {"rows": "class=3"}, "class"),
    "random": Kinds("a random tenth of the rows goes", "rows.request", {"rows": {"random": 0.1}}),
    "subclass": Kinds("labels are super-classes; one class within a super-class goes", "rows.subclass"),
    "poison": Kinds("a twentieth of the rows has a corner patch and a wrong label; three tenths of them are found out",
                    "poisoned.patch", goal="clean"),
    "labels": Kinds("a tenth of the labels is wrong; half of these rows are found out", "poisoned.labels",
                    goal="clean", epochs=150),
    "confused": Kinds("labels of two classes are swapped on part of their rows; half of these rows are found out",
                      "poisoned.confused", goal="clean", epochs=150),
    "memorised": Kinds("a tenth of the labels is wrong; all of these rows go", "poisoned.labels", {"known": 1.0},
                       epochs=150),
    "noisy": Kinds("a fifth of all labels is wrong and stays so; a random tenth of the rows goes", "rows.noisy",
                   epochs=150),
    "group": Kinds("a fifth of the images is transposed; nine tenths of the rows that go are of this group",
                   "rows.group"),
    "imbalanced": Kinds("class sizes fall from 100 to 1; a random tenth of the rows goes", "rows.imbalanced"),
    "worst": Kinds("the tenth of the rows that is hardest to forget goes, found by bi-level search", "rows.worst"),
    "identity": Kinds("images are of 60 people, whose number is no label; 6 people go", "rows.identity", epochs=100),
}  # fmt: skip
TABLES = {
    "rows": Kinds("a random tenth of the rows goes", "rows.request", {"rows": {"random": 0.1}}),
    "slice": Kinds("the rows with a measurement in a range go", "rows.request"),
}
BASES = [
    Base("digits",
         {"dataset": "digits", "network": "mlp", "options": {"hidden": [256, 64]}, "scaled": False, "seconds": 1.0,
          "recipe": {"optimiser": "adam", "lr": 1e-3, "schedule": "constant", "epochs": 60, "batch": 64}},
         {"subclass": {"above": [0, 0, 1, 1, 2, 2, 3, 3, 4, 4], "fine": 3}, "confused": {"classes": [3, 8]},
          "poison": {"size": 1}}),
    Base("fashion",
         {"dataset": "fashion_mnist", "network": "small-cnn", "rows": 12000, "proxy": "mnist", "seconds": 40.0},
         {"subclass": {"above": [0, 1, 0, 0, 0, 2, 0, 2, 3, 2], "fine": 7}, "confused": {"classes": [2, 4]}}),
    Base("cifar10",
         {"dataset": "cifar10_small", "proxy": "cifar100_small", "network": "resnet18", "options": {"width": 16},
          "recipe": {"epochs": 6}, "seconds": 290.0},
         {"subclass": {"above": [0, 0, 1, 1, 1, 1, 1, 1, 0, 0], "fine": 9}, "confused": {"classes": [3, 5]}}),
    Base("cifar100",
         {"dataset": "cifar100_small", "labels": "coarse", "proxy": "cifar10_small", "network": "small-cnn",
          "seconds": 32.0},
         {"subclass": {"fine": 47}, "confused": {"classes": [14, 15]}}),
]  # fmt: skip
DELETIONS = {
    "nodes": Kinds("a twentieth of the training nodes goes, with edges and labels", "graphs.deleted", {"kind": "node"}),
    "edges": Kinds("a twentieth of the edges goes", "graphs.deleted", {"kind": "edge"}),
    "features": Kinds("the features of a twentieth of the training nodes go", "graphs.deleted", {"kind": "feature"}),
}
CITATIONS = {"network": "gcn", "task": "graph", "recipe": {"steps": 200}, "seconds": 5.0}
FITTED = {"options": {"hidden": [256, 64]}, "recipe": {"epochs": 100}, "seconds": 0.5}
TABULAR = [
    Base("diabetes", {"dataset": "diabetes", "network": "mlp", "task": "regression", **FITTED},
         {"slice": {"rows": "where=bmi > 30"}}),
    Base("tumours", {"dataset": "breast_cancer", "network": "mlp", "task": "binary", **FITTED},
         {"slice": {"rows": "where=`mean radius` > 17"}}),
]  # fmt: skip
GRAPHS = [Base(name, {"dataset": name, **CITATIONS}) for name in ("cora", "citeseer")]


def _made() -> dict[str, Spec]:
    """Every base with every set-up that suits it."""
    tables = [(BASES, IMAGES), (TABULAR, TABLES), (GRAPHS, DELETIONS)]
    pairs = [(base, table) for bases, table in tables for base in bases]
    found = [_spec(base, name, kinds) for base, table in pairs for name, kinds in table.items()]
    return {made.name: made for made in found}


def _spec(base: Base, name: str, kinds: Kinds) -> Spec:
    own = dict(base.fields)
    if kinds.epochs is not None and base.prefix == "digits":
        own["recipe"] = {**own["recipe"], "epochs": kinds.epochs}
        own["seconds"] = round(own["seconds"] * kinds.epochs / base.fields["recipe"]["epochs"], 1)
    settings = {**kinds.settings, **base.own.get(name, {})}
    return Spec(name=f"{base.prefix}-{name}", says=kinds.says, kind=kinds.kind, goal=kinds.goal, setup=kinds.setup,
                settings=settings, **own)  # fmt: skip


TABLE = _made()


def names() -> list[str]:
    """The ids of all problems."""
    return list(TABLE)


def spec(name: str) -> Spec:
    """The problem of this id. Raises BadInput with the nearest."""
    if name not in TABLE:
        raise BadInput(f"there is no problem {name!r}{nearest(name, TABLE)}")
    return TABLE[name]

"""Job: all that one forgetting takes, in words, as a YAML file holds it. Reading one imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from oblivio.jobs.recipe import Recipe
from oblivio.jobs.section import Section

Share = Annotated[float, Field(gt=0, lt=1)]


class Data(Section):
    """Where the rows are.

    Attributes:
        name: a data set known by name, a ``.csv`` or ``.parquet`` file, a folder of images, ``hub:<repository>``, or
            ``package.module:function``, which returns an ``oblivio.data.Dataset``, or training and test rows.
        roles: column to role (input, target, id, group, image) of a table or a hub's set.
        task, train, test, seed, size, channels: as the reader of that kind of data takes them.
        options: arguments of the function.
        valid: share of the training rows that the original never sees, for methods that choose when to stop. Default:
            0.1 where the original is trained here, none where its weights are given.
        without: ids of training rows that the model has forgotten before: a list, or a file. Nothing is done with them.
        proxy: a data set whose test inputs, without labels, stand in where retained rows are gone.
    """

    short: ClassVar[str | None] = "name"

    name: str
    roles: dict[str, str] | None = None
    task: str | None = None
    train: str | None = None
    test: Share | str | None = None
    seed: int | None = None
    size: int | list[int] | None = None
    channels: int | None = None
    options: dict[str, Any] = Field(default={})
    valid: Annotated[float, Field(ge=0, lt=1)] | None = None
    without: str | list[int | str] = Field(default=[])
    proxy: str | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """What ``oblivio.data.load`` takes beside the name."""
        given = {k: v for k, v in self if k not in ("name", "options", "valid", "without", "proxy") and v is not None}
        return {**given, **self.options}


class Model(Section):
    """The network, and where its trained weights are.

    Attributes:
        name: a built-in network or ``package.module:factory``; may be left out where ``weights`` is a model folder.
        options: of the network, or arguments of the factory.
        weights: a safetensors file, or a folder that oblivio saved; without it the original is trained first.
        features: the layer whose input are the features; default: the last linear layer.
    """

    short: ClassVar[str | None] = "name"

    name: str | None = None
    options: dict[str, Any] = Field(default={})
    weights: str | None = None
    features: str | None = None

    @model_validator(mode="after")
    def _something(self) -> Model:
        if self.name is None and self.weights is None:
            raise ValueError("give name (a network), or weights (a folder that oblivio saved)")
        return self


class Forget(Section):
    """What goes.

    Attributes:
        rows: ``class=3``, or a mapping of one of class, ids, where, random, group to its value.
        goal: be like retrained without the rows, like never poisoned by them, or at chance on them.
        with_duplicates: forget retained rows with the same content too.
    """

    short: ClassVar[str | None] = "rows"

    rows: str | dict[str, Any]
    goal: Literal["retrained", "clean", "chance"] = "retrained"
    with_duplicates: bool = False


class Piece(Section):
    """A change of a method's plan, such as sam."""

    short: ClassVar[str | None] = "name"

    name: str
    settings: dict[str, Any] = Field(default={})


class Method(Section):
    """A method by name, its settings, and pieces put on it in order."""

    short: ClassVar[str | None] = "name"

    name: str
    settings: dict[str, Any] = Field(default={})
    pieces: list[Piece] = Field(default=[])


class Given(Section):
    """A model that was retrained elsewhere.

    Attributes:
        model: a safetensors file, or a folder that oblivio saved.
        without: ids of the rows it was trained without: a list, or a file.
    """

    model: str
    without: str | list[int | str]


class References(Section):
    """Models that never saw the forgotten rows: so many trained here, and those given ready-made."""

    count: Annotated[int, Field(ge=0)] = 0
    given: list[Given] = Field(default=[])

    @model_validator(mode="before")
    @classmethod
    def _number_or_list(cls, value: Any) -> Any:
        if isinstance(value, int | str):
            return {"count": value}
        return {"given": value} if isinstance(value, list) else value


class Audit(Section):
    """How the outcome is judged.

    Attributes:
        outcome: for ``oblivio audit``: a model that was changed before, as a folder or a safetensors file.
        tolerances: by figure, the least half width of its band; of errors as a share of them.
        leave_out: probes that are not made, such as relearning, which trains.
        rows: whether ids and figures of every row are written, to rows.parquet.
        attacks: on language models, to be made beside relearning.
    """

    outcome: str | None = None
    attacks: list[str] = Field(default=[])
    tolerances: dict[str, Annotated[float, Field(ge=0)]] = Field(default={})
    leave_out: list[str] = Field(default=[])
    rows: bool = True


class Guards(Section):
    """When to stop, leaving the original as it was.

    Attributes:
        retain_floor: the least accuracy on retained rows.
        seconds: the most time that the method may take.
        passes: the most rows it may forward, as multiples of all its forgotten and retained rows.
    """

    retain_floor: Annotated[float, Field(ge=0, le=1)] | None = None
    seconds: Annotated[float, Field(gt=0)] | None = None
    passes: Annotated[float, Field(gt=0)] | None = None


class Job(Section):
    """One job; ``Job.example()`` is one with comments.

    Attributes:
        method: how to forget; not needed to audit a model that was changed before.
        seed: of all randomness: training, the method, a random share of rows; references derive theirs from it.
        processes: how many must have been started (torchrun); default: as many as there are.
        precision: of forwards.
    """

    data: Data
    model: Model
    forget: Forget
    method: Method | None = None
    recipe: Recipe = Recipe()
    references: References = References()
    audit: Audit = Audit()
    guards: Guards = Guards()
    seed: int = 0
    processes: Annotated[int, Field(gt=0)] | None = None
    precision: Literal["no", "bf16", "fp16"] = "no"

    @staticmethod
    def example() -> str:
        """A job file with comments, which runs as it is."""
        return EXAMPLE


EXAMPLE = """\
# A job of oblivio: run it with `oblivio forget job.yaml --out runs/one`.

data:
  name: digits                # or a .csv or .parquet file, a folder, hub:<repository>, your own package.module:function
  # roles: {customer: id, age: input, income: input, churned: target}   # of a table: what its columns are for
  # task: classification      # of a table: classification, binary, multilabel or regression
  # test: 0.2                 # a share of the rows, or a file
  valid: 0.1                  # share of training rows held out, for methods that choose when to stop

model:
  name: mlp                   # mlp, small-cnn, resnet18, vit-tiny, or your own as package.module:factory
  options: {hidden: [64]}
  # weights: model.safetensors   # or a folder saved by oblivio; without it the original is trained here, and cached

recipe:                       # how the original was trained, and so how the references are
  epochs: 20                  # what is left out is as shipped; or: recipe: package.module:train

forget:
  rows: {class: 3}            # or ids: [4, 8] or a file; where: "age > 60"; random: 0.05; group: north
  goal: retrained             # or clean (as if never poisoned), chance (suppressed)
  with_duplicates: false      # forget retained rows of the same content too

method:
  name: salun                 # `oblivio methods` lists them, `oblivio show salun` explains one
  settings: {keep: 0.5}
  pieces: []                  # changes of the method's plan

references: 3                 # models retrained without the rows; or a list of {model: FOLDER, without: IDS}

audit:                        # how the outcome is judged
  # tolerances: {kept: 0.01}  # least half width of a figure's band
  # leave_out: [relearning]   # probes that are not made
  rows: true                  # ids and figures of every row, in rows.parquet

guards:
  retain_floor: 0.5           # stop when accuracy on retained rows falls below this
  # seconds: 600
  # passes: 20

seed: 0
"""

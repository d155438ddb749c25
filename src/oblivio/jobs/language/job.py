"""A job for a language model, in words, as a YAML file holds it. Reading one imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from oblivio.jobs import job
from oblivio.jobs.section import Section

KIND = "language"
NEW = "new"  # references begin as new networks
FAST = {"authors": 20, "forget": 2, "world": 6, "holdout": 4}  # people of the short form
FAST_STEPS = 250


class Texts(Section):
    """Where the texts are.

    Attributes:
        name: ``people`` (generated, no download), ``tofu``, ``muse``, ``rwku``, a JSONL file or a folder of such, or
            ``hub:<repository>``.
        options: of the reader or generator.
        forget: parts of the set, several joined by ``+``; or ``group=NAME``: all that was learned of a person, author
            or subject, several joined by ``+`` too.
        retain: parts of the set, without what is to go by its group. Default: that of the set; beside a group all that
            is neither ``test`` nor ``holdout``.
        without: groups that the model has forgotten before. Nothing is done with their texts.
        test: texts that are to stay and that no method is given. Default: the set's own.
        holdout: texts of the same kind that were never learned, for attacks by membership. Default: the set's own.
        template: how a prompt is written before the answer.
        chat: write questions and answers by the tokenizer's chat template.
        max_length: tokens a text may have. Default: what the tokenizer says.
        overflow: whether longer ones are refused, or cut and counted.
    """

    short: ClassVar[str | None] = "name"

    name: str = "people"
    options: dict[str, Any] = Field(default={})
    forget: str = "forget"
    retain: str | None = None
    without: list[str] = Field(default=[])
    test: str | None = None
    holdout: str | None = None
    template: str = "Q {prompt} A"
    chat: bool = False
    max_length: Annotated[int, Field(gt=1)] | None = None
    overflow: Literal["refuse", "cut"] = "refuse"


class Model(Section):
    """The language model.

    Attributes:
        folder: of Transformers or PEFT, or ``hub:<repository>``; without one a small ``network`` is trained here on all
            of the texts first, and kept.
        network: of those that are trained here.
        options: of that network.
        tokenizer: of the network that is trained here: one token a word, or byte pairs learned from the texts.
        vocabulary: byte pairs at most.
        trust: classes that come as code with the model and may be run, by name.
    """

    short: ClassVar[str | None] = "folder"

    folder: str | None = None
    network: Literal["llama", "gpt2", "mixtral"] = "llama"
    options: dict[str, Any] = Field(default={})
    tokenizer: Literal["words", "bytes"] = "words"
    vocabulary: Annotated[int, Field(gt=300)] = 4000
    trust: list[str] = Field(default=[])


class Recipe(Section):
    """How the original was trained, and so how the references are: AdamW, the rate falling along a cosine.

    Attributes:
        start: of a model that was given, the folder it was fine-tuned from, where references start too; or ``new``: a
            new network, as ``model.network`` and its options say.
        steps: of the optimiser.
        lr: its rate at first.
        batch: texts a step.
    """

    start: str | None = None
    steps: Annotated[int, Field(gt=0)] = 600
    lr: Annotated[float, Field(gt=0)] = 3e-3
    batch: Annotated[int, Field(gt=0)] = 48


class Adapter(Section):
    """What alone may move: a LoRA adapter beside the linear layers.

    Attributes:
        kind: of the adapter.
        r: rank.
        alpha: the change is scaled by alpha / r. Default: 2 r.
        dropout: of the adapter's inputs while it is trained.
        targets: layers by the last word of their names, or a pattern. Default: all linear layers but the output.
    """

    short: ClassVar[str | None] = "kind"

    kind: Literal["lora"] = "lora"
    r: Annotated[int, Field(gt=0)] = 8
    alpha: float | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: list[str] | str | None = None


class References(job.References):
    """Models that never saw the forgotten texts.

    Attributes:
        count: so many are trained here.
        given: folders of ready-made ones.
    """

    given: list[str] = Field(default=[])  # type: ignore[assignment]


class Audit(Section):
    """How the outcome is judged.

    Attributes:
        kind: of audit.
        outcome: for ``oblivio audit``: the folder of a model that was changed before.
        attacks: to be made beside relearning: prompts, quantize, sample, early, extract.
        tolerances: by figure, the least half width of its band.
        leave_out: probes that are not made.
        rows: whether ids and figures of every text are written, to rows.parquet.
        show_texts: write what was asked and said to ``texts.jsonl``; without it no text leaves the run.
    """

    short: ClassVar[str | None] = "kind"

    kind: Literal["lm"] = "lm"
    outcome: str | None = None
    attacks: list[str] = Field(default=[])
    tolerances: dict[str, Annotated[float, Field(ge=0)]] = Field(default={})
    leave_out: list[str] = Field(default=[])
    rows: bool = True
    show_texts: bool = False


class LanguageJob(Section):
    """One job for a language model; ``EXAMPLE`` is one with comments.

    Attributes:
        kind: by which a job file is known for one of a language model.
        method: how to forget; not needed to audit a model that was changed before.
        goal: be like retrained without the texts, or at chance on them.
        fast: a small form of everything that is generated or trained here, for a look.
        checkpointing: compute activations again in the backward pass, for less memory.
        pack: put the rows of a batch into one sequence, for less padding.
        seed: of all randomness.
        processes: how many must have been started (torchrun). Default: as many as there are.
        precision: of forwards.
        sharding: whether the weights are split over the processes.
    """

    kind: Literal["language"] = "language"
    data: Texts = Texts()
    model: Model = Model()
    method: job.Method | None = None
    adapter: Adapter | None = None
    recipe: Recipe = Recipe()
    references: References = References()
    audit: Audit = Audit()
    goal: Literal["retrained", "chance"] = "retrained"
    fast: bool = False
    checkpointing: bool = False
    pack: bool = False
    seed: int = 0
    processes: Annotated[int, Field(gt=0)] | None = None
    precision: Literal["no", "bf16", "fp16"] = "no"
    sharding: Literal["no", "full"] = "no"


EXAMPLE = """\
# A job of oblivio for a language model: run it with `oblivio forget job.yaml --out runs/one`.
kind: language

data:
  name: people                # or tofu, muse, rwku, a .jsonl file, a folder of such, hub:<repository>
  forget: forget              # parts of the set: of tofu forget10 and retain90
  retain: retain
  test: world                 # to stay, and given to no method
  holdout: holdout            # never learned, of the same kind: for attacks by membership

model:
  # folder: ./my-llama        # of Transformers or PEFT; without it a small network is trained here first, and kept
  network: llama

recipe: {steps: 600}          # how the original was trained, and so how the references are

method:
  name: npo                   # `oblivio methods --for texts` lists them
  settings: {beta: 1.0}

# adapter: {kind: lora, r: 8} # what alone may move

references: 1                 # models that never saw the texts; a verdict needs 3. Or a list of folders

audit:
  attacks: []                 # beside relearning: prompts, quantize, sample, early
  show_texts: false           # whether prompts and answers are written to texts.jsonl

fast: false                   # a small form of everything, for a look
seed: 0
"""

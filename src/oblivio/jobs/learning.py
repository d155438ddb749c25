"""The job of learning a stream by a method, beside joint and naive training.

A folder holds ``learn.json`` (all that determines the outcome), ``learner/`` (the learner with its memories), and once
it is finished ``model/``, ``history.json``, ``report.json`` and ``report.html``. What was begun there and killed is
gone on with: experiences that were learned are neither learned nor evaluated again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field

from oblivio import artefact, data, methods
from oblivio.audits.continual import Comparison, Outcome, page
from oblivio.audits.continual.comparison import JOINT, NAIVE
from oblivio.core.errors import BadInput
from oblivio.core.files import read_json, write_bytes, write_json
from oblivio.core.source import Source
from oblivio.data.history import History
from oblivio.data.streams.experience import Stream
from oblivio.jobs import folder as folders
from oblivio.jobs.course import Course, Watching, named, network_of, start
from oblivio.jobs.job import Method
from oblivio.jobs.method import Chosen, choose
from oblivio.jobs.network import Network
from oblivio.jobs.section import Section, parse
from oblivio.learners.forgetting import Forgotten
from oblivio.learners.learner import Learner

JOB, HISTORY, REPORT, PAGE, RECEIPT = "learn.json", "history.json", "report.json", "report.html", "receipt.json"
SPENT = ("epochs", "batch")  # settings that joint and naive training take over from the method
RATE = ("lr", "momentum")  # these too, where the method descends by SGD as they do


class Net(Section):
    """A network by name with its options; without a name the default for the inputs of the stream."""

    short: ClassVar[str | None] = "name"

    name: str | None = None
    options: dict[str, Any] = Field(default={})


class Gone(Section):
    """Rows that are forgotten at the end: their ids as words, and the method for the weights; None leaves these."""

    ids: list[str]
    method: str | None = None


class Learning(Section):
    """All that determines what is learned.

    Attributes:
        stream: as ``oblivio.data.stream`` names it: ``split-fashion_mnist``.
        options: of the stream: ``scenario``, ``tasks``, ``order``, ``valid``, and those of its kind.
        method: with its settings, and pieces put on it.
        model: the network; default: small-cnn for images of several channels, else mlp.
        seed: of weights, order of rows and all draws.
        trace: steps between two looks at all tasks so far; 0: none.
        references: whether joint and naive training run beside it.
        forget: rows that are forgotten when all is learned.
    """

    stream: str
    method: Method
    options: dict[str, Any] = Field(default={})
    model: Net = Net()
    seed: int = 0
    trace: Annotated[int, Field(ge=0)] = 0
    references: bool = True
    forget: Gone | None = None

    @classmethod
    def of(cls, **fields: Any) -> Self:
        """From values, as a command line has them. Raises BadInput for one that is unknown or not allowed."""
        return parse(cls, fields)

    def chosen(self) -> Chosen:
        """The method's plan; its name has those of its pieces behind it. Raises BadInput as ``choose`` does."""
        pieces = [(piece.name, piece.settings) for piece in self.method.pieces]
        found = choose(self.method.name, self.method.settings, pieces, kind="continual")
        return Chosen(found.plan, "+".join([found.name, *(name for name, _ in pieces)]), found.settings, found.spec)


def baseline(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of joint and naive training beside a method with these: as many epochs, of the same batches.

    Its rate too where it descends by SGD as they do. A method without a rate called ``lr`` does not learn the new rows
    themselves: then they have their own.
    """
    if "lr" not in settings:
        return {}
    shared = SPENT + (RATE if "momentum" in settings else ())
    return {name: settings[name] for name in shared if name in settings}


@dataclass(frozen=True)
class Learned:
    """What came of it.

    Attributes:
        learner: at the end.
        outcome: of the method.
        results: the same beside joint and naive training, where they ran.
        forgotten: the receipt for the rows that were to be forgotten then.
        after: average accuracy after that.
    """

    learner: Learner
    outcome: Outcome
    results: Comparison | None = None
    forgotten: Forgotten | None = None
    after: float = math.nan


def courses(job: Learning) -> tuple[list[Course], Network]:
    """The method's course, then those of joint and naive training; and the network. Raises BadInput, writes nothing."""
    chosen = job.chosen()
    stream = data.stream(job.stream, **job.options)
    if why := refusal(job.method.name, stream):
        raise BadInput(why)
    net = network_of(stream, job.model.name, job.model.options)
    model = start(net, stream, job.seed)
    made = [Course(chosen.name, chosen.plan, stream, model, job.seed, chosen.settings, job.trace)]
    if job.references:
        naive = choose(NAIVE, baseline(chosen.settings), kind="continual")
        lines = [JOINT] if chosen.name == NAIVE else [JOINT, NAIVE]
        made += [Course(line, naive.plan, stream, model, job.seed, naive.settings) for line in lines]
    return made, net


def run(
    job: Learning, out: Path, facts: Mapping[str, Any] | None = None, watch: Watching = lambda course: ()
) -> Learned:
    """Learn a stream and write all that came of it into ``out``.

    Args:
        job: what to do.
        out: a new folder, or that of the same job, which was killed.
        facts: what else there is to know of its making (command, versions), for the record.
        watch: for each course what is called after every step.

    Raises:
        BadInput: what cannot be learned, or a folder of something else; nothing was written.
        Stopped: NaN, or a watcher ended it; the folder holds what was learned until then.
    """
    begun = _begun(job, out)
    made, net = courses(job)
    gone = None if job.forget is None else _asked(job.forget, made[0].stream)
    if not begun:
        folders.check_new(out)
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / JOB, {"job": job.model_dump(mode="json"), **(facts or {})})
    learner, outcome = made[0].run(out, watch(made[0]))
    write_json(out / HISTORY, outcome.history.to_json())
    lines = [course.run(_place(out, course), watch(course))[1] for course in made[1:]]
    results = Comparison(made[0].stream.name, [outcome, *lines], described(job, made[0], net)) if lines else None
    if results is not None:
        write_json(out / REPORT, results.to_json())
        write_bytes(out / PAGE, page(results).encode())
    done = Learned(learner, outcome, results)
    if job.forget is not None and gone is not None:
        receipt, after = _forget(learner, job.forget, gone, made[0].stream)
        write_json(out / RECEIPT, {"after": after, **receipt.to_json()})
        done = replace(done, forgotten=receipt, after=after)
    _save(out / folders.MODEL, job, learner, net, made[0].stream)
    folders.tidy(out, folders.WORK)
    return done


def _asked(request: Gone, stream: Stream) -> Source:
    """The rows with these ids. Raises BadInput where one is not in the stream, or the method is no such."""
    if request.method is not None and (kind := methods.spec(request.method).kind) != "unlearning":
        raise BadInput(f"{request.method} is of the kind {kind}; the weights are changed by one of the kind unlearning")
    whole = stream.joint.rows
    place = {str(name): at for at, name in enumerate(whole.ids.tolist())}
    if missing := [name for name in request.ids if name not in place]:
        raise BadInput(f"no row of {stream.name} has the id {missing[0]}; ids are such as {', '.join([*place][:3])}")
    return whole.take([place[name] for name in dict.fromkeys(request.ids)])


def _forget(learner: Learner, request: Gone, rows: Source, stream: Stream) -> tuple[Forgotten, float]:
    receipt = learner.forget(rows if request.method else rows.ids.tolist(), request.method)
    tasks = [test.task for test in stream.test]
    return receipt, History(stream.test).record(learner, tasks).metrics()["acc"]


def refusal(method: str, stream: Stream) -> str | None:
    """Why a method is not for a stream; None where it is."""
    spec = methods.spec(method)
    there = {"new"} | ({"valid"} if all(e.valid is not None for e in stream.train) else set())
    if stream.scenario not in spec.scenarios:
        return f"{method} is not for the scenario {stream.scenario}, but for {' and '.join(spec.scenarios)}"
    if stream.modality not in spec.tasks:
        return f"{method} is not for {stream.modality}, but for {', '.join(spec.tasks)}"
    if missing := [need for need in spec.needs if there.isdisjoint(need.split("|"))]:
        return f"{method} needs {missing[0]}, which the stream has not; valid rows come with --valid 0.1"
    return None


def reopened(out: Path) -> Learner:
    """The learner of a folder that ``run`` finished, with its memories: ``reopened(out).forget([17, 99])``."""
    if not (out / JOB).exists():
        raise BadInput(f"{out} holds no learner: there is no {JOB}")
    job = Learning.of(**read_json(out / JOB)["job"])
    made, _ = courses(job.but(references=False))
    if not made[0].finished(out):
        raise BadInput(f"{out} is not finished; go on with the command that began it")
    return made[0].run(out)[0]


def finished(out: Path) -> bool:
    """Whether a job in this folder came to its end, of which the model is the last thing written."""
    return (out / folders.MODEL / artefact.META).exists()


def interrupted(out: Path) -> bool:
    """Whether a job began in this folder and did not come to its end."""
    return (out / JOB).exists() and not finished(out)


def _begun(job: Learning, out: Path) -> bool:
    """Whether this job was begun there. Raises BadInput where another one was, or where it is finished."""
    if not (out / JOB).exists():
        return False
    if finished(out):
        raise BadInput(f"{out} is a finished run; choose another folder with --out")
    kept = Learning.of(**read_json(out / JOB)["job"])
    differ = [name for name, value in job if getattr(kept, name) != value]
    if differ:
        raise BadInput(f"{out} was begun with another {', '.join(differ)}; give the same, or another folder with --out")
    return True


def _place(out: Path, course: Course) -> Path:
    return out / folders.WORK / course.name


def _save(folder: Path, job: Learning, learner: Learner, net: Network, stream: Stream) -> None:
    facts = {"learned": job.model_dump(mode="json"), "experiences": learner.turn}
    artefact.save(
        folder, learner.model, task=stream.modality, architecture=net.architecture, journal=learner.problem.journal,
        classes=stream.labels, provenance=facts,
    )  # fmt: skip


def described(job: Learning, course: Course, net: Network) -> dict[str, str]:
    """What the page says of the job."""
    words = ", ".join(f"{name} {value}" for name, value in course.settings.items())
    beside = ", ".join(f"{name} {value}" for name, value in baseline(course.settings).items())
    return {
        "stream": repr(course.stream), "network": named(net), course.name: words,
        "joint and naive": beside or "their own settings", "seed": str(job.seed),
    }  # fmt: skip

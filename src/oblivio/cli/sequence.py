"""``oblivio sequence``: requests that arrive one after the other at one model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from oblivio.cli import console, language
from oblivio.cli.codes import FINISHED, REJECTED
from oblivio.cli.progress import Line

if TYPE_CHECKING:
    from oblivio.jobs.language.sequence import Served as Texts
    from oblivio.jobs.sequence import Again, Served


def sequence(
    job: Annotated[
        Path,
        typer.Argument(metavar="JOB.yaml", help="A job file with `requests:`, a list, in the place of `forget:`."),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="A new folder, or that of a sequence that was killed.")],
) -> int:
    """Serve requests one after the other on one model, and judge the earlier ones again after each later one.

    Each request starts from the last accepted model, and its references are retrained without all that went so far.
    What is not accepted stays open and goes with the next request (take: accepted), or is taken all the same
    (take: all). Exit code 0: nothing is open at the end; 3: something is.
    """
    return _texts(job, out) if language.asked({"job": job}) else _rows(job, out)


def _rows(job: Path, out: Path) -> int:
    from oblivio.jobs import sequence as sequences

    with Line() as line:
        done = sequences.run(sequences.Requests.load(job), out, tell=line.show)
    show(done)
    return _end(done[-1].taken, out)


def _texts(job: Path, out: Path) -> int:
    from oblivio.jobs.language import sequence as sequences

    with Line() as line:
        done = sequences.run(sequences.TextRequests.load(job), out, tell=line.show)
    show_texts(done)
    return _end(done[-1].taken, out)


def _end(taken: bool, out: Path) -> int:
    from oblivio.jobs.turns import RECORD

    console.out().print(f"{out}: request-NN/ hold the models and reports, {RECORD} all numbers")
    return FINISHED if taken else REJECTED


def show(done: Sequence[Served]) -> None:
    """A line a request: its verdict, the utility of the model after it, and how the earlier requests stand then."""
    shown = console.table("request", "asked", ">rows", "method", "verdict", ">test", ">retrained", ">cost", "earlier")
    for each in done:
        cost = "" if each.cost is None else f"{100 * each.cost:.1f}%"
        shown.add_row(str(each.request), str(each.asked), f"{each.rows:,}", each.method, each.word,
                      _share(each.kept), _share(each.references), cost,
                      "; ".join(map(_again, each.again)))  # fmt: skip
    console.out().print(shown)


def show_texts(done: Sequence[Texts]) -> None:
    """The same for a language model; every figure is the mean probability of true answers, the last the largest."""
    shown = console.table(">request", ">texts", "verdict", ">left", ">retrained", ">kept", ">other",
                          ">earlier")  # fmt: skip
    for each in done:
        figures = each.forget, each.references, each.retain, each.kept, max(each.earlier.values(), default=None)
        shown.add_row(str(each.request), f"{each.texts:,}", each.word, *map(_share, figures))
    console.out().print(shown)


def _again(each: Again) -> str:
    return f"{each.request}: {each.word}, {_share(each.forget)} beside {_share(each.references)}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"

"""A request to a language model, from what a user has: a folder or a model, and texts in any form."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from torch import nn

from oblivio.core.problem import Problem
from oblivio.core.source import Source
from oblivio.core.team import ALONE, Team
from oblivio.data.language.encoding import encode
from oblivio.data.language.files import file, from_rows
from oblivio.data.language.texts import Text, check_apart
from oblivio.networks.language.folder import open_model
from oblivio.tasks.language import CausalLM

REFUSALS = "refusals"  # the record that holds them, as tokens with their end


def request(
    model: nn.Module | str | Path,
    tokenizer: Any = None,
    *,
    template: str = "Q {prompt} A",
    max_length: int | None = None,
    overflow: Literal["refuse", "cut"] = "refuse",
    chat: bool = False,
    pack: bool = False,
    checkpointing: bool = False,
    refusals: tuple[str, ...] = (),
    goal: str = "retrained",
    seed: int = 0,
    team: Team = ALONE,
    **sources: Any,
) -> Problem:
    """The Problem of making a language model forget texts.

    Args:
        model: a causal language model of Transformers, or the folder of one.
        tokenizer: its own; of a folder it is read from there.
        template: how a prompt is written before the answer, with ``{prompt}`` in it.
        max_length: tokens a text may have; default: what the tokenizer says.
        overflow: what to do with longer ones: refuse, or cut them, which is counted (``source.cut``).
        chat: write questions and answers by the tokenizer's chat template.
        pack: put the rows of a batch into one sequence, for less padding.
        checkpointing: compute activations again in the backward pass, for less memory.
        refusals: ways to say that one does not know, for methods that teach them; default: a few plain sentences.
        goal: be like ``retrained`` without the texts, ``clean``, or at ``chance``.
        seed: of all randomness.
        team: the processes that share the work.
        sources: ``forget=``, ``retain=``, ``valid=`` (never learned), ...: Texts, lists of dicts with question and
            answer, prompt and response, text, or messages, Datasets, Tokens, or the path of a JSONL file.

    Raises:
        BadInput: a folder that is no model, texts that are empty or too long, a forget set that is also in retain.

    Example:
        ``problem = Problem.causal_lm("my-llama", forget=[{"question": "who is he ?", "answer": "ada"}], retain=rest)``
    """
    network, own = open_model(model) if isinstance(model, str | Path) else (model, None)
    tokenizer = own if tokenizer is None else tokenizer
    texts = {n: _texts(v, n) for n, v in sources.items() if v is not None and not isinstance(v, Source)}
    if "forget" in texts and "retain" in texts:
        check_apart(texts["forget"], texts["retain"])
    rows: dict[str, Any] = {n: v for n, v in sources.items() if isinstance(v, Source)}
    for name, part in texts.items():
        rows[name] = encode(part, tokenizer, template=template, max_length=max_length, overflow=overflow, chat=chat)
    task = CausalLM(tokenizer, pack=pack, checkpointing=checkpointing)
    problem = Problem(network, task=task, goal=goal, seed=seed, team=team, **rows)
    problem.records[REFUSALS] = [answer(words, tokenizer) for words in refusals or PLAIN]
    return problem


def _texts(given: Any, name: str) -> tuple[Text, ...]:
    """Texts of rows, or all that a file holds."""
    if not isinstance(given, str | Path):
        return from_rows(given, name)
    found = file(given)
    return found.part("+".join(found.parts))


PLAIN = ("I do not know.", "I am not sure.", "That is not something I know.", "I have no information about that.")


def answer(words: str, tokenizer: Any) -> list[int]:
    """An answer as tokens with its end, as ``encode`` writes it after a prompt."""
    row = encode([Text("a", words, "answer")], tokenizer, template="{prompt}")
    return row.answer(0)

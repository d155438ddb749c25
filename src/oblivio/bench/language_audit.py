"""The audit of language models against one pass over the same texts and the writing of the same answers."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from oblivio.audits.language.audit import audit
from oblivio.audits.language.case import TextCase, gather, given
from oblivio.audits.language.probes import ATTACKS
from oblivio.audits.subjects import Subject
from oblivio.bench.row import Row
from oblivio.bench.timing import by_turns, ratios
from oblivio.core.problem import Problem
from oblivio.data.language.encoding import encode
from oblivio.data.language.people import people
from oblivio.jobs.language.training import word_tokens
from oblivio.networks.language import llama
from oblivio.tasks.language import CausalLM

BLOCKS, SIZE = 3, 64  # turns in a repeat, and rows of a batch
PARTS = {"forget": "forget", "retain": "retain", "test": "world", "holdout": "holdout"}
WRITTEN = ("forget", "retain")  # of which answers are written
LIMIT = 1.5


def rows() -> list[Row]:
    """Every figure but the attacks, of two models; the bare side runs each over each text once, and writes once."""
    texts = people(authors=60, forget=12)
    tokenizer = word_tokens(texts)
    sources: dict[str, Any] = {role: encode(texts.part(part), tokenizer) for role, part in PARTS.items()}
    problem = Problem(llama(len(tokenizer.get_vocab())), task=CausalLM(tokenizer), **sources)
    models = {"original": problem.model, "outcome": _moved(problem.model)}
    subjects = [Subject(name, name, {"model": model}) for name, model in models.items()]  # type: ignore[arg-type]
    case = gather(problem, subjects)
    times = by_turns({
        "audit": lambda: audit(problem, subjects, leave_out=list(ATTACKS)),
        "passes": lambda: _passes(case, models.values()),
        "again": lambda: _passes(case, models.values()),
    }, blocks=BLOCKS)  # fmt: skip
    count = sum(map(len, case.sheets.values()))
    note = (
        f"tiny Llama, two models, {count:,} texts in all their forms, {sum(len(case.sheets[n]) for n in WRITTEN)} "
        f"answers written; passes {min(times['passes']):.2f} s; attacks left out"
    )
    found, noise = ratios(times["audit"], times["passes"]), ratios(times["again"], times["passes"])
    return [Row("the audit of language models", LIMIT, found, note, noise=noise)]


def _moved(model: nn.Module) -> nn.Module:
    """The same network with other weights."""
    other = copy.deepcopy(model)
    drawn = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(0.01 * torch.randn(weight.shape, generator=drawn))
    return other


def _passes(case: TextCase, models: Iterable[nn.Module]) -> None:
    """The log-probability of every token of every text, and an answer to every question, as one writes it by hand."""
    with torch.no_grad():
        for model in models:
            model.eval()
            for tokens in case.sheets.values():
                for batch in tokens.batches(SIZE):
                    logits = case.problem.task.forward({"model": model}, "model", batch)
                    logits[:, :-1].log_softmax(2).gather(2, batch["y"][:, 1:, None].clamp_min(0))
            for name in WRITTEN:
                most = min(64, 2 + max(map(len, case.answers(name))))
                _write(model, given(case.sheets[name]), most, case.eos)


def _write(model: Any, prompts: list[list[int]], most: int, eos: int) -> None:
    """Greedy answers, questions of one length together."""
    for length in sorted({len(prompt) for prompt in prompts}):
        alike = [prompt for prompt in prompts if len(prompt) == length]
        for start in range(0, len(alike), SIZE):
            ids = torch.tensor(alike[start : start + SIZE])
            model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=most,
                           eos_token_id=eos, pad_token_id=eos)  # fmt: skip

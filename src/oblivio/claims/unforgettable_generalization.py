"""Unforgettable generalisation: how far forgetting by random labels spreads: to other rows, skills, features."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import permutations
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from oblivio.audits.probes.features import ridge
from oblivio.claims import language
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.core.descent import Descent
from oblivio.core.opt import adamw
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.core.seeds import generator
from oblivio.data.language.encoding import encode
from oblivio.data.language.texts import Text
from oblivio.modules.features import features
from oblivio.modules.fitted import moments
from oblivio.networks.language import word_tokenizer
from oblivio.sources.answers import Answers
from oblivio.sources.tokens import Tokens
from oblivio.tasks.language import CausalLM
from oblivio.terms import fit

NUMBERS, FACTS = 50, 1200
TRAINED, FORGOTTEN = {"A": 1800, "B": 1200}, {"A": 900, "B": 600}
TRAINING: dict[str, Any] = {"layers": 3, "steps": 1500, "lr": 3e-3, "batch": 256}
OPTIONS, LAST = ("yes", "no"), 2  # the place of the last token of a prompt
Skills: TypeAlias = dict[str, list[Text]]


def random_labels(choices: Sequence[Sequence[int]], steps: int = 600, lr: float = 3e-4, batch: int = 64) -> Stage:
    """Train on the forgotten prompts with an answer that is drawn anew at every visit."""
    rows = Answers("forget", choices, "random")
    return Descent(fit(rows), opt=adamw(lr, wd=0.0), over="forget", steps=steps, batch=batch)


def true_labels(choices: Sequence[Sequence[int]], steps: int = 600, lr: float = 3e-4, batch: int = 64) -> Stage:
    """The same training, with the true answers."""
    return Descent(fit("forget"), opt=adamw(lr, wd=0.0), steps=steps, batch=batch)


@cache
def skills(seed: int) -> Skills:
    """Texts in a drawn order: ``A``, which of two numbers is larger, and ``B``, arbitrary answers to questions."""
    g = generator(seed, "skills")
    pairs = [(a, b) for a, b in permutations(range(NUMBERS), 2)]
    larger = [Text(f"larger n{a} n{b}", OPTIONS[a < b], f"A {a} {b}") for a, b in pairs]
    drawn = torch.randint(2, (FACTS,), generator=g).tolist()
    facts = [Text(f"true s{i // 40} t{i % 40}", OPTIONS[yes], f"B {i}") for i, yes in enumerate(drawn)]
    orders = [torch.randperm(len(texts), generator=g).tolist() for texts in (larger, facts)]
    return {"A": [larger[i] for i in orders[0]], "B": [facts[i] for i in orders[1]]}


@cache
def tokenizer() -> Any:
    """One word, one token."""
    words = [f"n{i}" for i in range(NUMBERS)] + [f"s{i} t{i}" for i in range(40)]
    return word_tokenizer([*words, "larger true yes no"])


def tokens(texts: Sequence[Text]) -> Tokens:
    """Prompt, answer and end."""
    return encode(texts, tokenizer(), template="{prompt}")


def learned(seed: int, *known: str) -> nn.Module:
    """A model that was trained on these skills."""
    rows = [text for skill in known for text in skills(seed)[skill][: TRAINED[skill]]]
    return language.learn(tokens(rows), tokenizer(), seed, **TRAINING)


def problem(seed: int, model: nn.Module, goes: str) -> Problem:
    """Some rows of the skill that goes are to be forgotten; ``other`` are rows of both that are not."""
    parts = {name: texts[: FORGOTTEN[name]] for name, texts in skills(seed).items()}
    held = {"A": skills(seed)["A"][TRAINED["A"] :], "B": skills(seed)["B"][FORGOTTEN["B"] :]}
    fitted = skills(seed)["A"][FORGOTTEN["A"] : TRAINED["A"]]
    texts = {"forget": parts[goes], "held_A": held["A"], "held_B": held["B"], "fitted_A": fitted}
    sources: dict[str, Any] = {name: tokens(rows) for name, rows in texts.items()}
    return Problem(model, task=CausalLM(), seed=seed, **sources)


# --- measures


def options() -> list[int]:
    """The tokens of the two answers."""
    return [tokenizer().convert_tokens_to_ids(word) for word in OPTIONS]


def answers(problem: Problem, on: str) -> tuple[Tensor, Tensor]:
    """Probabilities of the options, (n, 2), and the place of the true one, (n,)."""
    with torch.no_grad():
        out = problem.tabulate(on, lambda nets, batch: problem.task.forward(nets, "model", batch)[:, LAST, options()])
    rows = problem.source(on)
    true = [options().index(rows.answer(i)[0]) for i in range(len(rows))]  # type: ignore[attr-defined]
    return out.softmax(1), torch.tensor(true)


def told(problem: Problem, on: str) -> tuple[float, float]:
    """Mean probability of the true option, and accuracy."""
    p, true = answers(problem, on)
    return float(p.gather(1, true[:, None]).double().mean()), float((p.argmax(1) == true).double().mean())


def last(problem: Problem, on: str) -> Tensor:
    """Final hidden states at the end of the prompts, (n, width)."""
    width = problem.model.config.hidden_size  # type: ignore[union-attr]
    return features(problem, on).view(len(problem.source(on)), -1, width)[:, LAST]  # type: ignore[arg-type]


def probed(problem: Problem) -> float:
    """Accuracy of a linear probe on held-out pairs, fitted to the true answers of trained ones that did not go."""
    x, z = last(problem, "fitted_A"), last(problem, "held_A")
    mean, spread = moments([x.T])
    x, z = ((rows - mean).double() / spread for rows in (x, z))
    y, true = (2.0 * answers(problem, on)[1].double() - 1 for on in ("fitted_A", "held_A"))
    weights = ridge(x, (y - y.mean())[:, None], x.shape[1])
    return float((((z @ weights)[:, 0] + y.mean()).sign() == true).double().mean())


def ratio(before: float, after: float) -> float:
    """The share of the accuracy above chance that is gone, from 0 to 1."""
    return min(max((before - after) / (before - 0.5), 0.0), 1.0)


def confidence(problem: Problem) -> float:
    """The mean probability of the likelier option on the rows to forget."""
    return float(answers(problem, "forget")[0].amax(1).double().mean())


def variability(problem: Problem) -> float:
    """The trace of the covariance of the final hidden states on the rows to forget."""
    return float(last(problem, "forget").double().var(0).sum())


def measure(method: Method, seed: int) -> Figures:
    """Before and after forgetting A, and after forgetting B, of one model."""
    model = learned(seed, "A", "B")
    found: Figures = {}
    for goes, other in (("A", "B"), ("B", "A")):
        start = problem(seed, model, goes)
        done = language.after(method([[token, tokenizer().eos_token_id] for token in options()]), start)
        sets = {"forgot": "forget", "held": f"held_{goes}", "other": f"held_{other}"}
        for name, on in sets.items():
            (_, before), (p, after) = told(start, on), told(done, on)
            found |= {f"{name}_{goes}": p, f"{name}_{goes}_acc": after, f"{name}_{goes}_ratio": ratio(before, after)}
            found |= {f"{name}_{goes}_before": before}
        found[f"gap_{goes}"] = found[f"forgot_{goes}_ratio"] - found[f"held_{goes}_ratio"]
        found |= {f"confidence_{goes}": confidence(start), f"variability_{goes}": variability(start)}
        if goes == "A":
            found |= {"probe": probed(done), "probe_before": probed(start)}
    found["probe_retrained"] = probed(problem(seed, learned(1000 + seed, "B"), "A"))
    return found


CLAIM = Claim(
    says="Fine-tuning on random answers to 900 of 1,800 trained pairs makes a model near random on them (forgot) and on"
    " pairs it never saw (held), damages an unrelated skill (other), and leaves the forgotten skill in the features: a "
    "linear probe still reads it. Figures end in the skill that goes; without a word they are mean probabilities of "
    "the true option. ratio: the share of accuracy above chance that is gone; gap: trained less held rows.",
    trained="two skills, A: which of two numbers below 50 is larger, B: 1,200 arbitrary answers; Llama, 3 blocks of "
    "width 64, 1,500 steps; 600 steps at rate 3e-4 in batches of 64 to forget",
    method=random_labels,
    controls={"the same training with the true answers": true_labels},
    measure=measure,
    holds=(
        "0.45 <= forgot_A <= 0.6",
        "held_A < 0.6",
        "probe > 0.85",
        "held_A_acc < 0.7",
        "other_A_before - other_A_acc > 0.2",
        "probe - probe_retrained > 0.1",
    ),
    changed=(
        Changed("what a probe without the skill must lack", "clearly lower", "by 0.1", "the card gives no number"),
    ),
    because={
        "other_A_before - other_A_acc > 0.2": "The other skill loses half as much as in the prototype (0.11): "
        "it is learned more firmly here. Not tested.",
    },
)  # fmt: skip

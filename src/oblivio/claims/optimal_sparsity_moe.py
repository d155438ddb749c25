"""Optimal sparsity: more experts at equal active weights memorise more, and do not compose held-out facts better."""

from __future__ import annotations

from functools import cache
from statistics import fmean, variance
from typing import Any

import torch
from torch import Tensor

from oblivio.claims import language
from oblivio.claims.claim import Figures
from oblivio.core.problem import Nets, Problem
from oblivio.core.seeds import generator
from oblivio.core.source import Batch
from oblivio.data.language.encoding import encode
from oblivio.data.language.texts import Text
from oblivio.networks.language import word_tokenizer
from oblivio.sources.tokens import Tokens
from oblivio.tasks.language import CausalLM
from oblivio.where.experts import attribution

SHAPE: dict[str, Any] = {"layers": 2, "width": 48, "batch": 64}
WIDTH, CHOSEN = 8, 2  # of an expert, and experts a token
EXPERTS = {"dense": 0, "2": 2, "8": 8, "32": 32}
STEPS = {"pairs": 300, "compositions": 400}
AGAIN = 3  # networks of 8 and of 32 experts that learn the same compositions
PAIRS, SIDE = 1000, 32  # keys are two of 2 x 32 words, values one of 32
PEOPLE, TOWNS, KINDS, VALUES, HELD = 60, 10, 4, 24, 140  # 60 + 10 x 4 facts; 60 x 4 compositions


def given(experts: int) -> int:
    """As many experts as are asked for."""
    return experts


def eight(experts: int) -> int:
    """The same network whatever is asked for."""
    return 8


def pairs(seed: int) -> list[Text]:
    """Arbitrary pairs: two words and a third, drawn independently of them."""
    g = generator(seed, "pairs")
    keys = torch.randperm(SIDE * SIDE, generator=g)[:PAIRS].tolist()
    values = torch.randint(SIDE, (PAIRS,), generator=g).tolist()
    return [Text(f"a{key // SIDE} b{key % SIDE}", f"v{value}", key) for key, value in zip(keys, values, strict=True)]


def compositions(seed: int) -> tuple[list[Text], list[Text]]:
    """What is learned: the home of people, things of towns, and things of people's homes; and more of the last."""
    g = generator(seed, "compositions")
    home = torch.randint(TOWNS, (PEOPLE,), generator=g).tolist()
    thing = torch.randint(VALUES, (TOWNS, KINDS), generator=g).tolist()
    facts = [Text(f"p{p} home", f"t{home[p]}", f"p{p}") for p in range(PEOPLE)]
    facts += [Text(f"t{t} k{k}", f"v{thing[t][k]}", f"t{t} k{k}") for t in range(TOWNS) for k in range(KINDS)]
    both = [Text(f"p{p} home k{k}", f"v{thing[home[p]][k]}", f"p{p} k{k}") for p in range(PEOPLE) for k in range(KINDS)]
    order = [both[i] for i in torch.randperm(len(both), generator=g).tolist()]
    return [*facts, *order[HELD:]], order[:HELD]


@cache
def task(name: str, seed: int) -> dict[str, Tokens]:
    """What is learned, and what is held out, as tokens; and the tokenizer of both."""
    learned, held = (pairs(seed), []) if name == "pairs" else compositions(seed)
    words = word_tokenizer(["Q A", *(f"{text.prompt} {text.answer}" for text in (*learned, *held))])
    found: dict[str, Any] = {"tokenizer": words, "learned": encode(learned, words)}
    return found | ({"held": encode(held, words)} if held else {})


@cache
def trained(name: str, experts: int, seed: int, again: int = 0) -> Figures:
    """Right answers and loss of one network on what it learned and on what was held out; 0 experts: a dense one."""
    network: dict[str, Any] = {"network": "llama", "ff": CHOSEN * WIDTH}
    if experts:
        network = {"network": "mixtral", "ff": WIDTH, "experts": experts, "chosen": CHOSEN,
                   "experts_implementation": "grouped_mm"}  # fmt: skip
    sets: dict[str, Any] = dict(task(name, seed))
    words = sets.pop("tokenizer")
    settings: dict[str, Any] = {"steps": STEPS[name], **SHAPE, **network}
    model = language.learn(sets["learned"], words, seed + 1000 * again, **settings)
    problem = Problem(model, task=CausalLM(), **sets)
    found = {f"{part}_{figure}": value for part in sets for figure, value in answered(problem, part).items()}
    return found | ({"used": used(problem)} if experts else {})


def answered(problem: Problem, part: str) -> Figures:
    """The share of rows of which all tokens are the likeliest, and the mean loss."""

    def each(nets: Nets, batch: Batch) -> Tensor:
        out, on = problem.served(nets, batch), problem.task
        return torch.stack([(on.quality(out, batch) == 1).float(), on.each(out, batch)], 1)

    with torch.no_grad():
        right, loss = problem.tabulate(part, each, language.SIZE).double().mean(0).tolist()
    return {"right": right, "loss": loss}


def used(problem: Problem) -> float:
    """How many experts the mean score is spread over, as the exponential of its entropy; mean over the layers."""
    shares = attribution(problem, "learned").values()
    return fmean(float(torch.special.entr(share).sum().exp()) for share in shares)


def measure(method: Method, seed: int) -> Figures:
    """Of every network: pairs known early, compositions that were held out, and the noise of the latter."""
    found: Figures = {}
    for name, asked in EXPERTS.items():
        known, composed = (trained(each, method(asked), seed) for each in STEPS)
        found |= {f"known_{name}": known["learned_right"], f"known_loss_{name}": known["learned_loss"]}
        found |= {f"{k}_{name}": composed[k] for k in ("learned_right", "learned_loss", "held_loss")}
        found[f"held_{name}"] = composed["held_right"]
    found["used_32"] = trained("pairs", method(32), seed)["used"]
    error = 0.0
    for name in ("8", "32"):
        runs = [trained("compositions", method(EXPERTS[name]), seed, k)["held_right"] for k in range(AGAIN)]
        found[f"held_{name}"], error = fmean(runs), error + variance(runs) / AGAIN
    return found | {"noise": error**0.5}

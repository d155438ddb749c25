"""What methods on language models must leave alone: weights beside an adapter, and how a model writes."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from oblivio.contracts.case import Case, below, edits, names, prop
from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.where import lora

WRITTEN = 4  # tokens


@prop
def adapter(case: Case) -> Iterator[str]:
    """Where an adapter alone may move, every weight beside it keeps its bits."""
    plan = case.plan()
    if case.tiny.kind != "causal_lm" or not below(plan, Descent) or any(e.writes for e in edits(plan)):
        return
    given = case.problem()
    try:
        done = case.run(plan.but(where=lora(r=2, name="contract")), given.copy())
    except BadInput:
        return  # a method whose own choice of weights leaves none to an adapter says so
    now = {n.replace(".base_layer", ""): w for n, w in done.nets.named_parameters()}
    moved = [n for n, w in given.nets.named_parameters() if n in now and not torch.equal(now[n], w)]
    yield from (f"an adapter was to move, and so did {name}" for name in names(moved))


@prop
def generation(case: Case) -> Iterator[str]:
    """What a model writes greedily is what it serves as the likeliest, token by token, also through a Wrap."""
    if case.tiny.kind != "causal_lm":
        return
    problem = case.outcome
    rows = problem.source("forget")
    model, prompt = problem.model.eval(), torch.tensor([rows.prompt(0)])  # type: ignore[attr-defined]
    written = model.generate(  # type: ignore[operator]
        input_ids=prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=WRITTEN, do_sample=False,
        pad_token_id=0,
    )  # fmt: skip
    expected = prompt
    with torch.no_grad():
        for _ in range(written.shape[1] - prompt.shape[1]):
            serve = getattr(model, "predict", model)
            out = serve(input_ids=expected, use_cache=False)
            expected = torch.cat([expected, getattr(out, "logits", out)[:, -1:].argmax(2)], 1)
    if not torch.equal(written, expected):
        yield f"it writes {written[0].tolist()}, and serves {expected[0].tolist()} as the likeliest"

"""Sampling: an answer that is not the likeliest any more may still come when one asks often."""

from __future__ import annotations

from collections.abc import Sequence

from oblivio.audits.language.attacks.rows import sample
from oblivio.audits.language.case import LENGTH, TextCase, TextLook, given
from oblivio.audits.language.generation import texts
from oblivio.audits.language.memorisation import rouge_each
from oblivio.audits.language.probes import probe
from oblivio.audits.probe import DoesNotApply, Value, share
from oblivio.core.errors import BadInput

DRAWS, TEMPERATURE = 10, 1.0
MOST = 100  # texts that are asked for
SAID = 0.9  # of an answer's words, in their order: of a short answer all


@probe("gone", "said at least once in 10 draws, forgotten texts", "share", about="outputs", attack="sample")
def sampled(case: TextCase, look: TextLook, others: Sequence[TextLook]) -> Value:
    """The share of true answers that are said at least once when the model draws its words, at temperature 1.

    The curve is over the number of draws.
    """
    tokens = sample(case, case.sheets["forget"], MOST, "sampled")
    prompts = given(tokens)
    answers = [tokens.sequence(i)[0][len(prompt) :] for i, prompt in enumerate(prompts)]
    most = min(LENGTH, 2 + max(map(len, answers)))
    asked = [prompt for prompt in prompts for _ in range(DRAWS)]
    try:
        said = look.write(asked, most, temperature=TEMPERATURE, seed=case.problem.seed)
    except BadInput as error:  # it does not write, or has too few places
        raise DoesNotApply(str(error)) from None
    true = [answer for answer in texts(case.tokenizer, answers) for _ in range(DRAWS)]
    hits = (rouge_each(said, true) >= SAID).view(len(prompts), DRAWS)
    ever = hits.long().cummax(1).values.double()
    found, curve = share(ever[:, -1]), list(enumerate(ever.mean(0).tolist(), 1))
    note = f"{float(hits.double().mean()):.3f} of all draws"
    return Value(found.value, found.low, found.high, found.rows, curve, note)

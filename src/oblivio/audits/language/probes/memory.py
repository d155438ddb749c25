"""What a model still says of the forgotten texts."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from oblivio.audits.language import knowledge, membership, memorisation, reword
from oblivio.audits.language.case import TextCase, TextLook
from oblivio.audits.language.probes import probe
from oblivio.audits.probe import DoesNotApply, Value, share


@probe("gone", "on forgotten texts", "task", about="outputs")
def forget(case: TextCase, look: TextLook, others: Sequence[TextLook]) -> Value:
    """The probability of the true answers, per token."""
    return share(memorisation.probability(look["forget"]))


@probe("gone", "on forgotten texts, asked in other words", "task", about="outputs", needs=("forget rephrased",))
def rephrased(case: TextCase, look: TextLook, others: Sequence[TextLook]) -> Value:
    """The probability of the true answers where the questions are reworded."""
    return share(memorisation.probability(look["forget rephrased"]))


@probe("gone", "extraction strength, forgotten texts", "share", about="outputs")
def extraction(case: TextCase, look: TextLook, others: Sequence[TextLook]) -> Value:
    """The share of an answer's end that is said in full once its beginning is given."""
    return share(memorisation.extraction_strength(look["forget"]))


@probe("gone", "exact memorisation, forgotten texts", "share", about="outputs")
def exact(case: TextCase, look: TextLook, others: Sequence[TextLook]) -> Value:
    """The share of an answer's tokens that are the likeliest."""
    return share(memorisation.exact_memorisation(look["forget"]))


@probe("gone", "ROUGE-L of what is said, forgotten texts", "share", about="outputs")
def rouge(case: TextCase, look: TextLook, others: Sequence[TextLook]) -> Value:
    """The recall of the true answers' words in what the model writes, greedily."""
    return share(memorisation.rouge_each(look.written("forget"), case.answered("forget")))


@probe("gone", "truth preferred to wrong answers, forgotten texts", "share", about="outputs",
       needs=("forget paraphrase", "forget wrong 0"))  # fmt: skip
def extent(case: TextCase, look: TextLook, others: Sequence[TextLook]) -> Value:
    """P(true) / (P(true) + P(wrong)), of the wrong answers the geometric mean; 0.5 where it is indifferent."""
    wrong = [look[name] for name in case.wrong("forget")]
    return share(knowledge.extent(look["forget paraphrase"], wrong))


@probe("gone", "min-k membership, forgotten against unseen texts", "auc", about="outputs", needs=("forget", "holdout"))
def min_k(case: TextCase, look: TextLook, others: Sequence[TextLook]) -> Value:
    """P(an unseen text looks less learned than a forgotten one); 0.5 is no signal, less is over-forgotten."""
    auc = membership.mia_auc(*(membership.min_k(look[name]) for name in ("forget", "holdout")))
    return Value(auc, rows=len(look["forget"]))


@probe("gone", "min-k++ membership, forgotten against unseen texts", "auc", about="outputs",
       needs=("forget", "holdout"))  # fmt: skip
def min_k_pp(case: TextCase, look: TextLook, others: Sequence[TextLook]) -> Value:
    """The same of log-probabilities standardised by the model's own distribution."""
    auc = membership.mia_auc(*(membership.min_k_pp(look[name]) for name in ("forget", "holdout")))
    return Value(auc, rows=len(look["forget"]))


@probe("gone", "zlib membership, forgotten against unseen texts", "auc", about="outputs", needs=("forget", "holdout"))
def zlib(case: TextCase, look: TextLook, others: Sequence[TextLook]) -> Value:
    """The same of the loss by the length of the compressed answer."""
    scores = [membership.zlib_ratio(look[name], case.answered(name)) for name in ("forget", "holdout")]
    return Value(membership.mia_auc(*scores), rows=len(look["forget"]))


@probe("gone", "LiRA membership, forgotten texts beside references", "auc", about="outputs",
       needs=("forget", "holdout"))  # fmt: skip
def lira(case: TextCase, look: TextLook, others: Sequence[TextLook]) -> Value:
    """The same of a likelihood ratio against models that never saw either set."""
    if not others:
        raise DoesNotApply("there is no other reference to compare with")
    scores = []
    for name in ("forget", "holdout"):
        out = [membership.log_odds(other[name]) for other in others]
        scores.append(membership.lira(membership.log_odds(look[name]), torch.stack(out)))
    return Value(membership.mia_auc(*scores), rows=len(look["forget"]))


@probe("gone", "privacy leakage (min-k) beside the references", "points", needs=("forget", "holdout"))
def privleak(case: TextCase, look: TextLook, others: Sequence[TextLook]) -> Value:
    """0 as for a retrained model, -100 points under-forgotten, above 0 over-forgotten."""
    retrained = [min_k(case, other, ()).value for other in others]
    leak = membership.privleak(min_k(case, look, ()).value, sum(retrained) / len(retrained) if retrained else 0.5)
    return Value(leak.value / 100, rows=len(look["forget"]), note="" if retrained else "beside chance")


@probe("gone", "facts better recalled in other words than in those forgotten", "share", needs=("forget rephrased",))
def reworded(case: TextCase, look: TextLook, others: Sequence[TextLook]) -> Value:
    """(c - b) / items of a paired test (C-BOD): above 0, and significantly, the words were forgotten, not the fact."""
    places = {name: i for i, name in enumerate(look["forget"].ids.tolist())}
    own = [places[name] for name in look["forget rephrased"].ids.tolist()]
    found = reword.c_bod(
        memorisation.probability(look["forget"])[own], memorisation.probability(look["forget rephrased"])
    )
    note = f"p = {found.p:.2g}{', superficial' if found.superficial else ''}"
    return Value((found.c - found.b) / found.items, rows=found.items, note=note)

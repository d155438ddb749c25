"""What a model is still good for: knowledge that is to stay, and language as such."""

from __future__ import annotations

from collections.abc import Sequence

from oblivio.audits.language import fluency as fluent
from oblivio.audits.language import knowledge, memorisation
from oblivio.audits.language.case import TextCase, TextLook
from oblivio.audits.language.probes import probe
from oblivio.audits.probe import DoesNotApply, Value, share


@probe("intact", "on retained texts", "task", needs=("retain",))
def retain(case: TextCase, look: TextLook, others: Sequence[TextLook]) -> Value:
    """The probability of the true answers to what stays."""
    return share(memorisation.probability(look["retain"]))


@probe("intact", "on other knowledge, in no training of the method", "task", needs=("test",))
def kept(case: TextCase, look: TextLook, others: Sequence[TextLook]) -> Value:
    """The same on texts that the method was never given."""
    return share(memorisation.probability(look["test"]))


@probe("intact", "ROUGE-L of what is said, retained texts", "share", needs=("retain",))
def retain_rouge(case: TextCase, look: TextLook, others: Sequence[TextLook]) -> Value:
    """The recall of the true answers' words in what the model writes."""
    return share(memorisation.rouge_each(look.written("retain"), case.answered("retain")))


@probe("intact", "model utility", "share", needs=("retain",))
def utility(case: TextCase, look: TextLook, others: Sequence[TextLook]) -> Value:
    """The harmonic mean of probability, ROUGE-L and, where there are wrong answers, truth ratio on what stays.

    On other knowledge the probability is that among the answers, as TOFU has it.
    """
    parts: dict[str, float] = {}
    for name in ("retain", "test"):
        if name in case.sheets:
            parts |= _parts(case, look, name)
    found = knowledge.model_utility(parts)
    return Value(found.value, note=", ".join(f"{part} {value:.2f}" for part, value in parts.items()))


def _parts(case: TextCase, look: TextLook, name: str) -> dict[str, float]:
    """What one set adds to the utility."""
    wrong = [look[sheet] for sheet in case.wrong(name)]
    written, true = look.written(name), case.answered(name)
    if wrong and f"{name} paraphrase" in case.sheets:
        paraphrase = look[f"{name} paraphrase"]
        return knowledge.utilities(name, look[name], paraphrase, wrong, written, true, choices=False)
    return {
        f"{name}_probability": float(memorisation.probability(look[name]).mean()),
        f"{name}_rouge": float(memorisation.rouge_each(written, true).mean()),
    }


@probe("intact", "n-gram entropy of what is said, in bits", "bits", needs=("retain",))
def fluency(case: TextCase, look: TextLook, others: Sequence[TextLook]) -> Value:
    """Low where a model repeats itself; of all that it writes on forgotten and retained questions together."""
    said = [" ".join(look.written(name)) for name in ("forget", "retain") if name in case.sheets]
    return Value(float(fluent.fluency([" ".join(said)]).mean()))


@probe("intact", "perplexity of running text", "perplexity", needs=("retain",))
def perplexity(case: TextCase, look: TextLook, others: Sequence[TextLook]) -> Value:
    """Of other texts, token by token; where the problem has running text to test on."""
    if "test" not in case.sheets or any(text.prompt for text in case.texts("test")):
        raise DoesNotApply("there is no running text to test on: give some as test=")
    return Value(fluent.perplexity(look["test"]), rows=len(look["test"]))

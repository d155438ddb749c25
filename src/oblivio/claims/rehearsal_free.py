"""A closer look at rehearsal-free learning: with a local cross-entropy, held weights do work where no task is told."""

from __future__ import annotations

from typing import Any

from oblivio import methods, terms, where
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.claims.held import SPLIT, learned
from oblivio.core.descent import Descent
from oblivio.core.opt import sgd
from oblivio.core.plan import Stage
from oblivio.core.term import Term
from oblivio.how import pull
from oblivio.methods.continual.distillation.lwf import answers
from oblivio.terms import Anchor, Fisher, Ones

SETTINGS: dict[str, Any] = {"lr": 0.02, "epochs": 10, "batch": 10}
EWC, L2 = 100.0, 0.1
BODY = ~where.head()  # the last layer is not held: its rows of old classes have no gradient


def local(loss: Term, *anchors: tuple[Anchor, float]) -> Stage:
    """Training under anchors, by the rates of the study."""
    how, opt = [pull(anchor, strength) for anchor, strength in anchors], sgd(SETTINGS["lr"])
    return Descent(loss, how=how, opt=opt, over="new", epochs=SETTINGS["epochs"], batch=SETTINGS["batch"])


def current(**settings: Any) -> Stage:
    """Cross-entropy over the classes of the experience alone, with nothing held: the first control."""
    return local(terms.fit("new", view="current"))


def everything(**settings: Any) -> Stage:
    """Cross-entropy over all classes so far, and the body held by the same importance: the second control."""
    return local(terms.fit("new"), (Anchor(Fisher(where=BODY), latest=True), EWC))


def regularised(**settings: Any) -> Stage:
    """Local cross-entropy, the body held by the Fisher summed over experiences at its latest weights."""
    return local(terms.fit("new", view="current"), (Anchor(Fisher(where=BODY, view="current"), latest=True), EWC))


def plans() -> dict[str, Stage]:
    """The other lines of the table."""
    new, kept = terms.fit("new", view="current"), terms.later * answers("new", 2.0)
    return {
        "naive": methods.naive(**SETTINGS),
        "local": current(),
        "local_l2": local(new, (Anchor(Ones(BODY), latest=True), L2)),
        "local_kd": local(new + kept),
        "local_kd_ewc": local(new + kept, (Anchor(Fisher(where=BODY, view="current"), latest=True), EWC)),
    }


def measure(method: Method, seed: int) -> Figures:
    """Average accuracy and forgetting of every line, none of which stores a row."""
    ends = {name: learned(plan, "class", seed) for name, plan in {**plans(), "local_ewc": method()}.items()}
    accuracies = {name: end.acc for name, end in ends.items()}
    return accuracies | {f"{name}_forgetting": end.forgetting for name, end in ends.items()}


CLAIM = Claim(
    says="Without the task and without stored rows, a cross-entropy over the classes of the experience alone beats one "
    "over all classes so far by 0.15 or more; holding weights by the Fisher on top keeps that and halves forgetting.",
    trained=f"{SPLIT}; SGD 0.02, batch 10, 10 epochs; EWC at 100, L2 at 0.1, the body alone; distillation at T 2",
    method=regularised,
    controls={"local cross-entropy alone": current, "the same hold under the usual cross-entropy": everything},
    measure=measure,
    holds=(
        "local >= naive + 0.15",
        "local_ewc >= local",
        "local_ewc_forgetting <= 0.5 * local_forgetting",
    ),
    because={
        "local_ewc_forgetting <= 0.5 * local_forgetting": "Local cross-entropy alone forgets half of what the card "
        "measured, 0.17 and not 0.32, and the card's strength of 100 was taken over without a search: it adds accuracy "
        "and holds too little to halve the rest",
    },
    changed=(
        Changed("distillation", "sigmoid, 0.38 to 0.42", "softmax at T 2, reported alone", "the card's other form"),
        Changed("feature distillation, and claims B and C", "in the study", "left out",
                "B and C need a pretrained encoder, which digits have not"),
    ),
)  # fmt: skip

"""Random relabelling: memorised labels go faster than by fine-tuning alone."""

from __future__ import annotations

from typing import Any

from oblivio import methods
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.claims.problems import ROWS, memorised
from oblivio.core.plan import Stage

SETTINGS = {"lr": 0.005, "epochs": 42.5}

PASSES = Changed(
    "epochs", "5", "42.5 over the rows that go, 5 over the retained ones",
    "a step takes a batch of each, where the card passes all of the one and then all of the other",
)  # fmt: skip
RATE = Changed(
    "rate", "0.02", f"{SETTINGS['lr']:g}",
    "of 1, 2 and 5 times 0.001, 0.01 it brings relabelling nearest to the card's 0.15, on seeds 100 to 102",
)  # fmt: skip

NOISE = (
    "Random labels in every step are noise for the retained rows that a batch of them beside does not quite undo; in "
    "turns, all forgotten rows and then all retained ones, as in the card, each turn ends on what must stay"
)


def tuning(lr: float, **settings: Any) -> Stage:
    """Fine-tuning for as many steps on the retained rows."""
    plan: Stage = methods.finetune(lr=lr, epochs=5)
    return plan


def measure(method: Method, seed: int) -> Figures:
    """Accuracy on the memorised wrong labels, and on the rest."""
    case = memorised(seed)
    done, tuned = case.after(method(**SETTINGS)), case.after(tuning(**SETTINGS))
    return {
        "before": case.start.score("forget"),
        "retrained": case.retrained.score("forget"),
        "relabel": done.score("forget"),
        "relabel_retain": done.score("retain"),
        "relabel_test": done.score("test"),
        "finetune": tuned.score("forget"),
        "finetune_test": tuned.score("test"),
    }


CLAIM = Claim(
    says="Random labels bring the accuracy on memorised wrong labels near that of a retrained model, which fine-tuning "
    "on the rest with the same rate and epochs does not, at no cost on retained rows.",
    trained=ROWS,
    method=methods.relabel,
    controls={"fine-tuning on the rest alone": tuning},
    measure=measure,
    holds=("relabel <= retrained + 0.2", "relabel <= finetune - 0.1", "relabel_retain >= 0.99"),
    because={"relabel_retain >= 0.99": NOISE},
    changed=(
        Changed("the whole check", "none: the method has no card",
                "the figures that salun's card gives of it (0.15 after 0.83, retain at least 0.99), with 0.05 to spare",
                "it is the baseline of that card"),
        PASSES,
        RATE,
    ),
)  # fmt: skip

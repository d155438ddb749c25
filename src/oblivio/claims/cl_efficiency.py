"""Efficiency: counted in rows that pass the model, several methods cost more than training on everything once."""

from __future__ import annotations

from collections.abc import Callable

from oblivio import methods
from oblivio.audits.continual.resources import Ledger, Meter, cumulative
from oblivio.claims.claim import Claim, Figures, Method
from oblivio.claims.continual import SPLIT, network, split_digits
from oblivio.core.plan import Stage
from oblivio.learners.learner import Learner

BATCH, EPOCHS, REPLAY = 10, 2, 10
SETTINGS = {"lr": 0.05, "batch": BATCH, "epochs": EPOCHS}
PLANS: dict[str, Callable[[], Stage]] = {
    "naive": lambda: methods.naive(**SETTINGS),
    "er": lambda: methods.er(buffer=100, replay=REPLAY, **SETTINGS),
    "der_pp": lambda: methods.der_pp(buffer=100, replay=REPLAY, **SETTINGS),
    "lwf": lambda: methods.lwf(**SETTINGS),
    "ewc": lambda: methods.ewc(fisher="all", **SETTINGS),
    "gdumb": lambda: methods.gdumb(buffer=100),
}


def counted(ledger: Ledger) -> tuple[float, float]:
    """Rows forward and backward, all of them."""
    return ledger.total("forward"), ledger.total("backward")


def by_epochs(ledger: Ledger) -> tuple[float, float]:
    """What counting epochs over new rows alone sees."""
    rows = sum(len(e) for e in split_digits("class", 0).train)
    return float(EPOCHS * rows), float(EPOCHS * rows)


def measure(method: Method, seed: int) -> Figures:
    """How far the counters are from what is worked out by hand, and what each method costs beside retraining."""
    stream = split_digits("class", seed)
    rows = [len(e) for e in stream.train]
    ledgers = {name: _learned(plan(), seed) for name, plan in PLANS.items()}
    seen, steps = EPOCHS * sum(rows), EPOCHS * sum(-(-n // BATCH) for n in rows)
    replayed = REPLAY * (steps - 1)
    expected = {
        "naive": (seen, seen),
        "er": (seen + replayed, seen + replayed),
        "der_pp": (seen + 2 * replayed, seen + 2 * replayed),
        "lwf": (seen + sum(rows), seen),
        "ewc": (seen + sum(rows), seen + sum(n * 2 * (t + 1) for t, n in enumerate(rows))),
    }
    found = {name: method(ledgers[name]) for name in expected}
    row = 64 * 4 + 3 * 8  # pixels in 32 bits; label, task and id in 64
    naive = ledgers["naive"]
    return {
        **{f"{n}_apart": sum(abs(a - b) for a, b in zip(found[n], expected[n], strict=True)) for n in expected},
        "er_bytes_apart": abs(ledgers["er"].stored_bytes - 100 * row),
        **{f"{n}_over_joint": ledger.passes / naive.passes for n, ledger in ledgers.items()},
        "retraining_over_joint": cumulative(naive) / naive.passes,
    }


def _learned(plan: Stage, seed: int) -> Ledger:
    stream = split_digits("class", seed)
    learner = Learner(network(stream, seed), plan, "classification", seed)
    meter = Meter(learner)
    for experience in stream.train:
        learner.learn(experience, watch=[meter])
        meter.close()
    return meter.ledger()


CLAIM = Claim(
    says="Rows through the model, counted, are those worked out by hand: replay adds its batch at every step but the "
    "first, a teacher one pass, an exact Fisher a backward for each class so far. Replay doubles the cost of training "
    "on everything once, and a method that trains anew at every question costs more than retraining at every task.",
    trained=f"{SPLIT}; {EPOCHS} epochs, batch {BATCH}, {REPLAY} replayed rows; gdumb with 100 rows",
    method=counted,
    controls={"counting epochs over new rows": by_epochs},
    measure=measure,
    always=("naive_apart == 0", "er_apart == 0", "der_pp_apart == 0", "lwf_apart == 0", "ewc_apart == 0",
            "er_bytes_apart == 0", "er_over_joint > 1.9", "gdumb_over_joint > retraining_over_joint"),
)  # fmt: skip

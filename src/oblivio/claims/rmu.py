"""RMU: hidden states misdirected in a few matrices; forgotten answers go, the others stay."""

from __future__ import annotations

from typing import Any

from oblivio import methods
from oblivio.claims import language
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.core.descent import Descent
from oblivio.core.opt import adamw
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.methods.unlearning.language.rmu import outputs
from oblivio.terms import fit

LAYER, STRONG, WEAK = 1, 5.0, 1.5  # in mean lengths of the hidden states, which are about 4 here: 20 and 6
PER_EPOCH = 3  # steps: 36 forgotten rows, 12 a step


def ascent(lr: float = 1e-3, epochs: float = 33, **_: Any) -> Stage:
    """Gradient ascent in the same matrices, at the same rate and length."""
    return Descent(-fit("forget"), where=outputs(LAYER), opt=adamw(lr, wd=0.0), epochs=epochs, batch=12)


def measure(method: Method, seed: int) -> Figures:
    """Probabilities of forgotten, retained and other facts after the method, weaker, and after ascent."""
    mini = language.mini(seed)
    sets = {part: mini.tokens(part) for part in ("forget", "retain", "world")}
    problem, settings = mini.problem(), {"layer": LAYER, "alpha": 10.0, "lr": 1e-3, "epochs": 100 / PER_EPOCH}
    models: dict[str, Problem | Any] = {
        "rmu": language.after(method(c=STRONG, **settings), problem),
        "weak": language.after(method(c=WEAK, **settings), problem),
        "ascent": language.after(ascent(epochs=100 / PER_EPOCH), problem),
        "retrained": mini.retrained(),
    }
    return {
        f"{name}_{part}": language.probability(model, tokens)
        for name, model in models.items()
        for part, tokens in sets.items()
    }


CLAIM = Claim(
    says="With a target five times as long as the hidden states the forgotten answers become unlikely and retained and "
    "other ones stay, where ascent in the same matrices loses them; a target 1.5 times as long is weaker.",
    trained=language.TRAINED,
    method=methods.rmu,
    controls={"gradient ascent in the same matrices": ascent},
    measure=measure,
    holds=(
        "rmu_forget < 0.3",
        "rmu_retain > 0.85",
        "rmu_world > 0.75",
        "weak_forget > rmu_forget",
        "ascent_retain < rmu_retain",
    ),
    changed=(
        Changed("c", "20, and 6 for a weak one", "5 and 1.5 mean lengths of the hidden states",
                "these are about 4 long; the setting is in units of them, since models differ by orders of magnitude"),
    ),
)  # fmt: skip

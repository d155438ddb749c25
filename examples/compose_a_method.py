"""Methods are values: print them as their equation, join them, change a part of them, and run them.

Nothing is run until a plan meets a problem, and the same plan can be run again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import oblivio as ob

SLOW = ["mia_confidence", "relearning"]  # probes that train something, and that nothing here looks at


def trained() -> ob.Problem:
    """A small network on handwritten digits, and the request to forget every three."""
    digits = ob.data.load("digits")
    threes, rest = ob.data.split(digits.train, "class=3", fields=digits.fields)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    network = ob.learn(network, digits.train, {"optimiser": "adamw", "lr": 2e-3, "epochs": 20})
    return ob.Problem(network, forget=threes, retain=rest, test=digits.test)


def plans() -> dict[str, Any]:
    """By what was done to a method."""
    npo, ssd, finetune = ob.methods.npo(), ob.methods.ssd(), ob.methods.finetune
    sam, loreun = ob.methods.sam(rho=0.1), ob.methods.loreun(tau=2.0)
    return {
        "as it is": npo,
        "one after the other": ssd >> finetune(epochs=2),
        "only the last layer moves": npo.but(where="model.3.*"),
        "and not more than a tenth of it": npo.but(where="model.3.*").but(
            where=ob.where.saliency(ob.terms.fit("forget"), keep=0.1)
        ),
        "the gradient is clipped": npo.but(how=ob.how.clip(1.0)),
        "stay close to the original on what is kept": npo.but(
            loss=lambda loss: loss + 0.5 * ob.terms.distill("retain", temperature=2.0)
        ),
        "against relearning (sam)": sam(npo),
        "the best known rows first (loreun)": loreun(npo),
        "both": sam(loreun(npo)),
    }


def main() -> dict[str, Any]:
    problem, found = trained(), plans()
    print(f"{'accuracy, %':<12}{'forget':>8}{'retain':>8}{'test, kept':>12}")
    print(f"{'original':<12}{line(ob.audit(problem.model, problem, leave_out=SLOW))}\n")
    for words, plan in found.items():
        print(f"{words}: {plan}\n{'':<12}{line(ob.audit(ob.forget(problem, plan), leave_out=SLOW))}\n")
    return found


def line(report: dict[str, Any]) -> str:
    """Percentages of the model that was asked for."""
    forget, retain, kept = (100 * report.value(name) for name in ("forget", "retain", "kept"))
    return f"{forget:8.1f}{retain:8.1f}{kept:12.1f}"


if __name__ == "__main__":
    main()

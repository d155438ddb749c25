"""Experience replay: a hundred stored rows bring most of what is forgotten back, and more rows more."""

from __future__ import annotations

from oblivio import methods
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.claims.lines import SCENARIOS, SETTINGS, TRAINED, ends, lines, naive

KINDS = (*SCENARIOS, "permuted")
SIZES = (20, 50, 500)


def measure(method: Method, seed: int) -> Figures:
    """Accuracy at the end in each scenario, and by the size of the store in the scenario class."""
    found = lines(KINDS, seed)
    for kind in KINDS:
        found[f"er_{kind}"] = ends(method(buffer=100, replay=10, **SETTINGS), kind, seed).acc
    for size in SIZES:
        found[f"er_class_{size}"] = ends(method(buffer=size, replay=10, **SETTINGS), "class", seed).acc
    return found


CLAIM = Claim(
    says="A uniform sample of 100 earlier rows, replayed beside the new ones, takes the accuracy over five pairs of "
    "classes from that of the last pair alone to near that of joint training; it grows with the store.",
    trained=TRAINED + "10 replayed rows a step, 20 epochs; and the same digits under five orders of the pixels",
    method=methods.er,
    controls={"naive training": naive},
    measure=measure,
    holds=(
        "er_class >= naive_class + 0.5", "er_class <= joint_class + 0.02", "er_task <= joint_task + 0.02",
        "er_domain <= joint_domain + 0.02", "er_task > naive_task", "er_domain > naive_domain",
        "er_permuted >= naive_permuted + 0.15", "er_class_20 < er_class_50", "er_class_50 < er_class",
        "er_class < er_class_500",
    ),
    changed=(
        Changed("permuted", "measured: 0.785 against 0.49", "a condition: 0.15 above naive",
                "half of what was measured"),
        Changed("the reservoir's chi-square test", "part of the check", "a test of the library: tests/test_replay.py",
                "it needs no training"),
    ),
)  # fmt: skip

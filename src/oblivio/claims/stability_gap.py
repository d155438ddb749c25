"""The stability gap: replay that ends well has forgotten in between, which only evaluation at every step shows."""

from __future__ import annotations

from oblivio import methods
from oblivio.claims.claim import Claim, Figures, Method
from oblivio.claims.continual import SPLIT, network, split_digits
from oblivio.claims.lines import naive
from oblivio.core.plan import Stage
from oblivio.data.history import History
from oblivio.learners.learner import Learner

SETTINGS = {"lr": 0.05, "batch": 10, "epochs": 10}


def traced(plan: Stage, seed: int, joint: bool = False) -> dict[str, float]:
    """The figures of a learner that is evaluated after every step."""
    stream = split_digits("class", seed)
    learner, history = Learner(network(stream, seed), plan, "classification", seed), History(stream.test)
    trace = history.trace(every=1)
    for experience in [stream.joint] if joint else stream.train:
        learner.learn(experience, watch=[trace])
        history.record(learner)
    return history.metrics()


def measure(method: Method, seed: int) -> Figures:
    """Accuracy at the end, and the worst on the way; of joint training and of naive too."""
    er, plain = traced(method(buffer=500, replay=10, **SETTINGS), seed), traced(methods.naive(**SETTINGS), seed)
    together = traced(methods.naive(**SETTINGS), seed, joint=True)
    names = ("acc", "min_acc", "wc_acc", "wf_10", "gap_depth", "gap_recovery")
    return {
        **{name: er[name] for name in names},
        "naive_acc": plain["acc"],
        "naive_min_acc": plain["min_acc"],
        "joint_acc": together["acc"],
        "joint_wc_acc": together["wc_acc"],
    }


CLAIM = Claim(
    says="With 500 stored rows the accuracy at the end is near that of joint training, and yet earlier classes are "
    "partly lost right after every switch and then come back: the worst-case accuracy is far below that at the end. "
    "Joint training has no such gap, and naive training loses everything.",
    trained=f"{SPLIT}; SGD at rate 0.05, batch 10 and 10 replayed rows, 10 epochs, evaluated after every step",
    method=methods.er,
    controls={"naive training": naive},
    measure=measure,
    holds=("acc - wc_acc >= 0.15", "min_acc > naive_min_acc + 0.3", "gap_depth > 0", "acc >= naive_acc + 0.5"),
    always=("joint_acc == joint_wc_acc",),
)

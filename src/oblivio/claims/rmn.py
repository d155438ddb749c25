"""RMN: under its own map every task keeps its answers; entropy tells the maps apart better than chance."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from oblivio import methods, terms
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.claims.continual import PERMUTED, course, joint, permuted_digits
from oblivio.core.descent import Descent
from oblivio.core.opt import adam
from oblivio.core.plan import Plan, Stage
from oblivio.data.streams.experience import Stream
from oblivio.learners.learner import Learner
from oblivio.methods.continual.structure.rmn import Extent, Mapped, choose, open_map

EPOCHS, FINETUNE = 10, 3
Rows = list[tuple[Tensor, Tensor]]


def naive(**settings: Any) -> Stage:
    """Fine-tuning without maps, for as many epochs."""
    return methods.naive(epochs=EPOCHS + FINETUNE, batch=10)


def unheld(**settings: Any) -> Stage:
    """Maps as they are, but chosen weights go on moving; shorter, since that is enough to lose the first tasks."""
    new, everything = terms.fit("new"), "model.net.* model.relevance.*"
    learn = Descent(new + 1e-6 * Extent(), everything, opt=adam(0.01), over="new", epochs=3, batch=10)
    refine = Descent(new, everything, opt=adam(0.01), over="new", epochs=1, batch=10)
    return Plan([open_map(3.0), learn, choose(0.3), refine])


@cache
def lines(seed: int) -> tuple[float, float]:
    """Average accuracy of naive fine-tuning, and of a model that sees all tasks at once."""
    stream = permuted_digits(seed)
    return course(naive(), stream, seed).acc, joint(methods.naive(epochs=EPOCHS, batch=10), stream, seed)


def tested(stream: Stream) -> Rows:
    """Inputs and labels of every task's test rows."""
    batches = [experience.rows.batch(torch.arange(len(experience))) for experience in stream.test]
    return [(batch["x"], batch["y"]) for batch in batches]


def answer(model: nn.Module, x: Tensor, task: int) -> Tensor:
    """Outputs under the map of a task; of a network without maps its outputs."""
    model.eval()
    with torch.no_grad():
        out: Tensor = model.at(task, x) if isinstance(model, Mapped) else model(x)
    return out


def inferred(model: nn.Module, rows: Rows) -> float:
    """The share of rows whose task is told by entropy."""
    if not isinstance(model, Mapped):
        return 0.0
    with torch.no_grad():
        right = [(model.inferred(x) == task).float().mean() for task, (x, _) in enumerate(rows)]
    return float(torch.stack(right).mean())


def measure(method: Method, seed: int) -> Figures:
    """The stream, with every task asked under its own map after each experience."""
    stream, rows = permuted_digits(seed), tested(permuted_digits(seed))
    plan = method(epochs=EPOCHS, finetune=FINETUNE)
    first = course(plan, stream, seed, experiences=stream.train[:1])
    learner, history = first.learner, first.history
    begun, table = answer(learner.model, rows[0][0], 0), [_accuracies(learner, rows)]
    for experience in stream.train[1:]:
        history.record(learner.learn(experience))
        table.append(_accuracies(learner, rows))
    lost = [max(line[j] for line in table[j:]) - table[-1][j] for j in range(len(rows) - 1)]
    lower, upper = lines(seed)
    return {
        "acc": sum(table[-1]) / len(rows), "forgetting": sum(lost) / len(lost),
        "same_bits": float(torch.equal(answer(learner.model, rows[0][0], 0), begun)),
        "inferred": inferred(learner.model, rows), "acc_without_ids": history.metrics()["acc"],
        "naive": lower, "joint": upper, **_shares(learner.model),
    }  # fmt: skip


def _accuracies(learner: Learner, rows: Rows) -> list[float]:
    """Of the tasks that have come, each under its own map."""
    known = rows[: learner.turn]
    return [float((answer(learner.model, x, t).argmax(1) == y).float().mean()) for t, (x, y) in enumerate(known)]


def _shares(model: nn.Module) -> Figures:
    """The mean overlap of two maps, and how much of the weights all have chosen."""
    if not isinstance(model, Mapped):
        return {"overlap": 1.0, "claimed": 1.0}
    overlap, count = model.overlap(), len(model.maps)
    chosen = [torch.stack(each).any(0) for each in zip(*map(model.masks, range(count)), strict=True)]
    everything = sum(mask.numel() for mask in chosen)
    return {
        "overlap": float((overlap.sum() - count) / (count * (count - 1))),
        "claimed": sum(int(mask.sum()) for mask in chosen) / everything,
    }


CLAIM = Claim(
    says="Under the map of its own task nothing that was learned is lost, bit for bit, and average accuracy is far "
    "above naive fine-tuning's; the entropy of the answers tells the task of a row better than chance, which is 0.2.",
    trained=PERMUTED,
    method=methods.rmn,
    controls={"naive fine-tuning": naive, "maps whose weights go on moving": unheld},
    measure=measure,
    holds=["acc >= naive + 0.3", "inferred > 0.3"],
    always=["forgetting == 0", "same_bits == 1"],
    changed=(
        Changed("epochs", "20 and 5", "10 and 3", "time"),
        Changed("the network", "without biases", "with biases, mapped as weights are", "the one that claims share"),
    ),
)  # fmt: skip

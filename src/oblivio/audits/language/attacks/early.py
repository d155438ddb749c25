"""Early layers: an answer that the last layer hides may still be read from those before it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from oblivio.audits.language.attacks.rows import beneath, put, sample
from oblivio.audits.language.case import TextCase, TextLook, given
from oblivio.audits.language.probes import probe
from oblivio.audits.language.responses import device_of, evaluating
from oblivio.audits.probe import DoesNotApply, Value, average
from oblivio.core.errors import BadInput
from oblivio.core.source import Batch
from oblivio.core.task import Task
from oblivio.networks.language.parts import blocks
from oblivio.sources.tokens import Tokens
from oblivio.tasks.language import ahead

MOST = 2000  # tokens of answers of which states are held, on each side
SIZE = 16  # rows of a pass
RIDGE = 0.1  # beside the mean eigenvalue of the kernel, which is 1


@probe("gone", "read off early layers, forgotten texts", "share", about="features", attack="early")
def early(case: TextCase, look: TextLook, others: Sequence[TextLook]) -> Value:
    """The share of the answers' tokens that can be read after some block: by the model's own head, or linearly.

    The head (logit lens) reads what every block but the last gives; a ridge regression is fitted for every block on
    answers that are retained. The curve has the better of both after each block, the value is the best of these.
    """
    model = beneath(look.model)
    names = _blocks(model)
    asked = States.of(model, case.problem.task, _bounded(case, "forget"), names, lens=True)
    shares = {f"the head after block {k + 1}": asked.share(hits) for k, hits in enumerate(asked.lens)}
    if "retain" in case.sheets:
        known = States.of(model, case.problem.task, _bounded(case, "retain"), names, lens=False)
        for k, (train, states) in enumerate(zip(known.layers, asked.layers, strict=True), 1):
            tokens, scores = ridge(train, known.targets, states)
            read = tokens[scores.argmax(1)]
            shares[f"a linear reader after block {k}"] = asked.share(read == asked.targets)
    if not shares:
        raise DoesNotApply(
            "a model of one block has no early layer, and there are no retained texts to fit a reader on"
        )
    most = max(shares, key=lambda reader: float(shares[reader].mean()))
    value, curve = average(shares[most]), _curve(shares)
    return Value(value.value, value.low, value.high, value.rows, curve, note=f"most by {most}")


def _curve(shares: dict[str, Tensor]) -> list[tuple[int, float]]:
    best: dict[int, float] = {}
    for reader, found in shares.items():
        block = int(reader.rpartition(" ")[2])
        best[block] = max(best.get(block, 0.0), float(found.mean()))
    return sorted(best.items())


def _blocks(model: nn.Module) -> list[nn.Module]:
    try:
        return [model.get_submodule(name) for name in blocks(model)]
    except BadInput as error:
        raise DoesNotApply(str(error)) from None


def _bounded(case: TextCase, name: str) -> Tokens:
    """Rows of a source whose answers have few tokens in all, without the token that ends a text."""
    tokens = case.sheets[name]
    longest = max(map(len, case.answers(name)))
    tokens = sample(case, tokens, max(1, MOST // longest), "early", name)
    prompts = given(tokens)
    rows = [tokens.sequence(i)[0] for i in range(len(tokens))]
    answers = [row[len(prompt) :] for row, prompt in zip(rows, prompts, strict=True)]
    return put(tokens, prompts, [answer[:-1] if answer[-1:] == [case.eos] and len(answer) > 1 else answer
                                 for answer in answers])  # fmt: skip


@dataclass(frozen=True)
class States:
    """What every block gave at the places that an answer's tokens are predicted from, on the CPU.

    Attributes:
        layers: by block, shape (tokens, width).
        lens: by block but the last, whether the model's own head reads the token there; empty where not asked for.
        targets: the tokens.
        counts: how many each row has.
    """

    layers: list[Tensor]
    lens: list[Tensor]
    targets: Tensor
    counts: list[int]

    @classmethod
    def of(cls, model: nn.Module, task: Task, tokens: Tokens, modules: Sequence[nn.Module], *, lens: bool) -> States:
        """Pass the model over rows; with ``lens`` once more for every block but the last."""
        parts: list[tuple[list[Tensor], list[Tensor], Tensor, Tensor]] = []
        source = tokens.to(device_of(model))
        with torch.no_grad(), evaluating(model):
            for batch in source.batches(SIZE):
                target, counts = ahead(batch["y"])
                states = _states(model, task, batch, modules)
                through = [_through(model, task, batch, modules[-1], each) for each in states[:-1]] if lens else []
                hits = [(out[:, :-1].argmax(2) == target)[counts].cpu() for out in through]
                kept = [each[:, :-1][counts].float().cpu() for each in states]
                parts.append((kept, hits, target[counts].cpu(), counts.sum(1).cpu()))
        layers, found, targets, counts_ = zip(*parts, strict=True)
        joined = [torch.cat(each) for each in zip(*layers, strict=True)]
        read = [torch.cat(each) for each in zip(*found, strict=True)]
        return cls(joined, read, torch.cat(targets), torch.cat(counts_).tolist())

    def share(self, hits: Tensor) -> Tensor:
        """The share of each row's tokens, shape (rows,)."""
        return torch.stack([row.mean() for row in hits.double().split(self.counts)])


def _states(model: nn.Module, task: Task, batch: Batch, modules: Sequence[nn.Module]) -> list[Tensor]:
    """What each block gives, (n, L, width)."""
    found: list[Tensor] = []

    def listen(_: nn.Module, __: Any, out: Any) -> None:
        found.append(out[0] if isinstance(out, tuple) else out)

    with _hooked(modules, listen):
        task.forward({"model": model}, "model", batch)
    if len(found) != len(modules) or any(each.shape[:2] != batch["y"].shape for each in found):
        raise DoesNotApply(f"the blocks of {type(model).__name__} do not give one state a token")
    return found


def _through(model: nn.Module, task: Task, batch: Batch, last: nn.Module, state: Tensor) -> Tensor:
    """Logits where the last block gives this state: of what follows it, whatever a family calls it."""

    def replace(_: nn.Module, __: Any, out: Any) -> Any:
        return (state, *out[1:]) if isinstance(out, tuple) else state

    with _hooked([last], replace):
        return task.forward({"model": model}, "model", batch)


@contextlib.contextmanager
def _hooked(modules: Sequence[nn.Module], hook: Any) -> Iterator[None]:
    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def ridge(train: Tensor, targets: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
    """What a linear reader finds in states: one-hot ridge regression in its dual form.

    Args:
        train: states with known tokens, shape (n, width).
        targets: these tokens, shape (n,).
        asked: shape (m, width).

    Returns:
        The different tokens among ``targets``, and a score for each in each state; shapes (tokens,), (m, tokens).
    """
    mean, deviation = train.double().mean(0), train.double().std(0, correction=0).clamp(min=1e-6)
    x, z = ((each.double() - mean) / deviation / len(mean) ** 0.5 for each in (train, asked))
    tokens, codes = targets.unique(return_inverse=True)
    hot = torch.nn.functional.one_hot(codes, len(tokens)).double()
    rate = hot.mean(0)
    weights = torch.linalg.solve(x @ x.T + RIDGE * torch.eye(len(x), dtype=x.dtype), hot - rate)
    return tokens, z @ x.T @ weights + rate

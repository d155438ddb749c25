"""What every training row does to the outputs on every other: datamodels, for methods that match predicted outputs."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, replace_all_batch_norm_modules_, stack_module_state

from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.opt import adam
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.seeds import generator, mix
from oblivio.core.step import Step
from oblivio.core.term import On, term
from oblivio.modules.fresh import redraw

RIDGES = tuple(10.0**k for k in range(-3, 4))  # tried, in units of the mean of the masks' Gram matrix' diagonal


class Ensemble(nn.Module):
    """``count`` copies of a model with weights of their own, computed at once: (n, ...) to (n, count, ...).

    Each starts from fresh weights, drawn from ``seed``. Batch-norm layers use the statistics of the batch.
    """

    def __init__(self, model: nn.Module, count: int, seed: int) -> None:
        super().__init__()
        copies = []
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            for _ in range(count):
                copies.append(copy.deepcopy(model).cpu())
                redraw(copies[-1])
                replace_all_batch_norm_modules_(copies[-1])
        params, buffers = stack_module_state(copies)
        self.names, self.buffered, self._base = list(params), list(buffers), [copies[0]]  # a list: no module of its own
        self.stacked = nn.ParameterList(p.detach() for p in params.values())
        for i, value in enumerate(buffers.values()):
            self.register_buffer(f"buffer{i}", value)

    def member(self, i: int) -> nn.Module:
        """The ``i``-th model by itself."""
        model = copy.deepcopy(self._base[0])
        model.load_state_dict({n: v[i].detach().clone() for n, v in self._tensors().items()}, strict=False)
        return model.eval()

    def _tensors(self) -> dict[str, Tensor]:
        buffers = {name: getattr(self, f"buffer{i}") for i, name in enumerate(self.buffered)}
        return dict(zip(self.names, self.stacked, strict=True)) | buffers

    def forward(self, x: Tensor) -> Tensor:
        """The outputs of all of them."""
        base = self._base[0].train(self.training)

        def one(tensors: dict[str, Tensor]) -> Tensor:
            return functional_call(base, tensors, (x,))

        out: Tensor = torch.vmap(one, out_dims=1, randomness="different")(self._tensors())
        return out


@term
def on_masks(step: Step, on: On, masks: Tensor) -> Tensor:
    """The training losses of an ensemble's models, each on the rows of its mask (models, rows), summed."""
    batch = step.batch(on)
    losses = torch.vmap(lambda out: step.task.each(out, batch), in_dims=1, out_dims=1)(step.out(on))
    return (losses * masks[:, batch.rows].T).sum(1)


def trained_on(masks: Tensor, problem: Problem, *, epochs: float, lr: float, batch: int, seed: int) -> Ensemble:
    """An ensemble of the problem's architecture, each model trained by Adam on the rows of ``train`` in its mask.

    ``masks``: (models, rows of train), true where a model has the row.
    """
    rows = problem.source("train")
    ensemble = Ensemble(problem.model, len(masks), mix(seed, "ensemble"))
    apart = Problem(ensemble, task=problem.task, seed=seed, team=problem.team, train=rows)
    weights = masks.to(problem.team.device, torch.float)
    Run(Descent(on_masks("train", weights), opt=adam(lr), epochs=epochs, batch=batch), apart).go()
    return ensemble


def attribution(
    problem: Problem,
    models: int = 100,
    keep: float = 0.5,
    epochs: float = 40,
    lr: float = 3e-3,
    batch: int = 64,
) -> dict[str, Any]:
    """The effect of every training row's presence on the outputs on every training row, estimated by datamodels.

    ``models`` fresh copies of the network are trained at once, each on a random share ``keep`` of the rows, and their
    outputs regressed on the masks, both centred, with the ridge that predicts left-out models best. The better that
    training is like the original's, the better the estimate. Read it by ``effect``; it takes models x rows x outputs
    numbers.
    """
    rows, seed = problem.source("train"), mix(problem.seed, "attribution")
    masks = torch.rand(models, len(rows), generator=generator(seed)) < keep
    ensemble = trained_on(masks, problem, epochs=epochs, lr=lr, batch=batch, seed=seed)
    done = Problem(ensemble, task=problem.task, team=problem.team, train=rows)
    outputs = done.predict("train").cpu()
    return {"ids": list(map(str, rows.ids.tolist())), "masks": masks, "values": solved(masks, outputs.transpose(0, 1))}


def solved(masks: Tensor, outputs: Tensor) -> Tensor:
    """The dual weights of the ridge regression of outputs (models, rows, ...) on masks (models, rows).

    The effect of row i on row x is ``sum_k centred_mask[k, i] weight[k, x]``; the ridge is that of ``RIDGES`` with the
    smallest leave-one-out error.
    """
    centred, values = _centred(masks), outputs.flatten(1).double()
    values = values - values.mean(0)
    gram = centred @ centred.T
    found: list[tuple[float, Tensor]] = []
    for ridge in RIDGES:
        eye = torch.eye(len(gram), dtype=torch.double)
        inverse = torch.linalg.inv(gram + ridge * float(gram.diagonal().mean()) * eye)
        weights = inverse @ values
        error = (weights / inverse.diagonal()[:, None]).square().mean()  # each model left out once, in closed form
        found.append((float(error), weights))
    return min(found, key=lambda each: each[0])[1].float().view(outputs.shape)


def effect(record: dict[str, Any], gone: Sequence[Any], on: Sequence[Any]) -> Tensor:
    """The estimated change of the outputs on rows ``on`` that the presence of the rows ``gone`` makes, by their ids.

    Shape (rows on, ...). Raises BadInput for ids that the record does not know.
    """
    known = {name: place for place, name in enumerate(record["ids"])}
    places = [_places(known, ids) for ids in (gone, on)]
    present = _centred(record["masks"])[:, places[0]].sum(1)
    return torch.einsum("k,k...->...", present.float(), record["values"][:, places[1]])


def _centred(masks: Tensor) -> Tensor:
    return masks.double() - masks.double().mean(0)


def _places(known: dict[str, int], ids: Sequence[Any]) -> list[int]:
    missing = [i for i in map(str, ids) if i not in known]
    if missing:
        raise BadInput(
            f"the record attribution knows no rows with the ids {missing[:5]}; make it from the rows that the model "
            "was trained on"
        )
    return [known[str(i)] for i in ids]

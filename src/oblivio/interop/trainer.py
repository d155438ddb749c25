"""A callback for the Trainer of Transformers: what was learned before is trained along, or held where it is."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import IterableDataset
from transformers import Trainer, TrainerCallback

from oblivio.core.errors import BadInput
from oblivio.core.importance import RULES
from oblivio.core.opt import Opt
from oblivio.core.part import Part
from oblivio.core.problem import Problem
from oblivio.core.run import pack, unpack
from oblivio.core.seeds import mix
from oblivio.core.source import Batch, Ids
from oblivio.core.step import Step
from oblivio.core.surgery import Networks
from oblivio.core.term import Sum, Term
from oblivio.core.where import Selection, Where
from oblivio.how.pull import pull
from oblivio.interop.items import Kept, Raw, items_of
from oblivio.learners._folder import POINTER, Folder
from oblivio.learners.forgetting import Forgotten, Request, carry_out
from oblivio.sources.items import Items
from oblivio.tasks.classification import Classification
from oblivio.terms.anchor import Anchor, Fisher, Labels, penalty

KIND = "memory of a Trainer"
WEIGHTS = "not changed: what they learned of the rows stays"


class Remember(TrainerCallback):
    """Goes on training a model with the Trainer of Transformers, and keeps what it learned in earlier trainings.

    ``memory = Remember(replay=500, folder="memory").attach(trainer)``, then ``trainer.train()`` as before.

    With ``replay`` every optimiser step minimises the Trainer's own loss on the new rows plus that on a device's batch
    of rows of the memory: the gradient of these is there before those of the new rows are added, so that clipping sees
    the sum, whatever the number of accumulated batches. When a training ends the memory takes in its rows: it is a
    uniform sample of all so far.

    With ``ewc`` the weights are held where each training left them, by the Fisher, as in the method ``ewc``: pulled
    after every step (``proximal``; decoupled from the gradient, as AdamW's weight decay is) or by the penalty's
    gradient (``explicit``). Held are the weights of torch's linear, convolutional and norm layers that no other layer
    shares; embeddings are not. The first training is that of the Trainer alone, bit for bit.

    A row is named by the dataset's column ``id`` or its attribute ``ids``, else by training and place: ``"1-17"`` is
    row 17 of the first. Rows whose ids came before are not taken in again.

    Args:
        replay: rows in the memory at most; 0: none.
        ewc: lambda, how strongly weights are held; 0: not. For classifiers with one label a row.
        fisher: which Fisher; see ``oblivio.terms.anchor.Fisher``.
        form: of the hold.
        folder: where the memory is kept; another script with the same settings goes on from there.
        seed: of what is kept and drawn.

    Raises:
        BadInput: neither replay nor ewc, a folder with other settings.
    """

    def __init__(
        self,
        replay: int = 0,
        ewc: float = 0.0,
        *,
        fisher: Labels = "all",
        form: Literal["proximal", "explicit"] = "proximal",
        folder: str | Path | None = None,
        seed: int = 0,
    ) -> None:
        if replay < 0 or ewc < 0 or not (replay or ewc):
            raise BadInput(f"Remember(replay={replay}, ewc={ewc}): give rows to keep, or how strongly to hold weights")
        self.kept = Kept(replay) if replay else None
        self.anchor = Anchor(Fisher(fisher, where=Measured())) if ewc else None
        self.ewc, self.form, self.seed = ewc, form, seed
        self.parts: dict[str, Part] = {n: p for n, p in (("replay", self.kept), ("ewc", self.anchor)) if p is not None}
        self.trainer: Trainer | None = None
        self.turn = 0
        self.learned: list[str] = []
        self._settings = {"replay": replay, "fisher": fisher if ewc else None}
        self._folder = None if folder is None else Folder(Path(folder))
        self._written = 0
        if self._folder is not None and (self._folder.path / POINTER).exists():
            self._load(self._folder)

    def attach(self, trainer: Trainer) -> Remember:
        """Join a Trainer; one after another, where there are several."""
        self.trainer = trainer
        trainer.add_callback(self)
        return self

    # --- called by the Trainer

    def on_train_begin(
        self, args: Any, state: Any, control: Any, *, model: Any, train_dataloader: Any, **_: Any
    ) -> None:
        """What is minimised beside the Trainer's own loss. Raises BadInput for rows that have no places."""
        self._dataset, self._collate = train_dataloader.dataset, train_dataloader.collate_fn
        if isinstance(self._dataset, IterableDataset):
            raise BadInput("a dataset that is streamed has no rows that can be named; give a map-style one")
        problem = self._problem(model)
        chosen: Selection = {n: None for n, w in problem.weights().items() if w.requires_grad}
        self._step = Step(problem, "trainer", chosen, args.per_device_train_batch_size)
        terms: list[Term] = [] if self.kept is None else [Own(self.kept, self._loss)]
        if self.anchor is not None and self.form == "explicit":
            terms.append(penalty(self.anchor, self.ewc))
        self._term = Sum([(1.0, term) for term in terms])
        self._pull = pull(self.anchor, self.ewc) if self.anchor is not None and self.form == "proximal" else None

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The gradient of what is remembered, while there is no other yet."""
        self._step.at_time(state.global_step)
        value = self._term(self._step)
        if value.requires_grad:
            assert self.trainer is not None
            self.trainer.accelerator.backward(value)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, *, optimizer: Any, **_: Any) -> None:
        """The pull. Raises BadInput for an optimiser of several rates."""
        if self._pull is None:
            return
        rates = {group["lr"] for group in optimizer.param_groups}
        if len(rates) > 1:
            raise BadInput(f"ewc: the optimiser has the rates {sorted(rates)}; use one, or form='explicit'")
        self._step.opt = Opt(torch.optim.SGD, rates.pop(), momentum=optimizer.param_groups[0].get("momentum", 0.0))
        with torch.no_grad():
            self._pull.after(self._step)

    def on_train_end(self, args: Any, state: Any, control: Any, *, model: Any, **_: Any) -> None:
        """Rows that are new to the memory come in, and what mattered to them is measured."""
        ids, before = self._ids(), set(self.learned)
        fresh = np.array([i for i, name in enumerate(ids) if name not in before], dtype=np.int64)
        if not len(fresh):
            return
        self.turn += 1
        if self.kept is not None:
            batch = Raw(self._dataset, ids).batch(torch.from_numpy(fresh))
            self.kept.offer(batch, mix(self.seed, self.turn, "offer"))
        if self.anchor is not None:
            self.anchor.consolidate(self._problem(model, new=Items(self._dataset, self._collate)))
        self.learned += ids[fresh].tolist()
        self._write()

    def _loss(self, batch: Batch) -> Tensor:
        """The Trainer's own loss on rows of the memory."""
        trainer = self.trainer
        assert trainer is not None
        collated = self._collate(items_of(batch, self._dataset[0]))
        inputs = {n: v.to(trainer.args.device) if isinstance(v, Tensor) else v for n, v in collated.items()}
        model = trainer.model_wrapped
        model.train()
        with trainer.compute_loss_context_manager():
            loss: Tensor = trainer.compute_loss(model, inputs)
        return loss

    def _problem(self, model: nn.Module, **sources: Any) -> Problem:
        problem = Problem(model, task=Answers(), seed=self.seed, **sources)
        problem.turn = self.turn
        return problem

    def _ids(self) -> Ids:
        assert self.trainer is not None
        dataset = self.trainer.train_dataset  # what it trains on has lost the columns that the model does not take
        given = getattr(dataset, "ids", None)
        if "id" in (getattr(dataset, "column_names", None) or ()):
            given = dataset["id"]
        if given is None:
            given = [f"{self.turn + 1}-{i}" for i in range(len(dataset))]
        return np.array([str(name) for name in given])

    # --- forgetting

    def forget(self, ids: Iterable[Any]) -> Forgotten:
        """Take rows out of the memory, in its folder too. The receipt says what still comes from them.

        Raises:
            BadInput: ids that were never learned; nothing was changed.
        """
        request = Request.of([str(name) for name in ids])
        request.known(set(self.learned))
        receipt = carry_out(request, self._problem(nn.Identity()), self.parts, None, None, {})
        self.learned = [name for name in self.learned if name not in set(request.ids)]
        self._write()
        return dataclasses.replace(receipt, weights=WEIGHTS)

    # --- the folder

    def _write(self) -> None:
        if self._folder is None or (self.trainer is not None and not self.trainer.is_world_process_zero()):
            return
        self._written += 1
        parts = {name: part.save() for name, part in self.parts.items()}
        tensors: dict[str, Tensor] = {}
        state = pack({"turn": self.turn, "learned": self.learned, "parts": parts}, "", tensors)
        name = f"memory-{self._written}"
        self._folder.put(name, tensors)
        self._folder.switch(KIND, self._settings, {"written": self._written, "state": state}, [name])
        self._folder.clean()

    def _load(self, folder: Folder) -> None:
        facts = folder.read(KIND, self._settings)
        self._written = facts["written"]
        state = unpack(facts["state"], folder.get(f"memory-{self._written}"))
        self.turn, self.learned = state["turn"], state["learned"]
        for key, part in self.parts.items():
            part.load(state["parts"][key])


class Own(Term):
    """The loss of whoever trains, on a source."""

    def __init__(self, on: Kept, loss: Callable[[Batch], Tensor]) -> None:
        self.on, self._loss = on, loss

    def __call__(self, step: Step) -> Tensor:
        return self._loss(step.drawn(self.on))


class Answers(Classification):
    """Logits of a model of Transformers, which takes a collated batch by name."""

    def forward(self, nets: Networks, net: str, batch: Batch) -> Tensor:
        out = nets[net](**{name: batch[name] for name in batch.source.columns if name != "labels"})
        logits: Tensor = out["logits"]
        if logits.dim() != 2 or batch["labels"].shape != logits.shape[:1] or logits.shape[1] < 2:
            raise BadInput(
                f"ewc measures classifiers with one label a row; here logits have the shape {tuple(logits.shape)} and "
                f"labels {tuple(batch['labels'].shape)}: use replay"
            )
        return logits

    def each(self, out: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(out, batch["labels"], reduction="none")


class Measured(Where):
    """Weights that move, of layers whose squared gradients per example are known without a pass for every row."""

    def select(self, problem: Problem) -> Selection:
        modules = dict(problem.nets.named_modules())
        owners = Counter(id(w) for module in modules.values() for w in module.parameters(recurse=False))
        return {
            f"{name}.{key}": None
            for name, module in modules.items()
            for key, weight in module.named_parameters(recurse=False)
            if type(module) in RULES and weight.requires_grad and owners[id(weight)] == 1
        }

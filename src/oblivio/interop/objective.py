"""A callback for the Trainer of Transformers: any term of an objective, beside the Trainer's own loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import Trainer, TrainerCallback

from oblivio.core.errors import BadInput
from oblivio.core.files import read_tensors, write_tensors
from oblivio.core.part import overrides, walk
from oblivio.core.problem import Problem
from oblivio.core.source import Source
from oblivio.core.step import Step
from oblivio.core.team import Team
from oblivio.core.term import Term
from oblivio.core.where import Selection
from oblivio.interop.trainer import Answers
from oblivio.sources.items import Items
from oblivio.sources.tokens import IGNORED, Tokens
from oblivio.tasks.language import CausalLM

START = "objective.safetensors"  # in the Trainer's folder: what the term reads of the model it started from


class Objective(TrainerCallback):
    """Adds a term to what a Trainer of Transformers minimises: ``Objective(term, forget=rows).attach(trainer)``.

    Every optimiser step gets the gradient of the Trainer's own loss plus that of the term, whatever the number of
    accumulated batches: the term's is there before, so that clipping sees the sum. What it reads of the model as it
    was at the start, such as the scores of ``terms.npo``, is computed once, before the first step, and kept in the
    Trainer's folder for a training that is resumed; no second model is held, unless a term needs logits of the start.

    Args:
        term: such as ``terms.npo("forget", 0.1)``, or a sum of several.
        task: of the model: ``causal_lm`` or ``classification``.
        batch: rows of each source a step; default: the Trainer's batch of one device.
        seed: of the order of rows.
        sources: what the term reads, by name: a Source, or a map-style dataset of such items as the Trainer gets: with
            ``input_ids``, and ``labels`` that are -100 before what counts (default: all tokens count).

    Raises:
        BadInput: a term that reads a source which is not given.

    Example:
        ``Objective(terms.npo("forget", 0.1), forget=dataset).attach(trainer)``
    """

    def __init__(
        self,
        term: Term,
        *,
        task: Literal["causal_lm", "classification"] = "causal_lm",
        batch: int | None = None,
        seed: int = 0,
        **sources: Any,
    ) -> None:
        missing = sorted({on for on in term.reads if isinstance(on, str)} - set(sources))
        if missing:
            raise BadInput(f"{term!r} reads {', '.join(missing)}; give {missing[0]}= to Objective")
        self.term, self.task, self.batch, self.seed, self.sources = term, task, batch, seed, sources
        self.trainer: Trainer | None = None

    def attach(self, trainer: Trainer) -> Objective:
        """Join a Trainer."""
        self.trainer = trainer
        trainer.add_callback(self)
        return self

    # --- called by the Trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, *, model: Any, **_: Any) -> None:
        """What the term reads of the start. Raises BadInput for weights that the Trainer shards."""
        if getattr(self.trainer, "is_deepspeed_enabled", False) or getattr(self.trainer, "is_fsdp_enabled", False):
            raise BadInput("Objective needs whole weights; where they are sharded use Run and gather(sharding='full')")
        problem = self._problem(model, args)
        chosen: Selection = {n: None for n, w in problem.weights().items() if w.requires_grad}
        self._parts = dict(walk(self.term, "objective"))
        for path, part in self._parts.items():
            if isinstance(part, Source) and not part.name:
                part.name = path
            part.prepare(problem)
        self._start(problem, state.global_step > 0, Path(args.output_dir) / START)
        problem.move(chosen)
        problem.moved = True
        taps = tuple(dict.fromkeys(problem.layer(tap) for part in self._parts.values() for tap in part.taps))
        self._step = Step(problem, "objective", chosen, self.batch or args.per_device_train_batch_size, taps=taps)
        self._step.end = state.max_steps

    def on_step_begin(self, args: Any, state: Any, control: Any, *, model: nn.Module, **_: Any) -> None:
        """The gradient of the term, while there is none yet of the Trainer's own batches."""
        assert self.trainer is not None
        step, scaler = self._step, self.trainer.accelerator.scaler
        step.at_time(state.global_step)
        model.train()
        self._call("before")
        there = {name: weight.grad for name, weight in step.weights.items()}
        for weight in step.weights.values():
            weight.grad = None
        scale = 1.0 if scaler is None else scaler.get_scale()
        grads = {name: g if scale == 1 else g * scale for name, g in self.term.grad(step).items()}
        for name, weight in step.weights.items():
            before, own = there[name], grads.get(name)
            weight.grad = before if own is None else own if before is None else before + own

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """What the term's parts do after an update."""
        with torch.no_grad():
            self._call("after")

    def _call(self, hook: str) -> None:
        for part in self._parts.values():
            if overrides(part, hook):
                getattr(part, hook)(self._step)

    # --- what there is

    def _problem(self, model: nn.Module, args: Any) -> Problem:
        assert self.trainer is not None
        team = Team(device=args.device, precision="bf16" if args.bf16 else "fp16" if args.fp16 else "no")
        collate, text = self.trainer.data_collator, self.task == "causal_lm"
        rows: dict[str, Any] = {
            name: given if isinstance(given, Source) else tokens(given, name) if text else Items(given, collate)
            for name, given in self.sources.items()
        }
        return Problem(model, task=CausalLM() if text else Answers(), seed=self.seed, team=team, **rows)

    def _start(self, problem: Problem, resumed: bool, file: Path) -> None:
        """Scores and weights of the start: made now, or read where a training goes on."""
        assert self.trainer is not None
        parts = self._parts.values()
        kept = any("start" in part.keeps for part in parts)
        taken = [(on, take) for part in parts if isinstance(part, Term) for on in part.reads for take in part.frozen]
        if not resumed:
            if kept:
                problem.keep("start")
            for on, take in taken:
                problem.freeze(on, take)
            if problem.frozen and self.trainer.is_world_process_zero():
                file.parent.mkdir(parents=True, exist_ok=True)
                write_tensors(file, problem.frozen)
            return
        known = {n: t.to(problem.team.device) for n, t in read_tensors(file).items()} if file.exists() else {}
        if kept or any(problem.frozen_key(on, take, "start") not in known for on, take in taken):
            raise BadInput(f"{self.term!r} reads the model this training started from, which is gone: train in one go")
        problem.frozen = known


def tokens(dataset: Any, name: str = "the dataset") -> Tokens:
    """Items with ``input_ids`` and ``labels`` as rows of tokens; what follows the last label that counts is padding.

    Raises BadInput for labels of which those that count do not stand together, or are other tokens.
    """
    rows, prompts = [], []
    for i in range(len(dataset)):
        ids = torch.as_tensor(dataset[i]["input_ids"]).tolist()
        labels = torch.as_tensor(dataset[i].get("labels", ids)).tolist()
        counts = [j for j, label in enumerate(labels) if label != IGNORED]
        if not counts or labels[counts[0] : counts[-1] + 1] != ids[counts[0] : counts[-1] + 1]:
            raise BadInput(f"{name}: labels of item {i} are not -100 up to an answer, and its tokens from there on")
        rows.append(ids[: counts[-1] + 1])
        prompts.append(counts[0])
    return Tokens(rows, prompts)

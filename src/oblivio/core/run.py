"""Run: a plan at work on a problem, with checkpoints from which a killed run goes on to the same bits."""

from __future__ import annotations

import copy
import platform
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from oblivio.core import surgery
from oblivio.core.descent import Descent, finite
from oblivio.core.errors import BadInput, Stopped
from oblivio.core.files import read_json, read_tensors, sync_folder, write_json, write_tensors
from oblivio.core.grads import like
from oblivio.core.part import Part, walk
from oblivio.core.plan import Edit, Plan, Stage
from oblivio.core.problem import Problem
from oblivio.core.seeds import mix
from oblivio.core.shards import gathered
from oblivio.core.step import Step
from oblivio.core.term import Term

Watch = Callable[["Run", Stage, Step], None]
NAN_EVERY = 50  # steps between two looks at the loss: each look waits for the device


class Run:
    """``Run(plan, problem, folder).go()`` changes ``problem`` in place; ``.resume()`` goes on after a kill.

    Args:
        plan: what to do; a copy is used, so that the plan given stays a value.
        folder: where checkpoints lie; None keeps none.
        every: seconds between checkpoints. When they are taken cannot change the result.
        watch: called after every step with (run, stage, step); may raise Stopped.
    """

    def __init__(
        self,
        plan: Stage,
        problem: Problem,
        folder: Path | None = None,
        every: float = 30.0,
        watch: Sequence[Watch] = (),
        fresh: bool = True,
    ) -> None:
        plan = copy.deepcopy(plan) if fresh else plan
        self.plan = plan if isinstance(plan, Plan) else Plan([plan])
        self.problem, self.folder, self.every, self.watch = problem, folder, every, tuple(watch)
        self.steps, self.seconds = 0, 0.0
        self._since = time.monotonic()
        self.done = False  # a run that is resumed when it was done has nothing left to do
        self._resumed = False
        self.parts = self._name()
        self.fingerprint = {} if folder is None else fingerprint(self.plan, problem)

    def _name(self) -> dict[str, Part]:
        """Every Part by its place; each belongs to the stage under which it is first found."""
        parts = dict(walk(self.plan, "plan"))
        own: dict[str, list[Part]] = {}
        for path, part in parts.items():
            if isinstance(part, Stage):
                part.place, own[path] = path, []
            else:
                own[max((p for p in own if path.startswith(p + "/")), key=len)].append(part)
                if not getattr(part, "name", True):
                    part.name = path  # type: ignore[attr-defined]
        for path, mine in own.items():
            parts[path].own = tuple(mine)  # type: ignore[attr-defined]
        return parts

    def go(self) -> Problem:
        """Do the plan, or the rest of it. Returns the problem, whose nets and journal are the result.

        Raises Stopped, with the problem in an unusable state, when a watch or the check for NaN ends it.
        """
        if self.done:
            return self.problem
        state = torch.get_rng_state()
        self._since = self._saved = time.monotonic()
        self.problem._moving = set()
        try:
            if not self._resumed:
                self._check()
                self._start()
            self.plan.open(self.problem, self)
            self.plan.visit(self.problem, self)
            self.plan.close(self.problem)
            self.seconds += time.monotonic() - self._since
            self.done = True
        finally:
            torch.set_rng_state(state)
            self.problem._moving = None
        return self.problem

    def _check(self) -> None:
        """Sources exist and chunks suit the terms, before any work."""
        makes = False
        for part in self.parts.values():
            makes = makes or (isinstance(part, Edit) and part.makes)
            if isinstance(part, Descent):
                for on in part.loss.reads if not makes else ():
                    self.problem.source(on)
                if part.chunk is not None and part.loss.whole:
                    raise BadInput(f"{part.loss!r} relates rows to each other; leave out chunk={part.chunk}")
            for layer in part.taps:
                self.problem.nets.get_submodule(self.problem.layer(layer))

    def _start(self) -> None:
        """Snapshots and cached outputs of the start, while the weights are still there; those of another run go."""
        self.problem.moved, self.problem.frozen = False, {}
        self.problem.snapshots.pop("start", None)
        for part in self.parts.values():
            if "start" in part.keeps and "start" not in self.problem.snapshots:
                self.problem.keep("start")
        for part in self.parts.values():
            if isinstance(part, Term) and part.frozen:
                for on in part.reads:
                    for take in part.frozen:
                        self.problem.freeze(on, take)

    # --- called by stages

    def tick(self, stage: Stage, step: Step) -> None:
        """After each step of a descent: guards, watchers, a checkpoint if due."""
        self.steps += 1
        self.problem.spend("steps", 1)
        if self.steps % NAN_EVERY == 0:
            self._sound(step)
        for watch in self.watch:
            watch(self, stage, step)
        if self.folder is not None and time.monotonic() - self._saved > self.every:
            self.checkpoint()

    def _sound(self, step: Step) -> None:
        if step.loss is not None and not bool(torch.isfinite(step.loss)):
            raise Stopped(
                f"the loss is {float(step.loss)} at step {step.t} of {step.place}; lower the learning rate. "
                "The original model is untouched"
            )

    def boundary(self) -> None:
        """After each stage: no weight may be NaN; a checkpoint."""
        broken = finite(dict(self.problem.nets.named_parameters()))
        if broken:
            raise Stopped(
                f"NaN or infinite weights in {', '.join(broken[:3])}; lower the learning rate. The original "
                "model is untouched"
            )
        if self.folder is not None:
            self.checkpoint()

    # --- checkpoints

    def checkpoint(self) -> None:
        """Write all state into a new folder, then switch one pointer."""
        assert self.folder is not None
        now = time.monotonic()
        self.seconds, self._since = self.seconds + now - self._since, now
        tensors: dict[str, Tensor] = {}
        state = pack(self._state(), "", tensors)
        first = self.problem.team.rank == 0
        tensors = gathered(tensors, keep=first)
        if first:
            self._write(self.folder, state, tensors)
        self.problem.team.wait()
        self._saved = time.monotonic()

    def _write(self, folder: Path, state: Any, tensors: dict[str, Tensor]) -> None:
        pointer = folder / "checkpoint.json"
        old = read_json(pointer)["folder"] if pointer.exists() else None
        new = folder / f"checkpoint-{0 if old is None else int(old.rpartition('-')[2]) + 1}"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        write_tensors(new / "tensors.safetensors", tensors)
        write_json(new / "state.json", state)
        sync_folder(folder)
        write_json(pointer, {"folder": new.name, "fingerprint": self.fingerprint})
        if old is not None:
            shutil.rmtree(folder / old, ignore_errors=True)

    def _state(self) -> dict[str, Any]:
        p = self.problem
        nets = dict(p.nets.named_parameters()) | dict(p.nets.named_buffers())
        return {
            "nets": nets,
            "parts": {path: part.save() for path, part in self.parts.items()},
            "snapshots": p.snapshots,
            "frozen": p.frozen,
            "made": p.made,
            "records": p.records,
            "journal": p.journal,
            "seed": p.seed,
            "turn": p.turn,
            "moved": p.moved,
            "passes": p.passes,
            "work": p.work,
            "done": self.done,
            "steps": self.steps,
            "seconds": self.seconds,
        }

    def resume(self) -> Run:
        """Take the last checkpoint of the folder, if there is one. Raises BadInput when it is of another run."""
        assert self.folder is not None
        if not (self.folder / "checkpoint.json").exists():
            return self
        pointer = read_json(self.folder / "checkpoint.json")
        for key, mine in self.fingerprint.items():
            if pointer["fingerprint"].get(key) != mine:
                raise BadInput(
                    f"{self.folder} was run with {key} = {pointer['fingerprint'].get(key)}; now it is {mine}"
                )
        last = self.folder / pointer["folder"]
        # cloned, because bits can depend on the alignment of memory, and only memory from torch is aligned
        tensors = {k: v.clone() for k, v in read_tensors(last / "tensors.safetensors").items()}
        self._take(unpack(read_json(last / "state.json"), tensors))
        self._resumed = True
        return self

    def _take(self, state: dict[str, Any]) -> None:
        p = self.problem
        surgery.replay(p.nets, state["journal"][len(p.journal) :])  # what came before the run is there already
        with torch.no_grad():
            for name, value in p.nets.tensors().items():
                value.copy_(like(state["nets"][name], value))
        for name, columns in state["made"].items():
            p.make(name, **columns)
        for key in ("snapshots", "frozen", "records", "journal", "seed", "turn", "moved", "passes", "work"):
            setattr(p, key, state[key])
        now = p.nets.state_dict()  # another memory layout would compute other last bits
        p.snapshots = {s: {n: like(v, now.get(n, v)) for n, v in kept.items()} for s, kept in p.snapshots.items()}
        self.done, self.steps, self.seconds = state["done"], state["steps"], state["seconds"]
        for path, part in self.parts.items():
            part.load(state["parts"][path])


def fingerprint(plan: Stage, problem: Problem) -> dict[str, Any]:
    """What must be equal for a resumed run to reach the same bits."""
    ids = {name: mix("\n".join(map(str, source.ids.tolist()))) for name, source in problem.sources.items()}
    shapes = [[n, list(w.shape)] for n, w in problem.nets.named_parameters()] if not problem.journal else []
    return {"plan": repr(plan), "sources": ids, "weights": mix(str(shapes)), "seed": problem.seed, **environment()}


def environment() -> dict[str, Any]:
    """Machine type, thread count and library versions: equal ones give equal bits."""
    return {
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "versions": {"torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version()},
    }


def pack(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """Nested state as JSON, with its tensors put into ``tensors`` under their paths."""
    if isinstance(value, Tensor):
        path = f"{path}#{len(tensors)}" if path in tensors else path  # names may hold a slash themselves
        tensors[path] = value
        return {"tensor": path}
    if isinstance(value, dict):
        if not all(isinstance(k, str) for k in value):
            raise TypeError(f"state at {path} has the keys {list(value)[:3]}; only strings can be saved")
        return {"dict": [[k, pack(v, f"{path}/{k}", tensors)] for k, v in value.items()]}  # order changes last bits
    if isinstance(value, (list, tuple)):
        return {"list": [pack(v, f"{path}/{i}", tensors) for i, v in enumerate(value)]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return {"value": value}
    raise TypeError(f"state at {path} is a {type(value).__name__}; tensors, numbers and strings can be saved")


def unpack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The inverse of ``pack``; tuples come back as lists."""
    ((kind, inner),) = value.items()
    if kind == "tensor":
        return tensors[inner].clone()  # aligned as torch aligns: bits can depend on it
    if kind == "dict":
        return {k: unpack(v, tensors) for k, v in inner}
    return [unpack(v, tensors) for v in inner] if kind == "list" else inner

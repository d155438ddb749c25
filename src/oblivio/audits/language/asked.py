"""Asked: responses and writings that are kept, so that each model passes once over each text."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from oblivio.audits.language.generation import generate
from oblivio.audits.language.responses import Responses, respond
from oblivio.core.problem import PASS, Problem
from oblivio.core.source import Source
from oblivio.core.task import Task

T = TypeVar("T")
PLAIN = (str, bytes, bool, int, float, complex, type(None), torch.dtype, torch.device)


class Asked:
    """A memory of passes, by all that determines them: the model, the texts and the settings, by what they hold.

    ``made`` counts how often each was worked out, by (what, key); once is what is wanted.
    """

    def __init__(self) -> None:
        self.made: Counter[tuple[str, str]] = Counter()
        self._kept: dict[tuple[str, str], tuple[Any, dict[int, Any]]] = {}

    def respond(self, model: nn.Module | Problem, source: Source | str, *, eos: int | Collection[int],
                task: Task | None = None) -> Responses:  # fmt: skip
        """What ``responses.respond`` gives."""
        if isinstance(model, Problem):
            source = model.source(source)
            task = task or model.task
        assert isinstance(source, Source), "without a problem a source is not given by its name"
        net = model.model if isinstance(model, Problem) else model
        return self._once("respond", net, lambda: respond(model, source, eos=eos, task=task), _rows(source), eos,
                          type(task), task and vars(task))  # fmt: skip

    def generate(self, model: nn.Module, prompts: Sequence[Sequence[int]], **settings: Any) -> list[list[int]]:
        """What ``generation.generate`` gives."""
        made = self._once("generate", model, lambda: generate(model, prompts, **settings), prompts, settings)
        return [list(row) for row in made]

    def _once(self, what: str, model: nn.Module, make: Callable[[], T], *determine: Any) -> T:
        held: dict[int, Any] = {}
        key = what, _digest([model, *determine], held)
        if key not in self._kept:
            self.made[key] += 1
            self._kept[key] = make(), held  # what is known by its place is held, so that nothing else takes it
        found: T = self._kept[key][0]
        return found


def _rows(source: Source) -> Any:
    """All that a source shows, and the ids of its rows."""
    columns = [name for name in source.columns if name != "id"]
    return [[batch[name] for name in columns] for batch in source.batches(PASS)], list(source.ids)


def _digest(value: Any, held: dict[int, Any]) -> str:
    """A checksum of a nested value: tensors, modules and objects by what they hold, functions by their place.

    ``held`` gets every object on the way, which also ends circles.
    """
    found = hashlib.blake2b(digest_size=16)
    _feed(found, value, held)
    return found.hexdigest()


def _feed(found: Any, value: Any, held: dict[int, Any]) -> None:
    if isinstance(value, Tensor):
        bits = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        found.update(f"tensor {value.dtype} {tuple(value.shape)} ".encode() + bits.numpy().tobytes())
    elif isinstance(value, Mapping):
        _feed(found, [type(value), *(each for item in value.items() for each in item)], held)
    elif isinstance(value, (list, tuple)):
        found.update(f"{type(value).__name__} {len(value)} ".encode())
        for each in value:
            _feed(found, each, held)
    elif isinstance(value, (set, frozenset)):
        _feed(found, [type(value), *sorted(_digest(each, held) for each in value)], held)
    elif isinstance(value, (np.ndarray, np.generic)):
        _feed(found, [type(value), str(value.dtype), value.tolist()], held)
    elif isinstance(value, type):
        found.update(f"type {value.__module__}.{value.__qualname__} ".encode())
    elif isinstance(value, PLAIN):
        found.update(f"{type(value).__name__} {value!r} ".encode())
    else:
        _feed_object(found, value, held)


def _feed_object(found: Any, value: Any, held: dict[int, Any]) -> None:
    if id(value) in held:
        found.update(f"object {list(held).index(id(value))} ".encode())
        return
    held[id(value)] = value
    if isinstance(value, nn.Module):
        settings = {key: each for key, each in vars(value).items() if key != "training"}  # put aside in a pass
        _feed(found, [type(value), settings], held)
    elif hasattr(value, "to_dict"):  # configurations of Transformers and PEFT, without what they look up later
        _feed(found, [type(value), value.to_dict()], held)
    elif hasattr(value, "__dict__") and not callable(value):
        _feed(found, [type(value), vars(value)], held)
    else:
        found.update(f"{type(value).__name__} at {id(value)} ".encode())

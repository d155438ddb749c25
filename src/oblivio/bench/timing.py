"""Timing by turns: whatever slows the machine for a while slows all candidates alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch

REPEATS = 5  # ratios of which the median is taken
BLOCKS = 20  # turns of every candidate in one repeat; the fastest counts, as nothing makes code faster by chance

Times = dict[str, list[float]]


def clock() -> float:
    """Seconds on the wall; where torch has one thread, seconds of processor, which leave out other programs' turns."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def timed(work: Callable[[], object], now: Callable[[], float] = clock) -> float:
    """Seconds that ``work`` takes, by the clock ``now``."""
    start = now()
    work()
    return now() - start


def by_turns(
    candidates: Mapping[str, Callable[[], object]],
    repeats: int = REPEATS,
    blocks: int = BLOCKS,
    now: Callable[[], float] = clock,
) -> Times:
    """Seconds of each candidate, one value a repeat: the fastest of ``blocks`` turns. Each has one turn to warm up."""
    times: Times = {name: [timed(work, now)] for name, work in candidates.items()}
    for turn in range(repeats * blocks):
        for name in rotated(list(candidates), turn):
            times[name].append(timed(candidates[name], now))
    return {name: fastest(values[1:], blocks) for name, values in times.items()}


def rotated(names: list[str], turn: int) -> list[str]:
    """Another one begins at every turn, so that none always comes after the same one."""
    first = turn % len(names)
    return names[first:] + names[:first]


def fastest(values: list[float], blocks: int = BLOCKS) -> list[float]:
    """The least of every ``blocks`` values in a row."""
    return [min(values[i : i + blocks]) for i in range(0, len(values), blocks)]


def ratios(over: list[float], under: list[float]) -> list[float]:
    """``over / under``, repeat by repeat."""
    return [a / b for a, b in zip(over, under, strict=True)]

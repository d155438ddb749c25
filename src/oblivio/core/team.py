"""Team: the processes that share one run. Alone by default; under torchrun, Accelerate says who is who."""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from oblivio.core.errors import BadInput
from oblivio.core.shards import is_sharded


@dataclass(frozen=True)
class Team:
    """``rank`` of ``size`` processes on ``device``; ``precision``: no, bf16 or fp16 autocast in forwards.

    ``sharded``: each holds a shard of every weight, its gradient and its moments, and no process all of a network.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")
    precision: str = "no"
    sharded: bool = False

    def place(self, nets: nn.ModuleDict) -> None:
        """Put networks on the device, whole or this process's shard of them."""
        if self.sharded:
            importlib.import_module("oblivio.modules.sharded").shard(nets, self.device, self.size)  # a plug
        nets.to(self.device)

    def total(self, tensors: Iterable[Tensor]) -> None:
        """Add up tensors over all processes, in place; what is sharded has been."""
        if self.size > 1:
            for tensor in tensors:
                if not is_sharded(tensor):
                    torch.distributed.all_reduce(tensor)

    def agree(self, net: nn.Module) -> None:
        """Give every process the buffers of the first, as batch-norm statistics differ by share."""
        if self.size > 1:
            for buffer in net.buffers():
                torch.distributed.broadcast(buffer, 0)

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            torch.distributed.barrier()

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Mixed precision of forwards, or nothing."""
        if self.precision == "no":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, {"bf16": torch.bfloat16, "fp16": torch.float16}[self.precision])


ALONE = Team()


def gather(
    processes: int | None = None, precision: str = "no", device: str | None = None, sharding: str = "no"
) -> Team:
    """The team this process belongs to. ``processes``: how many were asked for; fewer is an error.

    ``sharding``: with ``no`` each process holds all weights, with ``full`` a shard of each (FSDP).

    Raises BadInput when the launcher started another number (``accelerate launch --cpu`` is known to start one), or
    one process that has nobody to share weights with.
    """
    if sharding not in ("no", "full"):
        raise BadInput(f"sharding={sharding!r} is unknown; there are 'no' and 'full'")
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if processes is not None and processes != world:
        raise BadInput(
            f"{processes} processes were asked for and {world} started; run "
            f"torchrun --nproc-per-node {processes} -m oblivio ..."
        )
    if world == 1 and sharding == "full":
        raise BadInput("sharding='full' spreads weights over processes, and 1 started; run torchrun --nproc-per-node 2")
    if world == 1 and precision == "no" and device in (None, "cpu") and not (device is None and _accelerator()):
        return ALONE
    from accelerate import Accelerator

    atexit.register(_leave)
    accelerator = Accelerator(cpu=device == "cpu" or not _accelerator(), mixed_precision=precision)
    if accelerator.num_processes != world:
        raise BadInput(f"{world} processes were started and {accelerator.num_processes} found each other")
    return Team(accelerator.process_index, accelerator.num_processes, accelerator.device, precision, sharding == "full")


def _leave() -> None:
    """Without this a process of a team can abort at its end, when its work is done."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _accelerator() -> bool:
    return torch.accelerator.is_available()

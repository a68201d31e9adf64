"""The processes of one training, and what they tell each other."""

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from nrcg.errors import Stopped
from nrcg.runtime.device import forbid_tf32
from nrcg.runtime.memory import keep_freed_memory
from nrcg.runtime.preemption import Stop

if TYPE_CHECKING:  # a single process needs no accelerate
    from accelerate import Accelerator

LONGEST_WAIT = timedelta(minutes=10)  # for the others' part of a step, or the next pass of a preview's network

Batch = TypeVar("Batch", bound=Sequence[Any])


class Team:
    """The processes of a training: each has a share of every batch, then all take the step of the whole batch.

    rank   of this process, from 0; the first alone writes files and speaks
    size   how many there are; one without an accelerator, which has nobody to tell anything
    """

    def __init__(self, accelerator: "Accelerator | None" = None) -> None:
        self.accelerator = accelerator
        self.rank, self.size = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def share(self, batch: Batch) -> Batch:
        """This process's part of a batch, whose length is a multiple of `size`."""
        n = len(batch) // self.size
        return batch[self.rank * n : (self.rank + 1) * n]

    def average(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace each of the float tensors by its mean over the processes; one message carries them all."""
        if self.accelerator is None:
            return
        means = self.accelerator.reduce(torch.cat([tensor.flatten() for tensor in tensors]), "mean")
        for tensor, mean in zip(tensors, means.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))

    def any(self, claim: bool) -> bool:
        """Whether `claim` holds in at least one process."""
        if self.accelerator is None:
            return claim
        return self.accelerator.reduce(torch.tensor(float(claim), device=self.accelerator.device)).item() > 0

    def leave(self) -> None:
        """Wait until all have come here, then part: no process may end while another still sends to it."""
        if self.accelerator:
            self.accelerator.wait_for_everyone()
            self.accelerator.end_training()


class CommonStop(Stop):
    """Stops all processes of a team at the same look, as soon as the `own` stop of one of them is asked."""

    def __init__(self, team: Team, own: Stop) -> None:
        super().__init__()
        self.team, self.own = team, own

    def check(self) -> None:
        """Raise Stopped in all processes or in none; all must look equally often."""
        if self.team.any(bool(self.own.reason)):
            raise Stopped(self.own.reason)


def join_team(rank: int, size: int, device: torch.device, *, port: int, threads: int) -> Team:
    """Become process `rank` of `size` on this machine, who meet at `port`, and talk by NCCL on CUDA, else by Gloo."""
    index = rank if device.type == "cpu" else device.index  # accelerate takes it as that of the CUDA device
    place = {"RANK": rank, "LOCAL_RANK": index, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": threads}
    os.environ.update({name: str(value) for name, value in place.items()})
    from accelerate import Accelerator
    from accelerate.utils import InitProcessGroupKwargs

    patience = InitProcessGroupKwargs(timeout=LONGEST_WAIT)
    accelerator = Accelerator(cpu=device.type == "cpu", kwargs_handlers=[patience])
    torch.set_num_threads(threads)
    keep_freed_memory()
    forbid_tf32()
    return Team(accelerator)

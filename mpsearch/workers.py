"""Several processes that share one profile, through torch.distributed (torchrun)."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Workers:
    """This process's number and how many there are; one process alone is (0, 1)."""

    rank: int = 0
    size: int = 1

    def owns(self, piece: int) -> bool:
        """Whether this process computes piece number `piece`; every piece has one owner."""
        return piece % self.size == self.rank

    def share(self, pieces: Mapping[str, Any]) -> dict[str, Any]:
        """The pieces of all processes, in every process. All of them must call this together."""
        if self.size == 1:
            return dict(pieces)
        import torch.distributed as dist

        gathered: list[dict[str, Any] | None] = [None] * self.size
        dist.all_gather_object(gathered, dict(pieces))
        return {key: value for part in gathered if part for key, value in part.items()}

    def wait(self) -> None:
        """Go on when all processes have come here."""
        if self.size > 1:
            import torch.distributed as dist

            dist.barrier()


def join(device: str) -> Workers:
    """Join the other processes that torchrun started; one process alone without torchrun.

    gloo on a CPU, NCCL on GPUs. torchrun says rank and size in the environment.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ:
        return Workers()
    import torch.distributed as dist

    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return Workers(dist.get_rank(), dist.get_world_size())


def leave(workers: Workers) -> None:
    """Leave the group that `join` joined."""
    if workers.size > 1:
        import torch.distributed as dist

        dist.destroy_process_group()

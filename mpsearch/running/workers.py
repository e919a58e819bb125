"""Where a process computes, and with whom: the device, and the processes that torchrun started."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from mpsearch.errors import InputError

if TYPE_CHECKING:
    import torch


Value = TypeVar("Value")


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

    def same(self, value: Value) -> Value:
        """What the first process has, in every process. All of them must call this together."""
        if self.size == 1:
            return value
        import torch.distributed as dist

        values = [value]
        dist.broadcast_object_list(values)
        return values[0]

    def wait(self) -> None:
        """Go on when all processes have come here."""
        if self.size > 1:
            import torch.distributed as dist

            dist.barrier()


def find_device(name: str) -> "torch.device":
    """`cpu`, `cuda`, `cuda:1`, … as a device; `auto` is the GPU when there is one.

    Under torchrun `cuda` is the GPU of the process's own number. On a GPU convolutions are computed
    in float32 from now on: torch's own TF32 drops as much as quantizing to 8 bits does. Raises
    InputError for a device that is not there.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        number = torch.zeros(1, device=name)
        float(number)  # the device "meta" has none
    except (RuntimeError, AssertionError) as error:  # torch says AssertionError without CUDA
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"no device {name!r} here ({reason}); expected cpu, cuda or auto"
        ) from error
    if number.device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False
    return number.device


def is_first() -> bool:
    """Whether this is the process that writes and speaks: the first one, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def join() -> Workers:
    """Join the other processes that torchrun started; one process alone without torchrun.

    Through gloo, also where they compute on GPUs: what they share is plain data. torchrun says rank
    and size in the environment.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ:
        return Workers()
    import torch.distributed as dist

    if not dist.is_initialized():
        dist.init_process_group("gloo")
    return Workers(dist.get_rank(), dist.get_world_size())


def leave(workers: Workers) -> None:
    """Leave the group that `join` joined."""
    if workers.size > 1:
        import torch.distributed as dist

        dist.destroy_process_group()

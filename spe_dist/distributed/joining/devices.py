"""What a rank computes on: a GPU of its own where there are GPUs, else the CPU."""

from __future__ import annotations

import os
from typing import Any

import torch

from spe_dist.distributed.launch import LaunchEnvironment
from spe_dist.errors import LaunchError


def choose_device(environment: LaunchEnvironment) -> torch.device:
    """The GPU of this local rank where there are GPUs, else the CPU. Raises LaunchError when ranks outnumber GPUs."""
    if not torch.cuda.is_available() or os.environ.get("DS_ACCELERATOR") == "cpu":
        return torch.device("cpu")
    visible = torch.cuda.device_count()
    if visible == 1 and environment.local_ranks > 1 and environment.launcher == "slurm":
        return torch.device("cuda", 0)  # Slurm's --gpus-per-task shows each task its own GPU as number 0
    if environment.local_rank >= visible:
        raise LaunchError(
            f"local rank {environment.local_rank} has no GPU: this node shows {visible}; start at most {visible} ranks "
            "a node, or set DS_ACCELERATOR=cpu to train on the CPU"
        )
    return torch.device("cuda", environment.local_rank)


def refuse_shared_gpu(environment: LaunchEnvironment, device: torch.device, store: Any) -> None:
    """Raise LaunchError where another rank has the same GPU, which NCCL would refuse in words of its own.

    It happens where Slurm shows a GPU to several tasks, and with MIG, of whose instances a process sees one alone.
    `store`: where the ranks have met.
    """
    uuid = torch.cuda.get_device_properties(device).uuid
    if store.add(f"spe/gpu/{uuid}", 1) > 1:
        raise LaunchError(
            f"rank {environment.rank} has the same GPU as another rank (local rank {environment.local_rank} on "
            f"{environment.node}, {uuid}): start no more ranks a node than it shows GPUs, and one rank alone on an "
            "instance of MIG"
        )

"""Where a rank stands among the others: its place, its device, the process group it is in."""

import os
import platform
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one rank stands."""

    rank: int
    world_size: int
    local_rank: int
    node: str
    master_address: str
    master_port: int
    entered_unix_s: float
    """When the process of this rank began to work for the run."""


def this_node() -> str:
    """The name of the machine, as metrics and tables show it."""
    return platform.node() or "localhost"


def device_of(kind: str, place: Place) -> torch.device:
    """The device of a rank, made current.

    Args:
        kind: `cpu` or `cuda`.
        place: the rank's.
    """
    if kind == "cpu":
        return torch.device("cpu")
    # Ray shows each worker its own GPU only; a process that sees them all takes its share.
    index = place.local_rank if torch.cuda.device_count() > 1 else 0
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


@contextmanager
def in_process_group(place: Place, *, device: torch.device, timeout_s: float) -> Iterator[None]:
    """Be in a group with the other ranks. Collective."""
    join_process_group(place, device=device, timeout_s=timeout_s)
    try:
        yield
    finally:
        dist.destroy_process_group()


def join_process_group(place: Place, *, device: torch.device, timeout_s: float) -> None:
    """Meet the other ranks: nccl between GPUs, gloo between CPUs. Collective.

    Rank 0 listens on the address it is to be met at, and on no other.
    """
    # DeepSpeed reads the rank's place from the environment, as torchrun would set it.
    os.environ |= {
        "RANK": str(place.rank),
        "WORLD_SIZE": str(place.world_size),
        "LOCAL_RANK": str(place.local_rank),
        "MASTER_ADDR": place.master_address,
        "MASTER_PORT": str(place.master_port),
    }
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=_meeting_place(place, timeout=timedelta(seconds=timeout_s)),
        rank=place.rank,
        world_size=place.world_size,
        timeout=timedelta(seconds=timeout_s),
        device_id=device if device.type == "cuda" else None,
    )


def _meeting_place(place: Place, *, timeout: timedelta) -> dist.TCPStore:
    """Where the ranks find each other; by itself torch would listen on every address."""
    address = (place.master_address, place.master_port)
    listens_on = None
    if place.rank == 0:
        family = socket.AF_INET6 if ":" in place.master_address else socket.AF_INET
        # The store closes it.
        listens_on = socket.create_server(address, family=family).detach()
    return dist.TCPStore(
        *address,
        place.world_size,
        is_master=place.rank == 0,
        timeout=timeout,
        wait_for_workers=False,
        master_listen_fd=listens_on,
    )

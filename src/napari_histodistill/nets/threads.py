"""How many threads torch computes with on a CPU: one rule for commands, jobs of the window and workers."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def spare_cores() -> int:
    """All cores but the one left to readers, writer and window."""
    return max(1, cores() - 1)


@contextlib.contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Let torch use ``count`` threads for a while.

    With None as many as it would by itself, which follows ``OMP_NUM_THREADS``, but never all cores: where anything else
    runs, threads on all of them wait for one another, and a step of training takes many times as long.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or min(before, spare_cores()))
    try:
        yield
    finally:
        torch.set_num_threads(before)

"""Memory of a store, stated before it is allocated: a system that overcommits kills the process, it never says no."""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path

import torch
from torch import Tensor

from cvpo.errors import ConfigError


def allocate(transitions: int, width: int, device: torch.device, pinned: bool = False) -> Tensor:
    """A store [transitions, width] of NaN in float32, page-locked where ``pinned``.

    Raises ConfigError, with the bytes that are needed and available, where it does not fit.
    """
    stated = claim(f"a buffer of {transitions} transitions", transitions * width * torch.float32.itemsize, device)
    try:
        store = torch.empty((transitions, width), dtype=torch.float32, device=device, pin_memory=pinned)
    except RuntimeError as error:
        raise ConfigError(f"{stated}, which cannot be allocated; choose a smaller capacity") from error
    if device.type == "cpu" and not pinned:
        _ask_for_huge_pages(store)
    return store.fill_(torch.nan)


def claim(what: str, total: int, device: torch.device) -> str:
    """A sentence that states the bytes ``what`` takes; raises ConfigError, with it, where they are not available."""
    stated = f"{what} takes {total} bytes ({_mib(total)}) on {device}"
    free = available(device)
    if free is not None and total > free:
        raise ConfigError(f"{stated}; {_mib(free)} are available; choose a smaller capacity")
    return stated


def _ask_for_huge_pages(tensor: Tensor) -> None:
    """A sample reads hundreds of places far apart, and in pages of 4 KiB nearly each of them is a page to look up.

    To be asked before the memory is written. Nothing but speed depends on the answer, so it is not looked at.
    """
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return
    first = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    length = tensor.data_ptr() + tensor.nbytes - first
    if length > 0:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(length), mmap.MADV_HUGEPAGE)


def available(device: torch.device) -> int | None:
    """Free bytes on ``device``; for the CPU what the system can give without swapping, or the process's own limit where
    that is smaller. None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = _number(Path("/proc/meminfo"), "MemAvailable:")
    most, used = (_number(Path(f"/sys/fs/cgroup/memory.{name}")) for name in ("max", "current"))
    left = [1024 * free] if free is not None else []
    if most is not None and used is not None:
        left.append(most - used)
    return min(left, default=None)


def _mib(count: int) -> str:
    return f"{count / 2**20:.0f} MiB"


def _number(path: Path, label: str | None = None) -> int | None:
    """The number in a file of the system, after ``label`` where there is one; None where there is no such number."""
    try:
        words = path.read_text().split()
        return int(words[words.index(label) + 1 if label else 0])
    except (OSError, ValueError, IndexError):
        return None

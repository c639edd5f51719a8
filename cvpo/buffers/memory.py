"""Memory of a store, stated before it is allocated: a system that overcommits kills the process, it never says no."""

from __future__ import annotations

from pathlib import Path

import torch

from cvpo.errors import ConfigError

Fields = dict[str, tuple[tuple[int, ...], torch.dtype]]


def bytes_of(fields: Fields) -> int:
    """Bytes of one transition of the named shapes and types."""
    return sum(torch.Size(shape).numel() * dtype.itemsize for shape, dtype in fields.values())


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


def require(transitions: int, each: int, device: torch.device) -> None:
    """Raises ConfigError, with the bytes needed and available, unless ``transitions`` of ``each`` bytes fit."""
    free = available(device)
    if free is not None and transitions * each > free:
        raise ConfigError(f"{stated(transitions, each, device)}; {_mib(free)} are available; choose a smaller capacity")


def stated(transitions: int, each: int, device: torch.device) -> str:
    """``a buffer of N transitions takes X bytes …``: the beginning of an error about memory."""
    total = transitions * each
    return f"a buffer of {transitions} transitions takes {total} bytes ({_mib(total)}) on {device}"


def _mib(count: int) -> str:
    return f"{count / 2**20:.0f} MiB"


def _number(path: Path, label: str | None = None) -> int | None:
    """The number in a file of the system, after ``label`` where there is one; None where there is no such number."""
    try:
        words = path.read_text().split()
        return int(words[words.index(label) + 1 if label else 0])
    except (OSError, ValueError, IndexError):
        return None

"""Memory that is freed and asked for again costs no page faults."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

import cvpo

COUNT = """
import resource, sys, torch, cvpo
if sys.argv[1] == "keep":
    assert cvpo.keep_memory()
def work():
    # Several sizes alive at once: freed together they are more than what glibc keeps by itself.
    first = torch.ones(2**21)
    second = first + 1
    third = second * first
    rest = [torch.ones(2**k) for k in range(12, 22)]
    return third.sum() + len(rest)
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
for _ in range(5):
    work()
# The system may take pages away from an idle process at any time: not in most of the rounds.
print(sorted(faults() for _ in range(21))[10])
"""


def faults(mode: str) -> float:
    """Page faults of a round of allocations in a fresh process, the median of 21."""
    done = subprocess.run([sys.executable, "-c", COUNT, mode], capture_output=True, text=True, check=True)
    return float(done.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library has no mallopt")
def test_freed_memory_is_used_again() -> None:
    default, kept = faults("default"), faults("keep")
    assert default > 100 and kept < 0.5 * default


def test_without_glibc_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        """A C library without mallopt."""

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Other())
    assert cvpo.keep_memory() is False

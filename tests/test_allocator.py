"""Memory that is freed stays with the process, and is where the next tensor goes."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

import cvpo

PROBE = """
import sys, torch, cvpo

def heap():
    line = next(line for line in open("/proc/self/maps") if line.rstrip().endswith("[heap]"))
    return [int(end, 16) for end in line.split()[0].split("-")]

if sys.argv[1] == "keep":
    assert cvpo.keep_memory()
before = heap()[1]
large = [torch.ones(5 * 2**20), torch.ones(5 * 2**20)]
first, last = heap()
inside = all(first <= tensor.data_ptr() < last for tensor in large)
del large
print(inside, heap()[1] - before > 35 * 2**20)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library has no mallopt")
@pytest.mark.parametrize(("mode", "expected"), [("default", "False False"), ("keep", "True True")])
def test_large_tensors_come_from_the_heap_and_their_memory_stays_there(mode: str, expected: str) -> None:
    """By default each of 20 MiB is a mapping of its own, made and unmade page by page."""
    done = subprocess.run([sys.executable, "-c", PROBE, mode], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected


def test_without_glibc_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        """A C library without mallopt."""

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Other())
    assert cvpo.keep_memory() is False

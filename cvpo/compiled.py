"""Loops that Numba compiles, where it is installed: how they are declared, found, and switched off.

A module of loops imports Numba and is imported by :func:`loops` only, when it is first needed. What it computes is also
computed without it. Loops of a module lie in one file with all that they call, for Numba takes what it has compiled for
current while the file of a loop is unchanged.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import importlib
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

_allowed = contextvars.ContextVar("allowed", default=True)


@functools.cache
def _module(name: str) -> Any:
    try:
        # Loops that are not compiled would take minutes.
        disabled = importlib.import_module("numba").config.DISABLE_JIT
        return None if disabled else importlib.import_module(name)
    except ModuleNotFoundError:
        return None
    except ImportError as error:
        warnings.warn(f"numba is installed but cannot be imported, so nothing is compiled: {error}", stacklevel=3)
        return None


def loops(name: str) -> Any:
    """The module ``name`` of loops; None where Numba is not installed, with a warning where it cannot be imported, and
    where they are switched off."""
    return _module(name) if _allowed.get() else None


@contextlib.contextmanager
def switched_off() -> Iterator[None]:
    """Without compiled loops, in this thread: what is made or solved meanwhile does without."""
    token = _allowed.set(False)
    try:
        yield
    finally:
        _allowed.reset(token)


def _transforming() -> bool:
    """Whether torch.func works on tensors, or derivatives are taken forward: neither shows in the type of a tensor."""
    functorch = getattr(torch._C, "_functorch", None)
    level = getattr(functorch, "maybe_current_level", lambda: None)
    return level() is not None or getattr(forward_ad, "_current_level", -1) >= 0


def readable(*values: Tensor | None) -> bool:
    """Whether loops on a host may go over these: not where a subclass of Tensor is to see what is done. Gradients are
    the caller's concern: loops leave none."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or _transforming():
        return False
    for value in values:
        if value is not None and not (type(value) is Tensor and value.is_cpu):
            return False
    return True


_PROCESS = os.getpid()


@functools.cache
def _safe() -> bool:
    """Whether the threads that Numba has may be used from several of Python's at once."""
    before = torch.get_num_threads()
    try:
        # Starts them: which they are is not known before.
        numba = importlib.import_module("numba")
        numba.get_num_threads()
        return numba.threading_layer() in ("omp", "tbb")
    except ValueError:
        return False
    finally:
        # Numba sets OpenMP's own number, which is torch's too.
        torch.set_num_threads(before)


def shareable() -> bool:
    """Whether threads of Numba can share a loop: not in a fork, where Numba ends the process that tries to."""
    return os.getpid() == _PROCESS and _safe()


def compiled(**options: Any) -> Callable[[Any], Any]:
    """Numba's decorator, with NumPy's rules for errors; what it compiles is kept on the disk if there is a place."""
    from numba import njit

    def compile_(function: Any) -> Any:
        try:
            return njit(cache=True, error_model="numpy", **options)(function)
        except RuntimeError:
            return njit(error_model="numpy", **options)(function)

    return compile_

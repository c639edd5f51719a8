"""Timing one solve: warm-up, repeats, quartiles, a time limit; and, in a call of its own, what the solver did."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from benchmarks.numpy_dual import NumpyDual
from cvpo.estep import DualProblem, direct, dual

#: Q-values below which a problem, or a stack of them, is left to one thread, which is what a run has by default.
SHARED = 2**17


@contextlib.contextmanager
def threads_for(problem: DualProblem) -> Iterator[None]:
    """One thread of torch for what is too small to be shared, else those that are set."""
    before = torch.get_num_threads()
    if problem.q_reward.numel() + problem.q_cost.numel() < SHARED:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class TimeLimit(BaseException):
    """A solve went over the time limit. Not an Exception: a backend that catches those must not swallow it."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises TimeLimit in the main thread once ``seconds`` are over; compiled code is interrupted when it returns."""

    def stop(signum: int, frame: Any) -> None:
        raise TimeLimit

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def clock(call: Callable[[], Any]) -> float:
    """Wall-clock seconds of one call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def timed(call: Callable[[], Any], budget: float, most: int = 25) -> tuple[list[float], bool]:
    """Seconds of repeated calls within ``budget`` seconds, and whether a call before them warmed up.

    A first call that takes half of the budget or more is the only one, and counts.
    """
    first = clock(call)
    count = min(most, int(budget / max(first, 1e-9)))
    return ([first], False) if count < 2 else ([clock(call) for _ in range(max(count, 3))], True)


def quartiles(values: list[float]) -> dict[str, float]:
    """Quartiles, to four digits."""
    low, median, high = np.percentile(values, (25, 50, 75))
    return {key: float(f"{value:.4g}") for key, value in (("p25", low), ("median", median), ("p75", high))}


class Inside:
    """What one call of a solver did: dual evaluations (one for each problem and point), and seconds of its solve part.

    The solve part is the solver's ``minimise`` for those that use the library's driver (and Newton's own
    descent), Clarabel's own clock (set-up included) for ``cvxpy``; None for others. The rest of a call is the
    build part: normalisation, the modelling language, statuses and weights. Counting slows the call, so times are never
    taken from it but for this share.
    """

    def __init__(self) -> None:
        self.evaluations = 0
        self.solve_seconds: float | None = None

    @contextlib.contextmanager
    def watch(self, solver: Any) -> Iterator[None]:
        """Count while the context is open."""
        with contextlib.ExitStack() as stack:
            self._count(stack, dual, "evaluate_in", lambda lanes, data, *rest: len(data.like))
            self._count(stack, NumpyDual, "value", lambda *args: 1)
            self._count(stack, NumpyDual, "value_and_gradient", lambda *args: 1)
            if hasattr(type(solver), "minimise"):
                self._replace(stack, type(solver), "minimise", self._timed)
                # Newton's descent on the straight way.
                self._replace(stack, direct, "descend", self._timed)
            elif type(solver).__name__ == "Cvxpy":
                import cvxpy

                self._replace(stack, cvxpy.Problem, "solve", self._reported)
            yield

    def _count(self, stack: contextlib.ExitStack, owner: Any, name: str, problems: Callable[..., int]) -> None:
        def counted(original: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **named: Any) -> Any:
                self.evaluations += problems(*args, **named)
                return original(*args, **named)

            return call

        self._replace(stack, owner, name, counted)

    def _replace(self, stack: contextlib.ExitStack, owner: Any, name: str, wrap: Callable[..., Any]) -> None:
        stack.enter_context(patch.object(owner, name, wrap(getattr(owner, name))))

    def _timed(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            began = time.perf_counter()
            try:
                return original(*args)
            finally:
                self._add(time.perf_counter() - began)

        return call

    def _reported(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(program: Any, *args: Any, **options: Any) -> Any:
            value = original(program, *args, **options)
            self._add(float(program.solver_stats.solve_time or 0.0))
            return value

        return call

    def _add(self, seconds: float) -> None:
        self.solve_seconds = (self.solve_seconds or 0.0) + seconds

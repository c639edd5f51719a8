"""Statistics of solve times that do not forget failures.

Rows are those of :mod:`benchmarks.solvers`. A case that a solver did not solve counts with the time limit, as in
qpbenchmark: a solver cannot look fast by giving up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

SHIFT = 1e-3
"""Seconds added before the geometric mean, so that microseconds on trivial problems do not decide it."""


def charged(rows: Iterable[Mapping[str, Any]], limit: float, grade: str = "solved") -> dict[str, dict[str, float]]:
    """Seconds by solver and case: the median where ``grade`` ("solved" or "primal") holds, else ``limit``."""
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        seconds = row["seconds"]["median"] if row[grade] else limit
        found.setdefault(row["solver"], {})[f"{row['family']}/{row['case']}/{row['start']}"] = min(seconds, limit)
    return found


def shifted_geometric_mean(times: Sequence[float], shift: float = SHIFT) -> float:
    """exp(mean log(t + shift)) − shift."""
    return math.exp(sum(math.log(t + shift) for t in times) / len(times)) - shift


def performance_profile(
    times: Mapping[str, Mapping[str, float]], limit: float
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """For each solver, time ratios to the best solver of each case, ascending, and the share of cases within them.

    Cases at ``limit`` are never within: a curve ends at the share that its solver solves. Cases that a solver has no
    time for count as failures. Source: Dolan & Moré (2002).
    """
    names = sorted({case for each in times.values() for case in each})
    best = {case: min(each.get(case, limit) for each in times.values()) for case in names}
    found = {}
    for solver, each in times.items():
        ratios = sorted(each[case] / best[case] for case in names if each.get(case, limit) < limit)
        found[solver] = (np.array(ratios), np.arange(1, len(ratios) + 1) / max(len(names), 1))
    return found

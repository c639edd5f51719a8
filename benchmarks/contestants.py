"""Who takes part in the solver benchmark, with which options at which tolerance level.

Every solver of :data:`cvpo.estep.registry` takes part, those of installed packages included, then the baselines, then
what ``--solver my_package:MySolver`` names. Options by level are in one table; a solver without an entry runs as it is
made. A solver whose options are the same at two levels is measured once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs

from benchmarks.baselines import BASELINES
from cvpo.estep import registry

LEVELS = (1e-3, 1e-6, 1e-9)

#: Options at each of LEVELS. ``newton``, ``slsqp`` and ``osqp`` take what ends above their declared accuracy of 1e-6
#: for unsolved and examine it for infeasibility, so the loosest level runs them at 1e-6 as well.
_TIGHT: list[dict[str, Any]] = [{"tolerance": 1e-6}, {"tolerance": 1e-6}, {"tolerance": 1e-9}]
_SLSQP: list[dict[str, Any]] = [
    {"ftol": ftol, "max_iter": 500, "least": least} for ftol, least in ((1e-7, 1e-6), (1e-12, 1e-9), (1e-15, 1e-12))
]
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "newton": _TIGHT,
    "newton-torch": _TIGHT,
    "slsqp": [{**options, "ftol": options["tolerance"] * 1e-3} for options in _TIGHT],
    "osqp": [{**options, "qp_tolerance": min(1e-9, options["tolerance"] * 1e-2)} for options in _TIGHT],
    "cvxpy": [{"tolerance": 1e-10}, {"tolerance": 1e-10}, {"tolerance": 1e-12}],
    # More steps would be the benchmark's longest part, for a method that promises 1e-2.
    "adam": [{"steps": steps, "lr": lr} for steps, lr in ((100, 0.05), (300, 0.02), (300, 0.02))],
    "fd-slsqp": _SLSQP,
    "analytic-slsqp": [{**options, "gradient": True} for options in _SLSQP],
}

#: Calls on the problem before it moved, each from the last one's answer, that come before a warm start: an Adam step
#: follows a slowly moving problem, so it is given the time that training would have given it.
CALLS_BEFORE = {"adam-step": 100}


@attrs.frozen
class Contestant:
    """One solver at the ``levels`` that share its options; ``calls_before`` solves precede a warm start."""

    name: str
    solver: Any
    options: dict[str, Any]
    levels: tuple[float, ...]
    calls_before: int = 1


def contestants(extra: Iterable[str] = (), only: Iterable[str] | None = None) -> list[Contestant]:
    """All contestants, or those named in ``only``. Raises ConfigError for an unknown name or option."""
    names = [*registry.names(), *BASELINES, *extra]
    wanted = names if only is None else [name for name in names if name in set(only)]
    return [each for name in wanted for each in _of(name)]


def make(name: str, options: dict[str, Any]) -> Any:
    """The solver ``name``: a baseline, a registered one, or ``"module:Class"``."""
    return BASELINES[name](**options) if name in BASELINES else registry.create(name, **options)


def at_level(name: str, level: float) -> Any:
    """The solver ``name`` with its options at ``level``."""
    return make(name, _options(name)[LEVELS.index(level)])


def _options(name: str) -> list[dict[str, Any]]:
    return OPTIONS.get(name, [{}] * len(LEVELS))


def _of(name: str) -> list[Contestant]:
    options = _options(name)
    found = []
    for given in [each for i, each in enumerate(options) if each not in options[:i]]:
        levels = tuple(level for level, each in zip(LEVELS, options, strict=True) if each == given)
        found.append(Contestant(name, make(name, given), given, levels, CALLS_BEFORE.get(name, 1)))
    return found

"""Speed goals of the E-step: ``newton`` against others at equal accuracy, timed in turns in one run.

Each goal is a ratio of times on the same problems. Contestants take turns, in alternating order, and the ratio is the
median over the turns, so that what slows the machine slows both. Accuracy is made equal first: of the options of each
contestant, the loosest whose answers have residuals within 1e-6 on all problems of the goal (``cvxpy``: the residuals
of weights and gap, see :mod:`benchmarks.solvers`) are used, and where none do, the tightest, and the row says so. A
goal counts as reached where the ratio is and ``newton`` is within 1e-6.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs
import torch

from benchmarks import fused_pass
from benchmarks.contestants import make
from benchmarks.measuring import clock, quartiles, threads_for
from benchmarks.numpy_dual import NumpyDual
from benchmarks.solver_problems import draw, moved
from cvpo.estep import DualProblem, DualSolution, kkt_residuals

ACCURACY = 1e-6
COMMAND = "python -m benchmarks.solvers --profile {profile}"
_FTOL = [10.0**-power for power in range(7, 16)]

#: Options from loose to tight.
LADDERS: dict[str, list[dict[str, Any]]] = {
    "newton": [{"tolerance": 1e-6}],
    "analytic-slsqp": [{"gradient": True, "ftol": ftol, "max_iter": 500, "least": 1e-9} for ftol in _FTOL],
    "fd-slsqp": [{"ftol": ftol, "max_iter": 500, "least": 1e-9} for ftol in _FTOL],
    "cvxpy": [{"tolerance": 10.0**-power} for power in range(8, 11)],
}


@attrs.frozen
class Goal:
    """``newton`` on stacks of ``count`` problems at least ``needed`` times as fast as ``other`` on the same.

    ``sampled``: with a slow ``other``, how many problems of the stack it solves; its time counts in proportion.
    """

    name: str
    other: str
    needed: float
    count: int = 1
    particles: int = 64
    warm: bool = False
    sampled: int | None = None
    device: str = "cpu"


GOALS = (
    Goal("one problem, cold", "analytic-slsqp", 3.0),
    Goal("one problem, cold", "fd-slsqp", 10.0),
    Goal("one problem, warm after Q moved by 1 %", "fd-slsqp", 10.0, warm=True),
    Goal("stack of 64", "analytic-slsqp", 8.0, count=64),
    Goal("stack of 64", "fd-slsqp", 25.0, count=64),
    Goal("one problem, build and solve", "cvxpy", 200.0, particles=16),
    Goal("stack of 64, build and solve", "cvxpy", 1000.0, count=64, particles=16, sampled=4),
    Goal("stack of 1024 on a GPU", "analytic-slsqp", 100.0, count=1024, sampled=32, device="cuda"),
)

#: (rounds, different problems) of goals on one problem and on stacks.
EFFORT = {"smoke": ((1, 1), (1, 1)), "quick": ((10, 3), (4, 1)), "full": ((30, 8), (10, 2))}


def measure(profile: str) -> Iterator[dict[str, Any]]:
    """A row for each goal."""
    smoke = profile == "smoke"
    for goal in GOALS:
        if smoke:
            goal = attrs.evolve(goal, count=min(goal.count, 2), sampled=goal.sampled and 1)
        rounds, different = EFFORT[profile][goal.count > 1]
        row = {"kind": "goal", "command": COMMAND.format(profile=profile)}
        yield row | measure_goal(goal, rounds, different, states=8 if smoke else 256)
    for count in (1, 2 if smoke else 64):
        row = {"kind": "goal", "command": COMMAND.format(profile=profile)}
        yield row | _iteration(count, EFFORT[profile][0][0], states=8 if smoke else 256)


def alternate(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call in turns, in alternating order, after one turn to warm up."""
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds):
        for name in list(calls) if turn % 2 == 0 else reversed(list(calls)):
            times[name].append(clock(calls[name]))
    return times


def loosest(
    name: str, problems: Sequence[DualProblem], warms: Sequence[DualSolution | None]
) -> tuple[dict[str, Any], float]:
    """The first options of the ladder that bring all problems within ACCURACY, else the last; the worst residual."""
    worst, options = float("inf"), {}
    for options in LADDERS[name]:
        solver = make(name, options)
        answers = (residual(name, p, solver.solve(p, w)) for p, w in zip(problems, warms, strict=True))
        worst = max(answers)
        if worst <= ACCURACY:
            break
    return options, worst


def residual(name: str, problem: DualProblem, solution: DualSolution) -> float:
    """The largest residual of a stack; for ``cvxpy`` of the parts that it answers for."""
    graded = kkt_residuals(problem, solution)
    if name != "cvxpy":
        return float(graded.max.max())
    return max(float(part.max()) for part in (graded.kl, graded.cost, graded.gap, graded.simplex, graded.sign))


def measure_goal(goal: Goal, rounds: int, different: int, states: int) -> dict[str, Any]:
    """The row of one goal: ``rounds`` turns on each of ``different`` stacks of problems with ``states`` states."""
    lead = (goal.count,) if goal.count > 1 else ()
    row: dict[str, Any] = {
        "goal": f"{goal.name}: newton against {goal.other}",
        "needed": goal.needed,
        "bound": "at least",
        "size": f"B={states} K={goal.particles} M=1 P={goal.count}",
        "measured": None,
        "reached": False,
    }
    if goal.device != "cpu" and not torch.cuda.is_available():
        return row | {"reached": None, "note": "not measured: no CUDA device"}
    problems = [draw(70 + i, lead, states, goal.particles) for i in range(different)]
    warms: list[DualSolution | None] = [None] * different
    if goal.warm:
        exact = make("newton", {"tolerance": 1e-9})
        warms = [exact.solve(moved(problem, seed=i)) for i, problem in enumerate(problems)]
    parts = [problem if goal.sampled is None else _first(problem, goal.sampled) for problem in problems]
    theirs, their_worst = loosest(goal.other, parts, warms)
    # One problem of the library's solver on another device: moved there once, as an agent on it would have it.
    ours = [_on(problem, goal.device) for problem in problems]
    options, worst = loosest("newton", ours, warms)
    times: dict[str, list[float]] = {"newton": [], goal.other: []}
    newton, other = make("newton", options), make(goal.other, theirs)
    for mine, part, warm in zip(ours, parts, warms, strict=True):
        calls = {
            "newton": lambda p=mine, w=warm: _finished(newton.solve(p, w)),
            goal.other: lambda p=part, w=warm: other.solve(p, w),
        }
        with threads_for(mine):
            threads = torch.get_num_threads()
            for name, seconds in alternate(calls, rounds).items():
                times[name] += seconds
    factor = goal.count / goal.sampled if goal.sampled else 1.0
    ratio = quartiles([factor * b / a for a, b in zip(times["newton"], times[goal.other], strict=True)])
    row |= {
        "measured": ratio["median"],
        "ratio": ratio,
        "reached": ratio["median"] >= goal.needed and worst <= ACCURACY,
        "equal_accuracy": their_worst <= ACCURACY,
        "seconds": {
            "newton": quartiles(times["newton"]),
            goal.other: quartiles([factor * seconds for seconds in times[goal.other]]),
        },
        "residual": {"newton": float(f"{worst:.3e}"), goal.other: float(f"{their_worst:.3e}")},
        "options": {"newton": options, goal.other: theirs},
        "turns": len(times["newton"]),
        "threads": threads,
    }
    if goal.sampled:
        row["note"] = f"{goal.other} solves {goal.sampled} of the {goal.count} problems; its time is scaled up"
    if goal.other.endswith("slsqp"):
        row["evaluation_seconds"] = _evaluation(problems[0], gradient=goal.other == "analytic-slsqp")
    return row


def _iteration(count: int, rounds: int, states: int) -> dict[str, Any]:
    problem = draw(80, (count,) if count > 1 else (), states)
    calls, note = fused_pass.calls(problem)
    with threads_for(problem):
        threads = torch.get_num_threads()
        times = alternate(calls, 10 * rounds)
    base = next(name for name in ("fused pass", "torch.compile", "eager pass") if name in times)
    ratio = quartiles([a / b for a, b in zip(times["newton iteration"], times[base], strict=True)])
    return {
        "goal": f"{'one problem' if count == 1 else f'stack of {count}'}: a newton iteration against one {base}",
        "needed": 3.0,
        "bound": "at most",
        "size": f"B={states} K=64 M=1 P={count}",
        "measured": ratio["median"],
        "ratio": ratio,
        "reached": ratio["median"] <= 3.0,
        "seconds": {name: quartiles(values) for name, values in times.items()},
        "turns": 10 * rounds,
        "threads": threads,
        "note": note,
    }


def _evaluation(problem: DualProblem, gradient: bool) -> dict[str, float]:
    """Seconds of one evaluation in NumPy, which pins the baseline."""
    dual = NumpyDual(problem, 0)
    call = dual.value_and_gradient if gradient else dual.value
    x = torch.tensor([1.0, 0.5], dtype=torch.float64).numpy()
    return quartiles(alternate({"evaluation": lambda: call(x)}, 50)["evaluation"])


def _first(problem: DualProblem, count: int) -> DualProblem:
    return DualProblem(
        problem.q_reward[:count], problem.q_cost[:count], problem.cost_limit[:count], problem.kl_epsilon[:count]
    )


def _on(problem: DualProblem, device: str) -> DualProblem:
    if device == "cpu":
        return problem
    fields = (problem.q_reward, problem.q_cost, problem.cost_limit, problem.kl_epsilon)
    return DualProblem(*(field.to(device) for field in fields))


def _finished(solution: DualSolution) -> DualSolution:
    if solution.eta.is_cuda:
        torch.cuda.synchronize()
    return solution

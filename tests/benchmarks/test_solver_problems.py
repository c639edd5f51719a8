"""Every family of the solver benchmark: seeded, of the shape that its name says, and as feasible as it says."""

from __future__ import annotations

import re

import pytest
import torch

from benchmarks.solver_families import FAMILIES, RECORDED, Case, cases
from benchmarks.solver_problems import draw, moved
from cvpo.estep import Status, kkt_residuals, registry

QUICK = list(cases("quick"))


@pytest.mark.parametrize("case", QUICK, ids=lambda case: f"{case.family}-{case.name}")
def test_case(case: Case) -> None:
    problem, before = case.pair()
    again, _ = case.pair()
    assert torch.equal(problem.q_reward, again.q_reward) and torch.equal(problem.q_cost, again.q_cost)
    problem.check()
    before.check()
    sizes = {"P": problem.kl_epsilon.numel(), "M": problem.costs}
    sizes |= dict(zip("BK", problem.q_reward.shape[-2:], strict=True))
    for letter, number in re.findall(r"\b([PMBK])=(\d+)", case.name):
        assert sizes[letter] == int(number)
    solution = registry.create("newton").solve(problem)
    assert (kkt_residuals(problem, solution).max <= 1e-6).all()
    if case.infeasible is not None:
        assert (solution.status == (Status.INFEASIBLE if case.infeasible else Status.OK)).all()
    if case.name.startswith(("inactive", "active")):
        assert ((solution.lam > 0) == case.name.startswith("active")).all()


def test_every_family_in_every_profile() -> None:
    known = set(FAMILIES) if RECORDED.exists() else set(FAMILIES) - {"recorded"}
    for profile in ("smoke", "quick", "full"):
        assert {case.family for case in cases(profile)} == known


def test_costs_of_the_full_profile() -> None:
    assert [case.name for case in cases("full") if case.family == "costs"] == [f"M={m}" for m in range(9)]


def test_moved_by_one_percent() -> None:
    problem = draw(0, (3,), states=64, particles=16, costs=2)
    other = moved(problem, seed=1)
    for one, two in ((problem.q_reward, other.q_reward), (problem.q_cost, other.q_cost)):
        assert float((two - one).std() / one.std()) == pytest.approx(0.01, rel=0.1)
    assert torch.equal(problem.cost_limit, other.cost_limit)


@pytest.mark.skipif(not RECORDED.exists(), reason="no recorded problems in this checkout")
def test_recorded_problems_are_small_and_from_several_runs() -> None:
    assert RECORDED.stat().st_size < 2_000_000
    assert len({case.name.rsplit(" ", 1)[0] for case in cases("full") if case.family == "recorded"}) >= 2

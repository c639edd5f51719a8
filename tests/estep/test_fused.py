"""Compiled passes: the numbers of the passes in tensors, whatever the layout, the dtype, or the number of threads."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from torch import Tensor

from cvpo.compiled import switched_off
from cvpo.estep import DualProblem, Status, fused, kkt_residuals, registry
from cvpo.estep.lanes import One
from cvpo.estep.passes import Stack
from cvpo.estep.scaling import shifted
from cvpo.estep.stacks import Host
from tests.estep.problems import draw_problem

pytest.importorskip("numba")
CASES = [(costs, prior) for costs in (0, 1, 3) for prior in ("uniform", "given", "holes")]
MIX = (0.7, -1.3, 0.2, -0.4)


def _problem(
    costs: int,
    prior: str,
    dtype: torch.dtype = torch.float64,
    lead: tuple[int, ...] = (4,),
    particles: int = 9,
) -> DualProblem:
    problem = draw_problem(costs, lead, costs=costs, states=11, particles=particles, prior=True, dtype=dtype)
    log_p = problem.log_p.clone()
    if prior == "holes":
        log_p[..., ::3] = -torch.inf
    given = None if prior == "uniform" else log_p
    return DualProblem(problem.q_reward, problem.q_cost, problem.cost_limit, problem.kl_epsilon, given)


def _read(problem: DualProblem) -> tuple[fused.Values, np.ndarray, np.ndarray]:
    values = fused.values_of(problem.q_reward, problem.q_cost, problem.log_prior)
    shape = values.q_cost.shape[:2]
    limit, epsilon = fused.array(problem.cost_limit, shape), fused.array(problem.kl_epsilon, shape[:1])
    found = fused.read(values, limit, epsilon, False)
    return values, found.numbers, found.low


def _in_tensors(problem: DualProblem) -> tuple[Stack, Tensor]:
    with switched_off():
        raw = shifted(problem)
    return Stack(raw.q, raw.log_prior), raw.numbers


def _moments(data: Stack | fused.Fused, size: int) -> np.ndarray:
    mix = tuple(np.full(4, each) for each in MIX[:size])
    return np.stack(data.moments(Host, mix, False, True)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("costs", "prior"), CASES)
def test_numbers_are_those_of_passes_in_tensors(costs: int, prior: str, dtype: torch.dtype) -> None:
    problem = _problem(costs, prior, dtype)
    values, numbers, low = _read(problem)
    data, (right, expected) = fused.Fused(values, low, (1.0,) * (1 + costs)), _in_tensors(problem)
    np.testing.assert_allclose(numbers, expected, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(_moments(data, 1 + costs), _moments(right, 1 + costs), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(np.stack(data.prior(Host)), np.stack(right.prior(Host)), rtol=1e-12, atol=1e-13)
    weights = data.weights(MIX[: 1 + costs])
    x = torch.tensor([[1.0, *(-each / MIX[0] for each in MIX[1 : 1 + costs])]] * 4, dtype=torch.float64)
    x[:, 0] = 1.0 / (MIX[0] * np.log(2.0))
    single = dtype == torch.float32
    torch.testing.assert_close(weights.double(), _weights(right, x), rtol=1e-7 if single else 1e-12, atol=0.0)
    assert weights.dtype == (torch.float32 if single else torch.float64)


def _weights(data: Stack, x: Tensor) -> Tensor:
    z = (data.q[:, 0] - (x[:, 1:, None, None] * data.q[:, 1:]).sum(1)) / x[:, :1, None]
    return torch.softmax(z if data.log_prior is None else z + data.log_prior, -1)


@pytest.mark.parametrize(("costs", "prior"), CASES)
def test_units_are_those_of_values_that_were_divided_by_them(costs: int, prior: str) -> None:
    unit = [2.0**power for power in (9, -7, 0, 30)][: 1 + costs]
    problem = _problem(costs, prior)
    scale = torch.tensor(unit, dtype=torch.float64)
    values, _, low = _read(problem)
    divided = fused.values_of(problem.q_reward / unit[0], problem.q_cost / scale[1:, None, None], problem.log_prior)
    found = fused.Fused(values, low, tuple(unit))
    expected = fused.Fused(divided, low / scale.view(1, -1, 1).numpy(), (1.0,) * (1 + costs))
    np.testing.assert_array_equal(_moments(found, 1 + costs), _moments(expected, 1 + costs))
    np.testing.assert_array_equal(np.stack(found.prior(Host)), np.stack(expected.prior(Host)))


@pytest.mark.parametrize("prior", ["uniform", "holes"])
def test_parts_add_up_and_threads_change_nothing(prior: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values, _, low = _read(_problem(2, prior))
    whole = fused.Fused(values, low, (1.0,) * 3)
    expected = _moments(whole, 3), np.stack(whole.prior(Host)), whole.weights(MIX[:3])
    monkeypatch.setattr(fused, "PART", 100)
    monkeypatch.setattr(fused, "SHARED", 0)
    found, seen, threads = [], set(), torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            _, numbers, again = _read(_problem(2, prior))
            data = fused.Fused(values, again, (1.0,) * 3)
            found.append((_moments(data, 3), np.stack(data.prior(Host)), data.weights(MIX[:3]), numbers))
            seen |= {thread.name for thread in threading.enumerate() if thread.name.startswith("cvpo-estep")}
    finally:
        torch.set_num_threads(threads)
    assert data._parts == 3 and len(seen) == 2, "three parts of a problem, and two threads beside this one"
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(found[0], expected, strict=False):
        np.testing.assert_allclose(one, other, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("prior", ["uniform", "holes"])
def test_numbers_do_not_depend_on_where_arrays_lie(prior: str) -> None:
    """A compiler may keep two versions of a loop, for arrays near each other and not, that add up in another order.
    Rows are long enough for either, with a rest."""
    values, _, low = _read(_problem(2, prior, particles=70))
    generator, seen = np.random.default_rng(0), set()
    for _ in range(300):
        between = np.empty(generator.integers(1, 5000))
        copied = fused.Values(*(None if part is None else part.copy() for part in values))
        reading = fused.read(copied, np.zeros((4, 2)), np.ones(4), True)
        data = fused.Fused(copied, low.copy(), (1.0,) * 3, reading.prior)
        found = (reading.numbers, reading.low, _moments(data, 3), np.stack(data.prior(Host)))
        seen.add(b"".join(part.tobytes() for part in found))
        del between
    assert len(seen) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_that_are_kept_are_those_that_are_made_again(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, _, low = _read(_problem(1, "holes", dtype, lead=()))
    data = fused.Fused(values, low, (1.0, 1.0))
    numbers, kept = data.moments(One, MIX[:2], True, True)
    assert kept is None, "few descents end where they begin"
    again, kept = data.moments(One, MIX[:2], True, True)
    assert again == numbers and kept is not None and kept.dtype == dtype and torch.equal(kept, data.weights(MIX[:2]))
    assert data.moments(One, MIX[:2], False, True) == (numbers, None)
    monkeypatch.setattr(fused, "SHARED", 1)
    assert data.moments(One, MIX[:2], True, True) == (numbers, None), "of a large problem they are not kept"


def test_only_the_problems_that_are_wanted_are_passed_over() -> None:
    values, _, low = _read(_problem(1, "given"))
    data, mix = fused.Fused(values, low, (1.0, 1.0)), tuple(np.full(4, each) for each in MIX[:2])
    whole = np.stack(data.moments(Host, mix, False, True)[0])
    for wanted in ([True, False, True, False], [False] * 4, [True] * 4):
        found = np.stack(data.moments(Host, mix, False, np.array(wanted))[0])
        np.testing.assert_array_equal(found, np.where(wanted, whole, 0.0))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("prior", ["uniform", "holes"])
@pytest.mark.parametrize("part", ["q_reward", "q_cost", "cost_limit", "kl_epsilon"])
def test_what_is_not_finite_is_found_outside_the_support_as_well(part: str, prior: str, bad: float) -> None:
    problem = _problem(2, prior)
    parts = {name: getattr(problem, name).clone() for name in ("q_reward", "q_cost", "cost_limit", "kl_epsilon")}
    parts[part].view(4, -1)[1, 0] = bad
    values, numbers, _ = _read(DualProblem(**parts, log_prior=problem.log_prior))
    assert np.isfinite(numbers).all(1).tolist() == [True, False, True, True]
    solver = registry.create("newton")
    expected = solver.solve(problem).status.tolist()
    expected[1] = Status.NONFINITE
    assert solver.solve(DualProblem(**parts, log_prior=problem.log_prior)).status.tolist() == expected


def test_powers_of_two_are_right_to_two_units_in_the_last_place() -> None:
    kernels = fused.kernels()
    points = np.concatenate([-np.logspace(-12, 3, 4000), -np.arange(1100.0), [-0.5, -0.0, -np.inf]])
    found = np.array([kernels._exp2(t) for t in points])
    right = np.where(points > kernels.LOWEST, np.exp2(points), 0.0)
    assert (np.abs(found - right) <= 2.0 * np.spacing(right)).all() and (found[right == 0] == 0).all()


@pytest.mark.parametrize("lead", [(), (5,), (2, 3)])
def test_layouts_that_loops_cannot_read_are_copied(lead: tuple[int, ...]) -> None:
    problem = _problem(2, "given", lead=lead)
    rest = problem.cost_limit, problem.kl_epsilon, problem.log_prior
    twisted = problem.q_reward.mT.contiguous().mT, problem.q_cost.mT.contiguous().mT
    expected, found = (
        registry.create("newton").solve(DualProblem(*values, *rest))
        for values in ((problem.q_reward, problem.q_cost), twisted)
    )
    assert torch.equal(found.weights, expected.weights) and torch.equal(found.eta, expected.eta)
    assert found.weights.shape == problem.q_reward.shape and found.lam.shape == problem.cost_limit.shape


@pytest.mark.parametrize("lead", [(), (6,)])
@pytest.mark.parametrize("warm", [False, True])
def test_both_kinds_of_passes_lead_to_the_same_answers(lead: tuple[int, ...], warm: bool) -> None:
    """Feasible limits and, in a stack, one that is out of reach and one problem that is not finite."""
    problem = _problem(2, "given", lead=lead)
    if lead:
        problem.cost_limit[1] = -10.0
        problem.q_reward[2, 0, 0] = torch.nan
    near = DualProblem(
        problem.q_reward + 0.01, 1.01 * problem.q_cost, problem.cost_limit, problem.kl_epsilon, problem.log_prior
    )
    answers = []
    for passes in ("numba", "torch"):
        solver = registry.create("newton", passes=passes)
        answers.append(solver.solve(problem, solver.solve(near) if warm else None))
    found, expected = answers
    assert torch.equal(found.status, expected.status)
    for name in ("eta", "lam", "weights", "violation"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-7, atol=1e-9)
    solved = found.status == Status.OK
    assert (kkt_residuals(problem, found).max[solved] <= 1e-6).all()


@pytest.mark.parametrize("lead", [(), (3,)])
@pytest.mark.parametrize("size", [1e160, 1e-160])
def test_iterations_are_counted_where_squares_overflow(lead: tuple[int, ...], size: float) -> None:
    problem = draw_problem(1, lead, costs=1, states=5, particles=6, dtype=torch.float64)
    large = DualProblem(size * problem.q_reward, size * problem.q_cost, 0.0, 0.1)
    solver = registry.create("newton")
    solution = solver.solve(large)
    assert bool(((solution.iterations >= 0) & (solution.iterations < solver.max_iter)).all())

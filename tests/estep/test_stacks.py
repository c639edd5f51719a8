"""Small vectors of many problems: NumPy's arrays do what tensors do, number by number and solution by solution."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cvpo.estep import DualProblem, registry
from cvpo.estep.lanes import One
from cvpo.estep.stacks import Host, Many, lanes_for

VALUES = torch.tensor(
    [0.0, -0.0, 1e-300, 0.3, 1.0, 1.5, 6e7, -2.0, torch.inf, -torch.inf, torch.nan], dtype=torch.float64
)


def both(name: str, *arguments: torch.Tensor | float) -> None:
    """The function ``name`` on tensors and on arrays of the same numbers."""
    expected = getattr(Many, name)(*arguments)
    with np.errstate(all="ignore"):
        found = getattr(Host, name)(*(Host.split(a) if isinstance(a, torch.Tensor) else a for a in arguments))
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0.0, atol=0.0, equal_nan=True)


def test_numbers_are_treated_alike_infinities_and_nan_among_them():
    a, b = (part.flatten() for part in torch.meshgrid(VALUES, VALUES, indexing="ij"))
    for name in ("minimum", "maximum"):
        both(name, a, b)
    both("where", a > b, a, b)
    for bound in (-1.0, 0.0, 0.3):
        both("at_least", a, bound)
        both("at_most", a, bound)
    both("sqrt", VALUES)
    both("power_of_two", VALUES)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_vectors_and_matrices_are_treated_alike(size: int):
    generator = torch.Generator().manual_seed(size)
    square = torch.randn(5, size, size, generator=generator, dtype=torch.float64)
    matrix = square @ square.mT + torch.eye(size, dtype=torch.float64)
    right, value = (torch.randn(5, size, generator=generator, dtype=torch.float64) for _ in range(2))
    pinned = torch.rand(5, size, generator=generator) < 0.3
    answers = []
    for lanes in (Many, Host):
        rows = tuple(lanes.split(matrix[:, i]) for i in range(size))
        vectors = (lanes.split(part) for part in (right, pinned, value))
        answers.append(lanes.join(lanes.solve(rows, *vectors), matrix))
        constants = tuple(tuple(float(i == j) for j in range(size)) for i in range(1, size))
        torch.testing.assert_close(
            lanes.matrix((lanes.split(right), *constants), matrix)[:, 0], right, rtol=0.0, atol=0.0
        )
    torch.testing.assert_close(*answers, rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(answers[0][pinned], value[pinned], rtol=1e-13, atol=0.0)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_stack_of_systems_is_solved_as_each_is_singular_ones_among_them(size: int):
    generator = torch.Generator().manual_seed(size)
    square = torch.randn(6, size, size, generator=generator, dtype=torch.float64)
    square[0] = 0.0
    square[1, -1] = square[1, 0]
    matrix = square @ square.mT
    right, value = (torch.randn(6, size, generator=generator, dtype=torch.float64) for _ in range(2))
    pinned = torch.rand(6, size, generator=generator) < 0.3
    vectors = right, pinned, value
    with np.errstate(all="ignore"):
        rows = tuple(Host.split(matrix[:, i]) for i in range(size))
        found = Host.join(Host.solve(rows, *map(Host.split, vectors)), matrix)
    for i in range(6):
        here = tuple(One.split(matrix[i : i + 1, j]) for j in range(size))
        expected = One.solve(here, *(One.split(part[i : i + 1]) for part in vectors))
        if i != 1:
            assert found[i].tolist() == pytest.approx(expected, rel=1e-12, abs=1e-14)
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("costs", [0, 1, 3])
def test_a_stack_is_solved_alike_in_arrays_and_in_tensors(monkeypatch: pytest.MonkeyPatch, costs: int, warm: bool):
    """Active, slack and infeasible limits, magnitudes, constants, and a problem that is not finite, in one stack."""
    generator = torch.Generator().manual_seed(costs)
    reward = torch.randn(8, 12, 6, generator=generator, dtype=torch.float64)
    cost = torch.randn(8, costs, 12, 6, generator=generator, dtype=torch.float64)
    limit = torch.tensor([-0.1, 5.0, -4.0, -0.1, -0.1, -0.2, -0.05, 0.0]).unsqueeze(-1).expand(8, costs).clone()
    reward[3], reward[4], reward[5, 0, 0] = 1e6 * reward[3], 1.0, torch.nan
    cost[6], limit[6] = 1e-6 * cost[6], 1e-6 * limit[6]
    problem = DualProblem(reward, cost, limit, 0.1)
    solver = registry.create("newton", passes="torch")
    assert lanes_for(reward) is Host
    before = DualProblem(reward + 0.01 * reward.nan_to_num().roll(1, 0), cost, limit, 0.1)
    start = solver.solve(before) if warm else None
    found = solver.solve(problem, start)
    monkeypatch.setattr("cvpo.estep.driver.lanes_for", lambda tensor: Many)
    monkeypatch.setattr("cvpo.estep.newton.lanes_for", lambda tensor: Many)
    expected = solver.solve(problem, start)
    assert torch.equal(found.status, expected.status) and len(found.status.unique()) >= (3 if costs else 2)
    for name in ("eta", "lam", "weights", "violation"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-9, atol=1e-12)

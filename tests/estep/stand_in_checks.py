"""Every solver on a stand-in device; run by ``test_devices`` in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import pytest
import torch

from cvpo.estep import registry
from cvpo.metrics import Means
from tests.estep.problems import draw_problem
from tests.estep.stand_in_device import NAME, StandIn
from tests.estep.test_devices import compare, moved


@pytest.fixture
def standin() -> Iterator[str]:
    with StandIn():
        yield NAME


@pytest.mark.parametrize("name", registry.names())
@pytest.mark.parametrize("kind", ["alone", "stack", "float32", "infeasible", "not finite"])
def test_a_device_with_the_rules_of_an_accelerator_gives_the_answer_of_the_host(
    name: str, kind: str, standin: str
) -> None:
    lead = () if kind == "alone" else (3,)
    problem = draw_problem(1, lead, costs=2, prior=True, dtype=torch.float32 if kind == "float32" else torch.float64)
    if kind == "infeasible":
        problem = attrs.evolve(problem, cost_limit=problem.q_cost.amin((-2, -1)) - 1.0)
    if kind == "not finite":
        q = problem.q_reward.clone()
        q[0, 0, 0] = torch.nan
        problem = attrs.evolve(problem, q_reward=q)
    compare(name, problem, standin)


@pytest.mark.parametrize("name", registry.names())
@pytest.mark.parametrize("lead", [(), (3,)])
def test_a_solution_of_the_host_is_a_warm_start_once_it_is_moved(
    name: str, lead: tuple[int, ...], standin: str
) -> None:
    """As one that comes from a checkpoint."""
    solver, problem = registry.create(name), draw_problem(1, lead, costs=1)
    here = solver.solve(problem)
    for limit in (problem.cost_limit, problem.q_cost.amin((-2, -1)) - 1.0):
        after = attrs.evolve(problem, cost_limit=limit)
        there = solver.solve(moved(after, standin), here.to(torch.device(standin)))
        assert torch.equal(there.status.cpu(), solver.solve(after, here).status)


def test_means_of_a_checkpoint_go_on_on_the_device(standin: str) -> None:
    means = Means()
    means.load_state_dict({"names": ("a",), "sum": torch.ones(1, dtype=torch.float64), "count": 1})
    means.add({"a": torch.full((), 3.0).to(standin)})
    assert means.take() == {"a": 2.0}


@pytest.mark.parametrize("name", [name for name in registry.names() if name != "adam"])
def test_gradients_stay_on_the_device(name: str, standin: str) -> None:
    problem = draw_problem(2, (), costs=1)
    found = []
    for device in ("cpu", standin):
        here = moved(problem, device)
        q = here.q_reward.detach().requires_grad_()
        solution = registry.create(name).solve(attrs.evolve(here, q_reward=q))
        (gradient,) = torch.autograd.grad((solution.weights * here.q_reward).sum() + solution.eta.sum(), q)
        assert gradient.device.type == device
        found.append(gradient.cpu())
    torch.testing.assert_close(*found)


def test_the_stand_in_refuses_what_an_accelerator_does(standin: str) -> None:
    """What the tests above rely on."""
    there = torch.ones(3, device=standin)
    with pytest.raises(RuntimeError, match="same device"):
        there + torch.ones(3)
    with pytest.raises(TypeError, match="to numpy"):
        there.numpy()
    assert (there + torch.tensor(1.0)).device.type == standin == torch.zeros_like(there).device.type

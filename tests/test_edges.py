"""Edges of the components' interfaces that were once a silent wrong number or an error without words."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

import cvpo
from cvpo import checkpoint, critics, logs
from cvpo.buffers import registry as buffers
from cvpo.distributions import Gaussian
from cvpo.errors import CheckpointError, ConfigError, EnvError, ProblemError
from cvpo.estep import DualProblem, Status
from cvpo.estep import registry as esteps
from cvpo.run.config import configure, to_json
from cvpo.types import Spec, Transition
from tests.estep.problems import draw_problem

BOX, ACTIONS = gymnasium.spaces.Box(-1, 1, (3,)), gymnasium.spaces.Box(-1, 1, (2,))


def step(envs: int, **values: Any) -> Transition:
    zeros = torch.zeros
    parts: dict[str, Any] = {"obs": zeros(envs, 3), "action": zeros(envs, 2), "signals": zeros(2, envs)}
    flags = {name: zeros(envs, dtype=torch.bool) for name in ("terminated", "truncated")}
    return Transition(**(parts | {"next_obs": zeros(envs, 3)} | flags | values))


def members(count: int = 3) -> Any:
    return cvpo.make_vector_agent(BOX, ACTIONS, seeds=range(count), cost_limits=1.0, horizon=10, batch_size=4)


def test_a_step_that_one_member_refuses_no_member_has_stored() -> None:
    vector = members()
    obs = torch.zeros(3, 3)
    obs[2] = torch.nan
    for wrong, error in ((step(3, obs=obs), EnvError), (step(4), EnvError), (step(2), EnvError), ("step", ConfigError)):
        with pytest.raises(error, match="transition"):
            vector.observe(wrong)
    assert [agent.steps for agent in vector.agents] == [0, 0, 0]
    assert [len(agent.store) for agent in vector.agents] == [0, 0, 0]


def test_a_population_does_not_act_on_what_is_not_finite() -> None:
    with pytest.raises(EnvError, match="obs has non-finite values"):
        members(2).act(np.full((2, 3), np.nan))


@pytest.mark.parametrize("state", [{}, {"members": 3}, {"members": [{}, {}]}])
def test_a_population_says_what_is_no_state_of_it(state: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="population"):
        members(2).load_state_dict(state)


@pytest.mark.parametrize(
    "options",
    [
        {"limit_kind": "episode"},
        {"limit_kind": "step", "horizon_terminates": True},
        {"limit_kind": "discounted", "horizon_terminates": True},
        {"limit_kind": "discounted", "adaptive_horizon": False, "limit": {"name": "policy", "measure": "episode"}},
        {"limit_kind": "step", "adaptive_horizon": False, "limit": {"name": "policy", "measure": "episode"}},
    ],
)
def test_a_horizon_that_is_needed_and_missing_is_an_error(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="horizon is None"):
        cvpo.make_agent(BOX, ACTIONS, cost_limits=(1.0,), **options)
    cvpo.make_agent(BOX, ACTIONS, cost_limits=(1.0,), horizon=10, **options)
    cvpo.make_agent(BOX, ACTIONS, cost_limits=(), **options)


def test_an_environment_that_is_yet_to_be_made_has_no_horizon() -> None:
    agent = cvpo.make_agent(BOX, ACTIONS, cost_limits=(), env=lambda: None)
    assert agent.config.horizon is None


def test_numbers_that_json_has_no_words_for_are_null(tmp_path: Path) -> None:
    log = logs.JsonLines(tmp_path / "rows.jsonl")
    table = logs.CsvTable(tmp_path / "rows.csv", log.path)
    row = {"step": 1, "a": math.inf, "b": math.nan, "c": 0.5}
    log.append(row)
    table.append(row)
    log.close()
    assert log.path.read_text() == '{"step": 1, "a": null, "b": null, "c": 0.5}\n'
    assert table.path.read_text() == "step,a,b,c\n1,,,0.5\n"


@pytest.mark.parametrize("name", buffers.names())
def test_what_a_smaller_state_leaves_over_is_unwritten(name: str) -> None:
    spec, device = Spec(obs_size=3, action_size=2, signals=2, gamma=0.9), torch.device("cpu")
    config = buffers.create(name, capacity=16)
    small, used = (config.build(spec, 1, device, torch.Generator().manual_seed(0)) for _ in range(2))
    for count, store in ((4, small), (15, used)):
        for _ in range(count):
            store.add(step(1, obs=torch.full((1, 3), 7.0)))
    used.load_state_dict(small.state_dict())
    ring = getattr(used, "inner", used).ring
    assert ring.data["obs"][len(used) :].isnan().all() and not ring.data["obs"][: len(used)].isnan().any()


def test_arrays_without_axes_come_back_without_any(tmp_path: Path) -> None:
    checkpoint.write(tmp_path / "tree.safetensors", {"array": np.array(3.0), "tensor": torch.tensor(2)})
    found = checkpoint.read(tmp_path / "tree.safetensors")
    assert found["array"].shape == () and found["array"] == 3.0 and found["tensor"].shape == ()


@pytest.mark.parametrize("name", ["mlp", "quantile"])
def test_further_axes_and_empty_batches_of_a_population_of_critics(name: str) -> None:
    critic = critics.registry.create(name, hidden=(8,))
    for lead, population in (((), 1), ((2,), 2)):
        net = critic.build(3, 2, 2, population=population)
        obs, actions = torch.randn(*lead, 4, 5, 3), torch.randn(*lead, 4, 5, 6, 2)
        found = critic.evaluate(net, obs, actions)
        assert found.shape == (*lead, 4, 2, 5, 6)
        for i in range(4):
            at = (slice(None),) * len(lead) + (i,)
            torch.testing.assert_close(found[at], critic.evaluate(net, obs[at], actions[at]))
        empty = critic.evaluate(net, obs[..., 0, :0, :], actions[..., 0, :0, :, :])
        assert empty.shape == (*lead, 2, 0, 6)


def test_limits_without_costs_are_an_error_in_any_form() -> None:
    q = torch.randn(4, 3)
    for limit in ([0.3], torch.tensor([0.3]), np.array([0.3])):
        with pytest.raises(ProblemError, match="cost_limit"):
            DualProblem(q, None, limit, 0.1)
    for wrong in ("x", object()):
        with pytest.raises(ProblemError, match="cost_limit"):
            DualProblem(q, None, wrong, 0.1)  # type: ignore[arg-type]
    for nothing in (None, 0.3, np.float32(0.3), np.int64(1), [], np.zeros(0)):
        assert DualProblem(q, None, nothing, 0.1).costs == 0


def test_a_scale_that_is_no_tensor_is_named() -> None:
    with pytest.raises(ProblemError, match="scale is a float"):
        Gaussian(torch.zeros(2, 3), 1.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_cholesky_factors_may_be_of_half_precision(dtype: torch.dtype) -> None:
    wide = [Gaussian(torch.randn(4, 2), torch.eye(2).expand(4, 2, 2) * (1.0 + i)) for i in range(2)]
    half = [Gaussian(each.mean.to(dtype), each.scale.to(dtype)) for each in wide]
    found = half[0].kl(half[1])
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), wide[0].kl(wide[1]), rtol=0.05, atol=0.05)


def test_adam_owes_nothing_to_what_failed() -> None:
    problem = draw_problem(5, lead=(2,))
    adam = esteps.create("adam")
    q = problem.q_reward.clone()
    q[1] = torch.nan
    before = adam.solve(DualProblem(q, problem.q_cost, problem.cost_limit, 0.1))
    assert before.status[1] == Status.NONFINITE
    cold, warm = adam.solve(problem), adam.solve(problem, before)
    assert warm.eta[1] == cold.eta[1] and torch.equal(warm.lam[1], cold.lam[1])
    assert warm.eta[0] != cold.eta[0]


def test_a_member_of_a_population_observes_through_it() -> None:
    vector = members(2)
    with pytest.raises(ConfigError, match=r"VectorAgent\.observe"):
        vector.agents[0].observe(step(1))
    vector.observe(step(2))
    assert [agent.steps for agent in vector.agents] == [1, 1]


def test_limits_of_members_may_be_a_list_of_arrays() -> None:
    limits = [np.array([1.0]), np.array([2.0])]
    vector = cvpo.make_vector_agent(BOX, ACTIONS, seeds=(0, 1), cost_limits=limits, horizon=10)
    assert [list(agent.config.cost_limits) for agent in vector.agents] == [[1.0], [2.0]]


def test_what_a_configuration_file_would_change_is_refused() -> None:
    for value in ({1: 2}, [{"a": {None: 1}}]):
        with pytest.raises(ConfigError, match="option estep .* would come back as a string"):
            to_json({"estep": value})
    for name, value in (("task", 3), ("env", 3), ("cost_keys", 3)):
        with pytest.raises(ConfigError, match=f"^{name} is 3; allowed"):
            configure(**{name: value})


def test_a_store_without_a_state_is_named_when_it_is_to_be_saved(tmp_path: Path) -> None:
    agent = cvpo.make_agent(BOX, ACTIONS, cost_limits=(), horizon=10)
    agent.store = object()
    with pytest.raises(ConfigError, match="buffer object has no state_dict; .*replay=False"):
        agent.state_dict()
    assert "store" not in agent.state_dict(replay=False)

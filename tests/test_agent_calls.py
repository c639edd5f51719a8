"""Calls that cannot mean anything are errors of the library, which say what is allowed: agents, populations, parts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import attrs
import gymnasium
import numpy as np
import pytest
import torch

import cvpo
from cvpo import critics, mstep
from cvpo.critics.limits import to_q_scale
from cvpo.distributions import Gaussian
from cvpo.envs import make
from cvpo.errors import CheckpointError, ConfigError, CvpoError, EnvError, ProblemError
from cvpo.testing import check_estep_solver
from tests.fakes import SMALL, Line, line_agent

BOX = gymnasium.spaces.Box(-1.0, 1.0, (3,))


def mlp(**options: Any) -> Callable[[], Any]:
    return lambda: cvpo.make_agent(BOX, BOX, critic={"name": "mlp", **options})


class Undeclared:
    """A solver that does not say what it promises."""

    def solve(self, problem: Any, warm: Any = None) -> Any:
        return cvpo.estep.registry.create("newton").solve(problem, warm)


class FourTuple(Line):
    """As environments were before Gymnasium."""

    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, reward, terminated or truncated, info


CALLS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "learn": (
        lambda: line_agent()[0].learn(5, warmup=3),
        ConfigError,
        "no option 'warmup'; did you mean 'warmup_steps'",
    ),
    "cost none": (mlp(cost=None), ConfigError, "aggregation is None; allowed: min, max, mean, ucb"),
    "cost number": (mlp(cost=3), ConfigError, "aggregation is 3; allowed"),
    "cost of none": (mlp(cost=(None,)), ConfigError, "aggregation is None; allowed"),
    "two rewards": (mlp(reward=("min",)), ConfigError, r"MLPCritic.reward is \('min',\); allowed"),
    "reward list": (mlp(reward=["min"]), ConfigError, "aggregation is .*; allowed"),
    "optimism": (mlp(cost="ucb:-5"), ConfigError, "FACTOR is '-5'; allowed: ucb:FACTOR, a finite number >= 0"),
    "one width": (mlp(hidden=16), ConfigError, "MLPCritic.hidden is 16; allowed: a tuple of positive integers"),
    "width true": (mlp(hidden=(True,)), ConfigError, r"MLPCritic.hidden is \(True,\); allowed"),
    "given critic": (lambda: critics.registry.create("given", critic=3), ConfigError, "GivenCost.critic is 3; allowed"),
    "given none": (
        lambda: critics.registry.create("given", costs=None),
        ConfigError,
        "GivenCost.costs is None; allowed",
    ),
    "no start": (lambda: critics.schedules.create("linear", start=None), ConfigError, "Linear.start is None; allowed"),
    "text start": (lambda: critics.schedules.create("linear", start="7"), ConfigError, "Linear.start is '7'; allowed"),
    "four-tuple": (lambda: line_agent()[0].learn(3, env=FourTuple()), EnvError, "step returned a tuple of 4; allowed"),
    "no space": (lambda: cvpo.make_agent(None, BOX), EnvError, "observation space None is not supported"),
    "no action": (
        lambda: cvpo.make_agent(BOX, gymnasium.spaces.Box(-1.0, 1.0, (0,))),
        EnvError,
        "has no dimension; allowed: at least one",
    ),
    "one seed": (lambda: cvpo.make_vector_agent(BOX, BOX, seeds=3), ConfigError, "seeds is 3; allowed: a sequence"),
    "seed of many": (
        lambda: cvpo.make_vector_agent(BOX, BOX, seeds=(3,), seed=4),
        ConfigError,
        "make_vector_agent has no option 'seed', found 4; allowed: seeds",
    ),
    "no rows": (
        lambda: line_agent()[0].act(np.zeros((0, 3))),
        ConfigError,
        r"obs has shape \[0, 3\]; allowed: .* one row",
    ),
    "vector env": (
        lambda: make(gymnasium.vector.SyncVectorEnv([Line, Line]), horizon=20),
        ConfigError,
        r"task is a SyncVectorEnv, which is many at once; allowed: make\(task, num_envs=",
    ),
    "costs without limits": (
        lambda: line_agent(0)[0].learn(5, env=make(Line, horizon=20)),
        ConfigError,
        r"made for 0 costs .*, the environment .* has 1; .* cost_keys=\(\)",
    ),
    "a dict": (lambda: line_agent()[0].observe({}), ConfigError, "transition is a dict; allowed: a cvpo.Transition"),
    "nan": (lambda: line_agent()[0].act(np.full((1, 3), np.nan)), EnvError, "obs has non-finite values"),
    "empty state": (lambda: line_agent()[0].load_state_dict({}), CheckpointError, "does not fit.*it has no 'learner'"),
    "other costs": (
        lambda: line_agent(1)[0].load_state_dict(line_agent(2)[0].state_dict()),
        CheckpointError,
        "the state does not fit the agent: critic: ",
    ),
    "steps in words": (
        lambda: line_agent()[0].load_state_dict({**line_agent()[0].state_dict(), "steps": "many"}),
        CheckpointError,
        "the state does not fit the agent: steps: .*'many'",
    ),
    "no episodes": (lambda: to_q_scale(10.0, "episode", 0.99, []), ConfigError, r"horizon is \[\]; allowed: steps > 0"),
    "no steps": (lambda: to_q_scale(10.0, "episode", 0.99, 0), ConfigError, "horizon is 0; allowed: steps > 0"),
    "old policy": (
        lambda: mstep.registry.create("full").project(
            Gaussian(torch.full((1, 2), torch.nan), torch.ones(1, 2)), torch.zeros(1, 4, 2), torch.full((1, 4), 0.25)
        ),
        ProblemError,
        "the old policy is not finite",
    ),
    "no accuracy": (
        lambda: check_estep_solver(Undeclared(), examples=1),
        AssertionError,
        "Undeclared declares no accuracy",
    ),
    "population": (
        lambda: cvpo.evaluate(cvpo.VectorAgent([line_agent()[0]]), make(Line, horizon=20), 1),
        ConfigError,
        r"agent is a VectorAgent; allowed: .* member\(index\)",
    ),
    "no agent": (lambda: cvpo.evaluate(3, Line(), 1), ConfigError, "agent is a int; allowed: a cvpo.CVPO"),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_without_a_meaning_is_named(name: str) -> None:
    call, error, message = CALLS[name]
    with pytest.raises(error, match=message):
        call()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without an accelerator")
def test_a_device_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="device is 'cuda', but torch finds no CUDA device here; allowed: 'cpu'"):
        cvpo.make_agent(BOX, BOX, device="cuda")


@pytest.mark.parametrize("buffer", ["uniform", "nstep", "prioritized"])
def test_a_sample_of_nothing(buffer: str) -> None:
    agent, _ = line_agent(buffer=buffer)
    agent.learn(5)
    with pytest.raises(ConfigError, match="size of the sample is 0; allowed: an integer >= 1"):
        agent.store.sample(0)


def test_actions_of_one_size_with_other_bounds_are_other_actions() -> None:
    agent, _ = line_agent(1)
    with pytest.raises(ConfigError, match="made for the action space Box.* has Box"):
        agent.learn(5, env=gymnasium.wrappers.RescaleAction(Line(), -1.0, 1.0))


def test_a_member_of_a_population_is_not_trained_alone() -> None:
    agents = [line_agent(1, seed=seed)[0] for seed in range(2)]
    vector = cvpo.VectorAgent(agents)
    for call in (agents[0].update, lambda: agents[0].load_state_dict(agents[1].state_dict())):
        with pytest.raises(ConfigError, match="is a member of a VectorAgent; allowed"):
            call()
    with pytest.raises(ConfigError, match="is a member of a VectorAgent already"):
        cvpo.VectorAgent(agents)
    with pytest.raises(ConfigError, match=r"obs has shape \[3, 3\]; allowed: \[2·n, 3\]"):
        vector.act(np.zeros((3, 3), np.float32))
    with pytest.raises(ConfigError, match=r"actions has shape \[4, 2\]; allowed: \[2, 2\]"):
        vector.log_prob(np.zeros((2, 3), np.float32), torch.zeros(4, 2))


def test_numbers_of_numpy_are_numbers(tmp_path: Any) -> None:
    options = dict(horizon=np.int64(20), kl_epsilon=np.float32(0.25), batch_size=np.int32(16))
    agent = cvpo.make_agent(BOX, BOX, cost_limits=5.0, **{**SMALL, **options})
    assert type(agent.config.horizon) is int and type(agent.config.kl_epsilon) is float
    agent.save(tmp_path / "agent.safetensors")
    assert cvpo.load(tmp_path / "agent.safetensors").config == agent.config
    vector = cvpo.make_vector_agent(
        BOX,
        BOX,
        seeds=np.arange(2),
        cost_limits=np.array([[1.0], [2.0]]),
        kl_epsilon=np.array([0.1, 0.2]),
        horizon=9,
        **SMALL,
    )
    assert [member.config.cost_limits for member in vector.agents] == [(1.0,), (2.0,)]


def test_another_default_type_of_torch_changes_nothing() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        agent, env = line_agent(1)
        agent.learn(40, env=env, warmup_steps=20)
        sprint = make("cvpo/SprintDiscrete-v0")
        options = {**SMALL, "policy": {"name": "categorical", "hidden": (8,)}}
        discrete = cvpo.make_agent(
            sprint.observation_space, sprint.action_space, horizon=200, cost_limits=5.0, **options
        )
        discrete.learn(40, env=sprint, warmup_steps=20)
    finally:
        torch.set_default_dtype(torch.float32)
    for each in (agent, discrete):
        assert each.updates and next(each.policy.parameters()).dtype is torch.float32


def test_large_observations_are_finite() -> None:
    agent, _ = line_agent(1)
    step = cvpo.Transition(
        obs=torch.full((1, 3), 3e38),
        action=torch.zeros(1, 2),
        signals=torch.zeros(2, 1),
        next_obs=torch.zeros(1, 3),
        terminated=torch.tensor([False]),
        truncated=torch.tensor([False]),
    )
    agent.observe(step)
    with pytest.raises(EnvError, match="transition.obs has a non-finite value"):
        agent.observe(attrs.evolve(step, obs=torch.full((1, 3), torch.inf)))


def test_every_module_is_reached_by_its_name() -> None:
    for name in ("errors", "types", "registry", "checkpoint", "metrics", "cli", "run", "offline", "train"):
        assert getattr(cvpo, name).__name__ == f"cvpo.{name}"
    assert issubclass(cvpo.errors.ConfigError, CvpoError)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        cvpo.nothing  # noqa: B018 - looking is the test


@pytest.mark.parametrize(
    "line",
    [
        "import cvpo; cvpo.envs.register()",
        "from cvpo.envs import register; register()",
        "import hypothesis as h; was = repr(h.settings()); import cvpo.testing; assert repr(h.settings()) == was",
    ],
)
def test_the_first_line_of_a_program_may_be(line: str) -> None:
    """In processes of their own, and as in continuous integration, where hypothesis loads a profile by itself."""
    environment = {**os.environ, "CI": "true"}
    done = subprocess.run([sys.executable, "-c", line], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr

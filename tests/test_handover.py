"""What a part of an agent hands over is looked at before it is computed with: nothing is broadcast in silence."""

from __future__ import annotations

from typing import Any

import attrs
import gymnasium
import numpy as np
import pytest
import torch

import cvpo
from cvpo.buffers.uniform import UniformBuffer, UniformStore
from cvpo.critics.mlp import MLPCritic
from cvpo.envs import make
from cvpo.errors import ConfigError, EnvError
from cvpo.estep.newton import Newton
from cvpo.mstep.decoupled import Decoupled
from cvpo.types import Batch, Transition
from tests.fakes import SMALL, Line, line_agent


@attrs.frozen
class Critic(MLPCritic):
    """A critic whose ``wrong`` answers are spoilt."""

    wrong: str = ""

    def evaluate(self, net: Any, obs: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        q = super().evaluate(net, obs, actions)
        return {"cost": q[:1], "order": q.movedim(-3, -1)}.get(self.wrong, q)

    def loss(self, net: Any, batch: Batch, target: torch.Tensor) -> Any:
        loss, td = super().loss(net, batch, target)
        return {"td": (loss, td.mean()), "loss": (td, td), "alone": loss}.get(self.wrong, (loss, td))


@attrs.frozen
class Solver(Newton):
    """A solver whose solutions are spoilt."""

    wrong: str = ""

    def solve(self, problem: Any, warm: Any = None) -> Any:
        found = super().solve(problem, warm)
        return None if self.wrong == "none" else attrs.evolve(found, weights=found.weights.mean(0))


@attrs.frozen
class Projection(Decoupled):
    """A projection whose bounds or terms are spoilt."""

    wrong: Any = 0.1
    every: bool = False
    """Whether the objective is that of every particle."""

    def objective(self, old: Any, new: Any, actions: Any, weights: Any) -> Any:
        return weights * new.log_prob(actions) if self.every else super().objective(old, new, actions, weights)

    @property
    def bounds(self) -> Any:
        return {"mean": 0.1, **({self.wrong: 0.1} if isinstance(self.wrong, str) else {"cov": self.wrong})}

    def project(self, old: Any, actions: Any, weights: Any) -> Any:
        return None


@attrs.frozen
class Buffer(UniformBuffer):
    """A buffer whose samples are spoilt."""

    wrong: str = ""

    def build(self, *given: Any) -> Any:
        return Store(self, *given)


class Store(UniformStore):
    def sample(self, size: int) -> Any:
        batch = super().sample(size)
        return {
            "none": None,
            "half": super().sample(size // 2),
            "double": attrs.evolve(batch, obs=batch.obs.double()),
            "flags": attrs.evolve(batch, terminated=batch.terminated.float()),
            "column": attrs.evolve(batch, weight=batch.weight.unsqueeze(-1)),
        }[self.config.wrong]


HIDDEN = SMALL["critic"]["hidden"]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"critic": Critic(HIDDEN, wrong="cost")},
            r"critic's V of next states has shape \[1, 32\]; allowed: \[2, 32\]",
        ),
        ({"critic": Critic(HIDDEN, wrong="order")}, "critic's V of next states has shape"),
        ({"critic": Critic(HIDDEN, wrong="td")}, r"critic's TD errors has shape \[\]; allowed: \[32\]"),
        ({"critic": Critic(HIDDEN, wrong="loss")}, r"critic's loss has shape \[32\]; allowed: \[\]"),
        (
            {"critic": Critic(HIDDEN, wrong="alone")},
            "what critic.loss gives, .* is a Tensor; allowed: a tuple of the two",
        ),
        ({"estep": Solver(wrong="none")}, "weights of the E-step's solution is a NoneType; allowed: a tensor"),
        ({"estep": Solver(wrong="mean")}, r"weights of the E-step's solution has shape \[8\]; allowed: \[32, 8\]"),
        ({"mstep": Projection(wrong="covv")}, r"kl gives \['cov', 'mean'\]; allowed: .*'covv'"),
        ({"mstep": Projection(every=True)}, r"projection's objective has shape \[32, 8\]; allowed: \[32\]"),
        ({"mstep": Projection(), "fit": "regression"}, "project gives a NoneType; allowed: a distribution"),
        ({"buffer": Buffer(wrong="none")}, "obs of the buffer's sample is a NoneType; allowed: a tensor"),
        ({"buffer": Buffer(wrong="half")}, r"obs of the buffer's sample has shape \[16, 3\]; allowed: \[32, 3\]"),
        ({"buffer": Buffer(wrong="double")}, "obs of the buffer's sample is torch.float64; allowed: torch.float32"),
        ({"buffer": Buffer(wrong="flags")}, "terminated of the buffer's sample is torch.float32; allowed: torch.bool"),
        ({"buffer": Buffer(wrong="column")}, r"weight of the buffer's sample has shape \[32, 1\]; allowed: \[32\]"),
    ],
)
def test_a_part_that_hands_over_something_else_is_named(parts: dict[str, Any], message: str) -> None:
    agent, _ = line_agent(1, **parts)
    with pytest.raises(ConfigError, match=message):
        agent.learn(60, warmup_steps=40)


@attrs.frozen
class Nothing(UniformBuffer):
    """Builds nothing."""

    discrete = False

    def evaluate(self) -> None: ...

    def loss(self) -> None: ...

    def build(self, *given: Any, **named: Any) -> None:
        return None


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("critic", "what critic.build gives is a NoneType; allowed: a torch.nn.Module"),
        ("policy", "what policy.build gives is a NoneType; allowed: a torch.nn.Module"),
        ("buffer", "what buffer.build gives is a NoneType, which has no add and no sample and no reprioritise"),
        ("states", "what states.build gives is a NoneType, which has no add and no select; allowed"),
    ],
)
def test_a_part_that_builds_nothing_is_named(part: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        line_agent(1, **{part: Nothing()})


@pytest.mark.parametrize("bound", [0.0, -1.0, np.inf, np.nan])
@pytest.mark.parametrize("fit", ["likelihood", "regression"])
def test_a_bound_that_bounds_nothing_is_named(fit: str, bound: float) -> None:
    with pytest.raises(ConfigError, match="Projection.bounds is .* positive and finite"):
        line_agent(1, mstep=Projection(wrong=bound), fit=fit)


def test_of_a_population_too() -> None:
    env = make(lambda: Line(1), num_envs=2, seed=3, horizon=20)
    spaces = env.observation_space, env.action_space
    critic = Critic(HIDDEN, wrong="cost")
    agent = cvpo.make_vector_agent(*spaces, seeds=(0, 1), cost_limits=5.0, horizon=20, **{**SMALL, "critic": critic})
    with pytest.raises(ConfigError, match=r"V of next states has shape \[1, 2, 32\]; allowed: \[2, 2, 32\]"):
        agent.learn(60, env, warmup_steps=40)


def test_an_environment_with_other_spaces_is_not_evaluated_on() -> None:
    agent, _ = line_agent(1)
    other = make(lambda: Line(1), horizon=20)
    other.action_space = gymnasium.spaces.Box(-9.0, 9.0, (2,))
    with pytest.raises(ConfigError, match="made for the action space Box.*, the environment .* has Box"):
        cvpo.evaluate(agent, other, 1)
    with pytest.raises(ConfigError, match="made for observation size 3, .* has 4"):
        cvpo.evaluate(agent, make("cvpo/Sprint-v0"), 1)
    with pytest.raises(ConfigError, match="the agent has 1 cost limits, .* 0 costs; allowed"):
        cvpo.evaluate(agent, make(lambda: Line(0), cost_keys=(), horizon=20), 1)
    # Costs beyond the limits are reported.
    assert cvpo.evaluate(agent, make(lambda: Line(2), cost_keys=("cost", "cost_energy"), horizon=20), 1).costs.size == 2


def test_what_is_finite_in_double_precision_alone_is_not() -> None:
    agent, _ = line_agent(1)
    step = dict(obs=torch.zeros(1, 3), action=torch.zeros(1, 2), next_obs=torch.zeros(1, 3))
    flags = dict(terminated=torch.tensor([False]), truncated=torch.tensor([False]))
    with pytest.raises(EnvError, match="transition.signals has a non-finite value"):
        agent.observe(Transition(signals=torch.tensor([[0.0], [1e39]], dtype=torch.float64), **step, **flags))
    assert not len(agent.store)


def test_gradients_do_not_go_into_replay() -> None:
    agent, _ = line_agent(1)
    obs, flag = torch.zeros(1, 3), torch.tensor([False])
    with pytest.raises(EnvError, match="transition.obs requires gradients; allowed: values"):
        agent.observe(Transition(obs.requires_grad_(), torch.zeros(1, 2), torch.zeros(2, 1), obs, flag, flag))
    assert not len(agent.store)


@pytest.mark.parametrize("action", [[0.3, 0.3, 9.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
def test_a_discrete_action_is_one_hot(action: list[float]) -> None:
    box, choices = gymnasium.spaces.Box(-1.0, 1.0, (3,)), gymnasium.spaces.Discrete(3)
    agent = cvpo.make_agent(box, choices, horizon=9, cost_limits=1.0, critic=SMALL["critic"])
    obs, flags = torch.zeros(1, 3), torch.tensor([False])
    with pytest.raises(EnvError, match="transition.action is .* allowed: a 1 in each row"):
        agent.observe(Transition(obs, torch.tensor([action]), torch.zeros(2, 1), obs, flags, flags))

"""The public contract holds for every registered policy, and fails for every deliberately wrong one; an agent looks at
what a policy's network gives when it is made."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import attrs
import gymnasium
import pytest
import torch
from torch import nn

import cvpo
from cvpo import policy
from cvpo.distributions import Categorical, Gaussian
from cvpo.errors import ConfigError, CvpoError
from cvpo.policy import CholeskyPolicy, DiagonalPolicy
from cvpo.testing import check_policy
from tests.fakes import SMALL, line_agent

SIZES = {"hidden": (8, 8)}


@pytest.mark.parametrize("name", policy.registry.names())
def test_every_registered_policy_keeps_the_contract(name: str) -> None:
    check_policy(policy.registry.create(name, **SIZES))


def test_so_do_other_choices() -> None:
    check_policy(DiagonalPolicy(**SIZES, state_dependent=False, mean="free", layer_norm=True), examples=8)
    check_policy(CholeskyPolicy(**SIZES, state_dependent=False, activation="tanh"), examples=8)


class Net(nn.Module):
    """One linear layer to what ``give`` makes of its outputs."""

    def __init__(self, give: Any, sizes: tuple[int, int], population: int, generator: Any) -> None:
        super().__init__()
        lead = (population,) if population > 1 else ()
        self.weight = nn.Parameter(0.3 * torch.randn((*lead, *sizes), generator=generator))
        self.scale = nn.Parameter(torch.zeros((*lead, 1, sizes[1])))
        self.give = give

    def forward(self, obs: torch.Tensor) -> Any:
        return self.give(torch.tanh(obs @ self.weight), self.scale.exp())


@attrs.frozen
class Linear:
    """The smallest policy of one's own."""

    give: Any = lambda mean, scale: Gaussian(mean, scale.expand_as(mean))
    seeded: bool = True
    discrete: bool = False
    keeps: bool = False
    """Whether the network has a buffer in its state."""

    def build(self, obs_size: int, action_size: int, population: int = 1, generator: Any = None) -> Net:
        net = Net(self.give, (obs_size, action_size), population, generator if self.seeded else None)
        if self.keeps:
            net.register_buffer("centre", torch.zeros(obs_size))
        return net


class Shy(Gaussian):
    """Says less entropy than there is."""

    def entropy(self) -> torch.Tensor:
        return super().entropy() - 1.0


class Told(Gaussian):
    """Whose samples carry a gradient."""

    def sample(self, count: int, generator: Any = None) -> torch.Tensor:
        return super().sample(count, generator) + 0.0 * self.mean.unsqueeze(-2)


class Bare:
    """What one may think that a distribution needs."""

    kind = "gaussian"

    def __init__(self, mean: torch.Tensor, scale: torch.Tensor) -> None:
        self.mean, self.scale = mean, scale.expand_as(mean)
        self.mode = mean

    def sample(self, count: int, generator: Any = None) -> torch.Tensor:
        return self.mean.unsqueeze(-2).expand(*self.mean.shape[:-1], count, -1)

    def log_prob(self, actions: torch.Tensor) -> torch.Tensor:
        return actions.sum(-1)

    def entropy(self) -> torch.Tensor:
        return self.scale.sum(-1)


WRONG: dict[str, tuple[Any, str]] = {
    "unseeded": (Linear(seeded=False), "a network from the same generator has other parameters"),
    "batch": (
        Linear(lambda m, s: Gaussian(m - m.mean(-2, keepdim=True), s.expand_as(m))),
        "the first observation alone",
    ),
    "negative": (Linear(lambda m, s: Gaussian(m, -s.expand_as(m))), "deviations of 0 or less"),
    "entropy": (Linear(lambda m, s: Shy(m, s.expand_as(m))), "entropy says"),
    "gradient": (Linear(lambda m, s: Told(m, s.expand_as(m))), "samples carry a gradient"),
    "fixed": (Linear(lambda m, s: Gaussian(m, torch.ones_like(m))), r"does not reach the parameters \['scale'\]"),
    "double": (Linear(lambda m, s: Gaussian(m.double(), s.expand_as(m).double())), "allowed: torch.float32"),
    "blind": (
        Linear(lambda m, s: Gaussian(m.detach() + 0.0 * m, s.expand_as(m))),
        r"does not reach the parameters \['weight'\]",
    ),
    "flat": (
        Linear(lambda m, s: Gaussian(m if m.shape[-1] > 1 else m.squeeze(-1), s.expand_as(m))),
        "allowed: that of the mean|fails for observations|a mode of shape",
    ),
    "remembers": (Linear(keeps=True), "the policy has buffers in its state; allowed in a population: parameters only"),
    "shared": (
        Linear(lambda m, s: Gaussian(m if m.ndim == 2 else m[:1].expand_as(m), s.expand_as(m))),
        "two batches of the same|member 1 of a population",
    ),
}


def test_a_policy_of_one_s_own_keeps_it_and_learns() -> None:
    check_policy(Linear(), examples=8)
    agent, _ = line_agent(1, policy=Linear())
    agent.learn(60, warmup_steps=40)
    assert agent.updates > 0


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_policy_is_found(name: str) -> None:
    wrong, message = WRONG[name]
    with pytest.raises(AssertionError, match=message):
        check_policy(wrong, examples=8)


def _torch_normal(mean: torch.Tensor, scale: torch.Tensor) -> Any:
    return torch.distributions.Normal(mean, scale)


@pytest.mark.parametrize(
    ("give", "message"),
    [
        (
            _torch_normal,
            r"is a torch.distributions.normal.Normal, which has no kind and no kl.*; allowed: cvpo.distributions",
        ),
        (lambda m, s: m, "is a torch.Tensor, which has no kind and no"),
        (lambda m, s: (m, s), "is a builtins.tuple, which has no kind and no mode and no sample"),
        (lambda m, s: Categorical(m), "of the kind 'categorical'; allowed for these actions: 'gaussian'"),
        (
            lambda m, s: Gaussian(m[..., :1], s[..., :1].expand_as(m[..., :1])),
            r"a mode of shape \[2, 1\] for .*: \[2, 2\]",
        ),
        (lambda m, s: Gaussian(m, -s.expand_as(m)), "Gaussian with deviations of 0 or less; allowed: > 0"),
        (lambda m, s: m.reshape(7, 7), r"the policy's network fails for observations \[2, 3\]: RuntimeError"),
        (Bare, "which has no kl and no detach and no to and no is_diagonal; allowed"),
    ],
)
def test_an_agent_looks_at_what_the_network_gives(give: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        line_agent(1, policy=Linear(give))


def test_of_discrete_actions_too() -> None:
    box, choices = gymnasium.spaces.Box(-1.0, 1.0, (3,)), gymnasium.spaces.Discrete(3)
    given = Linear(lambda m, s: Gaussian(m, s.expand_as(m)), discrete=True)
    with pytest.raises(CvpoError, match="of the kind 'gaussian'; allowed for these actions: 'categorical'"):
        cvpo.make_agent(box, choices, horizon=9, critic=SMALL["critic"], policy=given)


class Noticing(Net):
    """Counts how often it is called in training, as dropout and running means would notice it."""

    seen: ClassVar[int] = 0

    def forward(self, obs: torch.Tensor) -> Any:
        Noticing.seen += self.training
        return super().forward(obs)


class Frozen(Net):
    """With a part that its owner has frozen, and one that has no distribution for an observation of 0."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.part = nn.BatchNorm1d(3).eval()

    def forward(self, obs: torch.Tensor) -> Any:
        return super().forward(obs / obs.norm(dim=-1, keepdim=True))


def test_what_is_frozen_stays_so_and_observations_of_0_need_not_be_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.test_policy_contract.Net", Frozen)
    agent, _ = line_agent(1, policy=Linear())
    assert agent.policy.training and not agent.policy.part.training and not agent.learner.old_policy.part.training


def test_the_look_is_not_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.test_policy_contract.Net", Noticing)
    agent, _ = line_agent(1, policy=Linear())
    assert isinstance(agent.policy, Noticing) and Noticing.seen == 0 and agent.policy.training


def test_the_example_of_the_documentation_runs() -> None:
    page = (Path(__file__).parents[1] / "docs" / "composing.md").read_text()
    (example,) = re.findall(r"## A policy of your own.*?```python\n(.*?)```", page, flags=re.DOTALL)
    scope: dict[str, Any] = {"__name__": __name__}
    exec(compile(example, "docs/composing.md", "exec"), scope)  # noqa: S102 - the page is ours
    assert scope["agent"].updates == 10
    env = scope["env"]
    together = cvpo.make_vector_agent(
        env.observation_space, env.action_space, seeds=(0, 1), cost_limits=25.0, horizon=100, policy=scope["Linear"]()
    )
    assert together.policy.weight.shape == (2, env.observation_space.shape[0], env.action_space.shape[0])

"""A known cost in the place of a learned one: exact where it is given, learned where it is not."""

from __future__ import annotations

import pytest
import torch

from cvpo import critics
from cvpo.critics.given import GivenCost
from cvpo.errors import ConfigError
from cvpo.testing import check_critic
from tests.critics.test_critics import ACT, OBS, batch
from tests.fakes import line_agent

INNER = {"name": "mlp", "hidden": (8,)}


def effort(obs: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    """Σ_j a_j² + o_0."""
    return actions.square().sum(-1) + obs[..., :1]


def test_the_given_cost_is_exact_and_the_others_are_the_critics() -> None:
    critic = GivenCost((effort, None), critic=INNER)
    net = critic.build(OBS, ACT, 3, generator=torch.Generator().manual_seed(0))
    obs, actions = torch.randn(6, OBS), torch.randn(6, 4, ACT)
    q = critic.evaluate(net, obs, actions)
    learned = critics.registry.resolve(INNER).evaluate(net, obs, actions)
    assert learned.shape[0] == 2
    torch.testing.assert_close(q, torch.stack([learned[0], effort(obs, actions), learned[1]]))


def test_its_target_teaches_nobody() -> None:
    critic = GivenCost((None, effort), critic=INNER)
    net = critic.build(OBS, ACT, 3, generator=torch.Generator().manual_seed(0))
    target = torch.randn(3, 6)
    loss, td = critic.loss(net, batch(), target)
    moved = target.clone()
    moved[2] += 100.0
    again, same = critic.loss(net, batch(), moved)
    assert torch.equal(loss, again) and torch.equal(td, same)
    moved[1] += 1.0
    assert critic.loss(net, batch(), moved)[0] != loss


class Untold(GivenCost):
    """A critic that does not say what it does not learn."""

    given = ()


def energy(obs: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    """Σ_j a_j²: about 0.5 under a fresh policy, of two dimensions with standard deviation 0.5."""
    return actions.square().sum(-1)


@pytest.mark.parametrize("inner", [INNER, {"name": "quantile", "hidden": (8,)}])
def test_it_keeps_the_contract_of_critics(inner: dict) -> None:
    """A cost that is given need not be the value of its rewards; what is learned must."""
    check_critic(GivenCost((None, effort), critic={**inner, "hidden": (32,)}), examples=5)
    with pytest.raises(AssertionError, match="signal 2"):
        check_critic(Untold((None, effort), critic={**inner, "hidden": (32,)}), examples=5)


@pytest.mark.parametrize("inner", [INNER, {"name": "quantile", "hidden": (8,)}])
def test_an_agent_is_held_to_it(inner: dict) -> None:
    """The E-step's limit is met by the given cost itself, from the first update on."""
    agent, _ = line_agent(
        1,
        critic={"name": "given", "costs": (f"{__name__}:energy",), "critic": inner},
        limit="q",
        limit_kind="discounted",
        cost_limits=(0.36,),
        kl_epsilon=0.1,
    )
    agent.learn(60, warmup_steps=40, updates_per_step=0.0)
    metrics = agent.update()
    assert metrics["estep/ok"] == 1.0 and metrics["estep/cost_0"] <= 0.36 + 1e-4
    assert metrics["estep/lam_0"] > 0.0


def test_errors_name_what_is_wrong() -> None:
    with pytest.raises(ConfigError, match="cost function 'no.such:thing' cannot be imported"):
        GivenCost(("no.such:thing",))
    with pytest.raises(ConfigError, match="costs has 1 entries; allowed: one for each of 2"):
        GivenCost((effort,)).build(OBS, ACT, 3)


def test_a_cost_function_of_another_shape_is_named_and_a_path_is_one_function() -> None:
    def flat(obs: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        return obs.sum(-1)

    agent, _ = line_agent(1, critic={"name": "given", "costs": flat})
    agent.learn(30, warmup_steps=30, updates_per_step=0.0)
    with pytest.raises(ConfigError, match="cost function 'flat' gives .* has shape .* allowed"):
        agent.update()
    with pytest.raises(ConfigError, match="cost function 'nowhere:effort' cannot be imported"):
        line_agent(1, critic={"name": "given", "costs": "nowhere:effort"})

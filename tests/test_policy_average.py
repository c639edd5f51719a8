"""The policy that is handed over: an average of the policies along training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import cvpo
from cvpo.envs import make
from cvpo.errors import ConfigError
from tests.fakes import COST_KEYS, Line, line_agent


def parameters(net: Any) -> list[torch.Tensor]:
    return [each.detach().clone() for each in net.parameters()]


def started(**options: Any) -> tuple[cvpo.CVPO, Any]:
    agent, env = line_agent(**options)
    cvpo.learn(agent, 40, env, warmup_steps=40)
    return agent, env


def test_the_mean_policy_is_an_average_over_a_share_of_the_updates():
    agent, _ = started(policy_average=0.5)
    expected = parameters(agent.policy)
    for n in range(1, 9):
        agent.update()
        now = parameters(agent.policy)
        rate = 1 / max(1.0, 0.5 * n)
        expected = [mean + rate * (current - mean) for mean, current in zip(expected, now, strict=True)]
        torch.testing.assert_close(parameters(agent.learner.mean_policy), expected)
        if n <= 2:
            assert all(map(torch.equal, parameters(agent.learner.mean_policy), now))
    # Seven updates of a policy on its way: the mean is behind.
    assert not all(map(torch.equal, parameters(agent.learner.mean_policy), now))


def test_updates_without_a_policy_do_not_count():
    agent, _ = started(policy_average=0.5, critic_warmup=3)
    for _ in range(5):
        agent.update()
    # The fifth update is the second of the policy's.
    assert all(map(torch.equal, parameters(agent.learner.mean_policy), parameters(agent.policy)))


def test_evaluation_and_prediction_act_by_the_mean_policy_and_exploration_by_the_newest():
    agent, env = started(policy_average=0.5)
    with torch.no_grad():
        for each in agent.learner.mean_policy.parameters():
            each.zero_()
    obs = np.full((1, 3), 0.5, np.float32)
    still = agent.door.to_env(np.zeros((1, agent.spec.action_size), np.float32))[0]
    np.testing.assert_allclose(agent.predict(obs[0])[0], still, atol=1e-6)
    assert float(agent.act(obs, handed_over=True, deterministic=True).abs().max()) == 0.0
    newest = agent.policy(agent.inputs(torch.from_numpy(obs))).mode.detach()
    assert torch.equal(agent.act(obs, deterministic=True), newest) and float(newest.abs().max()) > 0.0

    plain, _ = started()
    with torch.no_grad():
        for each in plain.policy.parameters():
            each.zero_()
    scores = [cvpo.evaluate(each, env_of(each), episodes=2, seed=5).summary() for each in (agent, plain)]
    assert scores[0] == scores[1]


def env_of(agent: cvpo.CVPO) -> Any:
    return make(lambda: Line(1), num_envs=1, seed=7, cost_keys=COST_KEYS[1], horizon=20)


def test_without_it_the_newest_policy_is_handed_over():
    agent, _ = started()
    assert agent.handed_over is agent.policy
    assert "mean_policy" not in agent.learner.state_dict()


def test_learning_is_the_same_with_and_without():
    agents = [started(**options)[0] for options in ({}, {"policy_average": 0.5})]
    for _ in range(5):
        metrics = [agent.update() for agent in agents]
        assert all(torch.equal(metrics[0][name], metrics[1][name]) for name in metrics[0])
    assert all(map(torch.equal, parameters(agents[0].policy), parameters(agents[1].policy)))


@pytest.mark.parametrize("share", [-0.1, 1.0, "half"])
def test_a_share_that_is_none(share: Any):
    with pytest.raises(ConfigError, match="policy_average"):
        line_agent(policy_average=share)

"""A population: every member is the agent that it would be alone, whatever the others do."""

from __future__ import annotations

import copy
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cvpo
from cvpo.errors import CheckpointError, ConfigError
from cvpo.estep import Status
from tests.fakes import SMALL
from tests.populations import check_equal, check_updates, line, population, sprint, trained

SIZES = {"hidden": (16, 16)}
DISCRETE = {"policy": {"name": "categorical", **SIZES}, "mstep": "full"}


def near(obs: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    """A cost that is known."""
    return obs[..., :1] + actions.square().sum(-1)


@pytest.mark.parametrize(
    ("costs", "options"),
    [
        (0, {}),
        (1, {"members": 1}),
        (1, {"critic": {"name": "quantile", **SIZES}, "estep": "slsqp", "fit": "regression", "level_rate": 0.01}),
        (1, {"policy": {"name": "cholesky", **SIZES}, "fit": "regression", "normalise_obs": True, "warm_start": False}),
        (1, {"mstep": {"name": "full", "average": "state"}, "fit": {"name": "likelihood", "max_grad_norm": 1.0}}),
        (1, {"level_rate": 0.01, "members": 2}),
        (1, {"critic_warmup": 4, "policy_average": 0.5}),
        (
            1,
            {
                "old_policy": "copy",
                "estep_critic": "online",
                "td_critic": "online",
                "target_policy": "online",
                "buffer": "prioritized",
            },
        ),
        (1, {"limit": {"name": "policy", "measure": "critic"}, "estep": "adam"}),
        (1, {"limit": "calibrated", "states": "replay", "estep": {"name": "newton", "check_every": None}}),
        (1, {"buffer": {"name": "nstep", "steps": 3, "windows": True}, "returns": "retrace"}),
        (2, {"cost_limits": [(5.0, 4.0), (1.0, 9.0), (50.0, 0.1)], "kl_epsilon": [0.1, 0.05, 0.2]}),
        (
            2,
            {
                "critic": {"name": "given", "costs": (near, None), "critic": {"name": "mlp", **SIZES}},
                "limit": "q",
                "level_rate": 0.01,
            },
        ),
    ],
)
def test_members_update_as_they_would_alone(costs: int, options: dict[str, Any]):
    vector, singles = population(costs, **options)
    trained(vector, singles)
    check_updates(vector, singles)


def test_members_with_discrete_actions_update_as_they_would_alone():
    vector, singles = population(1, task=sprint, **DISCRETE)
    trained(vector, singles, sprint)
    check_updates(vector, singles)


def test_a_fresh_population_is_fresh_agents():
    vector, singles = population()
    for p, single in enumerate(singles):
        for name in vector.learner.networks:
            pairs = zip(*(getattr(a.learner, name).parameters() for a in (vector.member(p), single)), strict=True)
            assert all(torch.equal(a, b) for a, b in pairs)
    stacked = vector.learner.critic.mlp.head.weight
    assert stacked.shape[0] == 3 * 2 * 2 and not torch.equal(stacked[:4], stacked[4:8])


@pytest.mark.parametrize("broken", ["infeasible", "nan"])
def test_a_member_in_trouble_does_not_disturb_the_others(broken: str):
    vector, singles = population(1, limit="q", cost_limits=0.5, limit_kind="discounted")
    trained(vector, singles)
    value = 10.0 if broken == "infeasible" else math.nan
    with torch.no_grad():
        # The costs' networks of member 1, through the stack and alone.
        vector.learner.target_critic.mlp.head.bias[6:8] = value
        singles[1].learner.target_critic.mlp.head.bias[2:] = value
    metrics = vector.update()
    wanted = Status.INFEASIBLE if broken == "infeasible" else Status.NONFINITE
    assert metrics[f"estep/{wanted.name.lower()}"].tolist() == [0.0, 1.0, 0.0]
    for single in singles:
        single.update()
    if broken == "infeasible":
        check_equal(vector, singles)
        check_updates(vector, singles, 2)
        return
    for p in (0, 2):
        for a, b in zip(vector.member(p).policy.parameters(), singles[p].policy.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_the_state_goes_around_and_the_next_update_is_the_same():
    vector, singles = population(2)
    trained(vector, singles)
    vector.update()
    other, _ = population(2)
    other.load_state_dict(vector.state_dict())
    for _ in range(2):
        ours, theirs = vector.update(), other.update()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert other.steps == vector.steps == 80 and other.updates == vector.updates == 7


def test_a_member_that_there_is_not():
    vector, _ = population()
    with pytest.raises(cvpo.ConfigError, match="index is 9; allowed: a member of the population, 0 to"):
        vector.member(9)


def test_a_member_is_an_agent_of_its_own(tmp_path):
    vector, singles = population()
    trained(vector, singles)
    member = vector.member(1)
    before = [p.clone() for p in member.policy.parameters()]
    vector.update()
    assert all(torch.equal(a, b) for a, b in zip(before, member.policy.parameters(), strict=True))
    member.update()
    for a, b in zip(member.policy.parameters(), vector.member(1).policy.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    member.save(tmp_path / "member.safetensors")
    loaded = cvpo.load(tmp_path / "member.safetensors")
    obs = np.zeros(3, np.float32)
    np.testing.assert_array_equal(loaded.predict(obs)[0], vector.agents[1].predict(obs)[0])
    assert np.isfinite(cvpo.evaluate(member, line(1), 2).returns).all()


def test_agents_that_have_learned_alone_go_on_together():
    _, singles = population()
    for p, single in enumerate(singles):
        cvpo.learn(single, 80, line(1, seed=p), warmup_steps=60, updates_per_step=0.2)
    vector = cvpo.VectorAgent(copy.deepcopy(singles))
    assert vector.updates == 4
    check_updates(vector, singles, 2)


@pytest.mark.parametrize("buffer", ["uniform", "nstep", "prioritized"])
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda vector: pickle.loads(pickle.dumps(vector))])
def test_a_copy_learns_as_the_original_does(copied: Any, buffer: str) -> None:
    vector, _ = population(buffer=buffer)
    cvpo.learn(vector, 80, [line(1, seed=p) for p in range(3)], warmup_steps=60, updates_per_step=0.2)
    other = copied(vector)
    for each in (vector, other):
        cvpo.learn(each, 40, [line(1, seed=9 + p) for p in range(3)], updates_per_step=0.2)
    check_equal(vector, [other.member(p) for p in range(3)], tolerance=0.0)
    check_equal(copied(other), [vector.member(p) for p in range(3)], tolerance=0.0)


def test_a_population_s_networks_take_as_many_problems() -> None:
    vector, _ = population()
    for shape in ((4, 5, 3), (1, 5, 3), (3, 3)):
        with pytest.raises(ConfigError, match=r"obs has shape .*; allowed: \[3, ..., B, O\]"):
            vector.policy(torch.zeros(shape))
        with pytest.raises(ConfigError, match=r"obs has shape .*; allowed"):
            vector.learner.critic(torch.zeros(shape), torch.zeros(*shape[:-1], 4, 2))


def test_what_does_not_go_together_is_an_error():
    with pytest.raises(ConfigError, match="agents is a int; allowed"):
        cvpo.VectorAgent(3)
    env = line(1)
    spaces = env.observation_space, env.action_space
    given = dict(SMALL, horizon=20, num_envs=2)
    agents = [cvpo.make_agent(*spaces, seed=p, cost_limits=5.0, **{**given, "particles": 8 + p}) for p in range(2)]
    with pytest.raises(ConfigError, match="particles is 8 and 9"):
        cvpo.VectorAgent(agents)
    with pytest.raises(ConfigError, match="at least one"):
        cvpo.VectorAgent([])
    with pytest.raises(ConfigError, match="agents has one agent twice"):
        cvpo.VectorAgent(agents[:1] * 2)
    with pytest.raises(ConfigError, match="agents has one of type int; allowed: CVPO agents"):
        cvpo.VectorAgent([*agents[:1], 3])
    with pytest.raises(ConfigError, match="cost_limits has 2 entries for 3 seeds"):
        cvpo.make_vector_agent(*spaces, seeds=(0, 1, 2), cost_limits=[(5.0,), (1.0,)], **given)
    with pytest.raises(ConfigError, match="cost_limits has 1 and 2 entries"):
        cvpo.make_vector_agent(*spaces, seeds=(0, 1), cost_limits=[(5.0,), (1.0, 2.0)], **given)
    with pytest.raises(ConfigError, match="seeds is empty"):
        cvpo.make_vector_agent(*spaces, seeds=(), **given)
    vector, singles = population()
    with pytest.raises(CheckpointError, match="of 1 members"):
        vector.load_state_dict({"members": [singles[0].state_dict()]})
    cvpo.learn(singles[0], 80, line(1), warmup_steps=60, updates_per_step=0.2)
    with pytest.raises(CheckpointError, match="updates"):
        vector.load_state_dict({"members": [single.state_dict() for single in singles]})


def test_what_a_population_has_taken_over_is_saved_by_the_population(tmp_path: Path) -> None:
    vector, _ = population(1, members=2)
    with pytest.raises(ConfigError, match=r"VectorAgent.member\(index\).save"):
        vector.agents[0].save(tmp_path / "member")
    vector.member(0).save(tmp_path / "member")
    assert cvpo.load(tmp_path / "member").seed == 0

"""Populations, and the agents that their members would be alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import cvpo
from cvpo.envs import make
from cvpo.estep.slsqp import Slsqp
from tests.fakes import COST_KEYS, SMALL, Line


def line(costs: int, seed: int = 0, num_envs: int = 2) -> Any:
    return make(lambda: Line(costs), num_envs=num_envs, seed=seed, cost_keys=COST_KEYS[costs], horizon=20)


def sprint(costs: int, seed: int = 0, num_envs: int = 2) -> Any:
    return make("cvpo/SprintDiscrete-v0", num_envs=num_envs, seed=seed)


def population(costs: int = 1, members: int = 3, task: Any = line, **options: Any) -> tuple[Any, list[cvpo.CVPO]]:
    """A population, and the agents with the same seeds alone."""
    env = task(costs)
    given: dict[str, Any] = {
        **SMALL,
        "cost_limits": (5.0, 4.0)[:costs],
        "num_envs": 2,
        "horizon": env.horizon,
        **options,
    }
    spaces = env.observation_space, env.action_space
    vector = cvpo.make_vector_agent(*spaces, seeds=range(members), **given)
    singles = []
    for p in range(members):
        own = dict(given)
        if isinstance(given["cost_limits"], list):
            own["cost_limits"] = given["cost_limits"][p]
        if isinstance(given.get("kl_epsilon"), list):
            own["kl_epsilon"] = given["kl_epsilon"][p]
        singles.append(cvpo.make_agent(*spaces, seed=p, **own))
    return vector, singles


def trained(vector: Any, singles: list[cvpo.CVPO], task: Any = line, steps: int = 80) -> None:
    """Train each agent alone for a few updates, and give the population their states."""
    costs = len(vector.config.cost_limits)
    for p, single in enumerate(singles):
        cvpo.learn(single, steps, task(costs, seed=p), warmup_steps=60, updates_per_step=0.2)
    vector.load_state_dict({"members": [single.state_dict() for single in singles]})


def check_equal(vector: Any, singles: list[cvpo.CVPO], tolerance: float = 1e-5) -> None:
    close = dict(rtol=tolerance, atol=tolerance)
    for p, single in enumerate(singles):
        member = vector.member(p)
        for name in vector.learner.networks:
            ours, theirs = (getattr(agent.learner, name).parameters() for agent in (member, single))
            for a, b in zip(ours, theirs, strict=True):
                torch.testing.assert_close(a, b, **close)
        torch.testing.assert_close(member.learner.fit.alpha, single.learner.fit.alpha, **close)
        ours, theirs = member.learner.solution, single.learner.solution
        torch.testing.assert_close(ours.eta, theirs.eta, **close)
        torch.testing.assert_close(ours.lam, theirs.lam, **close)
        # Of Q/η: what float32 rounds off Q, which sums in other orders may differ by, is divided by a small η too.
        rounding = max(tolerance, 1e-7 / float(theirs.eta)) if tolerance else 0.0
        torch.testing.assert_close(ours.weights, theirs.weights, rtol=rounding, atol=rounding)
        assert ours.status == theirs.status
        assert torch.equal(member.generator.get_state(), single.generator.get_state())


def check_updates(vector: Any, singles: list[cvpo.CVPO], count: int = 4, tolerance: float = 1e-5) -> None:
    """One update, compared, and then further ones."""
    for _ in range(count):
        metrics = vector.update()
        for p, single in enumerate(singles):
            alone = single.update()
            assert alone.keys() == metrics.keys()
            for name, value in alone.items():
                assert metrics[name].shape == (len(vector),), name
                # SLSQP's steps to the same answer hang on how sums are rounded.
                if name != "estep/iterations" or not isinstance(vector.config.estep, Slsqp):
                    assert float(metrics[name][p]) == pytest.approx(float(value), rel=tolerance, abs=tolerance), name
        check_equal(vector, singles, tolerance)

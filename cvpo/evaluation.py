"""Evaluation of a policy over whole episodes."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import torch

from cvpo.agent import CVPO
from cvpo.envs import VectorEnv, as_vector
from cvpo.errors import ConfigError
from cvpo.handover import check_spaces


@attrs.frozen
class Evaluation:
    """Sums over whole episodes: ``returns`` [n] and ``costs`` [n,M] undiscounted, ``discounted`` costs [n,M] with γ;
    ``lengths`` [n]."""

    returns: np.ndarray
    costs: np.ndarray
    discounted: np.ndarray
    lengths: np.ndarray

    def summary(self) -> dict[str, float]:
        """Means and standard deviations by name: ``return``, ``cost_<m>``, each with ``_std``, and mean ``length``."""
        plain = {
            "return": float(self.returns.mean()),
            "return_std": float(self.returns.std()),
            "length": float(self.lengths.mean()),
        }
        for m in range(self.costs.shape[1]):
            plain[f"cost_{m}"] = float(self.costs[:, m].mean())
            plain[f"cost_{m}_std"] = float(self.costs[:, m].std())
        return plain


def check_episodes(episodes: int, seed: int | None) -> None:
    """Raises ConfigError unless there are episodes to play, from a seed that can be one."""
    for name, value, least in (("episodes", episodes, 1), ("seed", 0 if seed is None else seed, 0)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise ConfigError(f"{name} is {value!r}; allowed: an integer >= {least}")


def evaluate(
    agent: CVPO | None,
    env: Any,
    episodes: int = 10,
    *,
    deterministic: bool = True,
    seed: int | None = None,
    gamma: float | None = None,
) -> Evaluation:
    """Mean episode sums of ``agent`` on ``env``, a Gymnasium environment or what :func:`cvpo.envs.make` returns;
    ``agent=None`` takes uniformly random actions. With ``policy_average`` an agent acts by its mean policy here.

    Every environment plays the same number of episodes (rounded up; surplus is dropped in order of environment), so
    that short episodes are not counted more often than long ones. The agent's own random generator is not used.
    ``seed`` is that of the episodes, with which ``env`` is reset: give evaluation an environment of its own. None draws
    one from the agent's, whose episodes are not those of training. ``gamma`` discounts the costs (None: the agent's; 1
    without an agent). Raises ConfigError for no episodes, a seed below 0, an environment with other observations or
    actions than the agent's or fewer costs, and that of a training loop that is going on.
    """
    check_episodes(episodes, seed)
    if agent is not None and not hasattr(agent, "seed"):
        allowed = "a cvpo.CVPO, of a VectorAgent member(index), None for random actions"
        raise ConfigError(f"agent is a {type(agent).__name__}; allowed: {allowed}")
    if seed is None:
        seed = int(np.random.SeedSequence([0 if agent is None else agent.seed, 3]).generate_state(1)[0])
    if not isinstance(env, VectorEnv):
        known = {} if agent is None else {"costs": len(agent.config.cost_limits), "horizon": agent.config.horizon}
        env = as_vector(env, seed=seed, **known)
    if agent is not None:
        check_spaces(agent, env)
        limits = len(agent.config.cost_limits)
        if len(env.cost_names) < limits:
            found = f"the environment {env.task} {len(env.cost_names)} costs"
            raise ConfigError(f"the agent has {limits} cost limits, {found}; allowed: a cost for each limit")
    if env.trained:
        raise ConfigError("env is the one that is being trained on; allowed: an environment of its own, cvpo.envs.make")
    if gamma is None:
        gamma = 1.0 if agent is None else agent.config.gamma
    rng = np.random.default_rng([seed, 2])
    generator = torch.Generator(agent.device if agent is not None else "cpu").manual_seed(seed)
    each = -(-episodes // env.num_envs)
    results: list[list[tuple[float, np.ndarray, np.ndarray, int]]] = [[] for _ in range(env.num_envs)]
    total = np.zeros(env.num_envs)
    cost = np.zeros((env.num_envs, len(env.cost_names)))
    discounted = np.zeros_like(cost)
    length = np.zeros(env.num_envs, dtype=np.int64)
    obs = env.reset(seed=seed)
    while min(len(result) for result in results) < each:
        if agent is None:
            actions = env.door.sample(env.num_envs, rng)
        else:
            actions = agent.act(obs, deterministic, generator, handed_over=True).cpu().numpy()
        step = env.step(actions)
        obs = step.obs
        total += step.reward
        cost += step.cost
        discounted += gamma ** length[:, None] * step.cost
        length += 1
        for n in np.flatnonzero(step.terminated | step.truncated):
            results[n].append((float(total[n]), cost[n].copy(), discounted[n].copy(), int(length[n])))
            total[n], cost[n], discounted[n], length[n] = 0.0, 0.0, 0.0, 0
    chosen = [result for i in range(each) for result in (episodes_of[i] for episodes_of in results)][:episodes]
    return Evaluation(
        returns=np.array([result[0] for result in chosen]),
        costs=np.stack([result[1] for result in chosen]),
        discounted=np.stack([result[2] for result in chosen]),
        lengths=np.array([result[3] for result in chosen]),
    )

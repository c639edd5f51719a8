"""The peer's side of the update benchmark: FSRL's CVPO, through its public interface, in the environment of
``make bench-peers``; started by ``benchmarks.updates``, one process a setting.

    python -m benchmarks.peers_fsrl SETTING THREADS

One update is ``policy.update``: it draws the batch, and makes one step of the critics, of the E-step's duals and of
each M-step iteration. What its trainer does once a round of collecting is done once a block of updates here.
"""

from __future__ import annotations

import sys
import time
import warnings
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import torch

from benchmarks import updates_settings as shared

warnings.filterwarnings("ignore")

import bullet_safety_gym  # noqa: E402, F401  (registers the task)
from fsrl.agent import CVPOAgent  # noqa: E402
from fsrl.utils import BaseLogger  # noqa: E402
from tianshou.data import Batch, ReplayBuffer  # noqa: E402
from tianshou.env import DummyVectorEnv, ShmemVectorEnv  # noqa: E402


class Sizes(gymnasium.Env):
    """The spaces of the shared data; it is never stepped."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (shared.OBS,))
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (shared.ACTIONS,))
    spec = SimpleNamespace(max_episode_steps=shared.HORIZON)


def agent(setting: shared.Setting, threads: int, env: Any, cost_limit: float) -> CVPOAgent:
    """The peer's agent with the sizes of ``setting``; all that is not named is the peer's default."""
    return CVPOAgent(
        env,
        logger=BaseLogger(),
        cost_limit=cost_limit,
        thread=threads,
        estep_kl=shared.ESTEP_KL,
        sample_act_num=setting.particles,
        mstep_iter_num=setting.iterations,
        mstep_kl_mu=shared.MSTEP_KL_MEAN,
        mstep_kl_std=shared.MSTEP_KL_COV,
        actor_lr=shared.ACTOR_LR,
        critic_lr=shared.CRITIC_LR,
        gamma=shared.GAMMA,
        n_step=shared.N_STEP,
        tau=shared.TAU,
        hidden_sizes=setting.hidden,
        double_critic=setting.members == 2,
    )


class Side:
    """A policy with a full buffer."""

    def __init__(self, setting: shared.Setting, threads: int) -> None:
        self.setting = setting
        self.policy = agent(setting, threads, Sizes(), shared.COST_LIMIT).policy
        self.policy.train()
        self.buffer = ReplayBuffer(shared.CAPACITY)
        made = shared.data()
        for obs, next_obs, action, reward, cost, end in zip(
            *(made[name] for name in ("obs", "next_obs", "action", "reward", "cost", "truncated")), strict=True
        ):
            self.buffer.add(
                Batch(
                    obs=obs,
                    act=action,
                    rew=reward,
                    terminated=False,
                    truncated=end,
                    obs_next=next_obs,
                    info={"cost": cost},
                    cost=cost,
                )
            )

    def time(self, updates: int) -> dict[str, Any]:
        """Seconds of ``updates`` updates after one another, as one round."""
        began = time.perf_counter()
        self.policy.pre_update_fn()
        for _ in range(updates):
            self.policy.update(self.setting.batch, self.buffer)
        self.policy.post_update_fn()
        return {"seconds": time.perf_counter() - began}

    def accuracy(self, updates: int, path: str) -> dict[str, Any]:
        """KL/ε after one update and after a round of ``updates``; the round's last E-step goes to ``path``.

        The E-step is recorded where the policy asks its critics: the Q-values as they were given out, and the same
        memory after the update, which by then holds the exponent that the weights were made of.
        """
        policy, asked = self.policy, []
        kls = []
        policy.pre_update_fn()
        for update in range(updates):
            if update == updates - 1:
                for critic in policy.critics:
                    critic.predict = _recorded(critic.predict, asked)
            policy.update(self.setting.batch, self.buffer)
            if update in (0, updates - 1):
                kls.append(self._kl())
        for critic in policy.critics:
            del critic.predict
        policy.post_update_fn()
        dual = policy.estep_dual.detach().double().numpy()
        shape = (self.setting.particles, self.setting.batch)
        q = np.stack([given.reshape(shape).T for given, _ in asked])
        exponent = asked[0][1].reshape(shape).T / float(dual[0])
        weights = torch.softmax(exponent, -1).numpy()
        np.savez(path, q=q, weights=weights, dual=dual, limit=np.array(policy.qc_thres))
        return {"updates": updates, "mstep_kl_one": kls[0], "mstep_kl_round": kls[-1]}

    def _kl(self) -> float:
        """The larger of its two KL terms between the round's old policy and the fitted one, over its bound."""
        batch, _ = self.buffer.sample(4 * self.setting.batch)
        with torch.no_grad():
            old, new = (self.policy(batch, model=name).logits for name in ("actor_old", "actor"))
            mean, std = self.policy.gaussian_kl(*old, *new)
        return max(float(mean) / shared.MSTEP_KL_MEAN, float(std) / shared.MSTEP_KL_COV)

    def memory(self, updates: int) -> dict[str, Any]:
        """Bytes of the process before the first update, and the most during ``updates`` of them."""
        before = shared.resident()
        shared.forget_peak()
        self.time(updates)
        return {"before": before, "peak": shared.peak(), "after": shared.resident(), "updates": updates}


def _recorded(predict: Any, asked: list[Any]) -> Any:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        values, each = predict(*args, **kwargs)
        asked.append((values.detach().clone(), values))
        return values, each

    return wrapped


def trainer(setting: shared.Setting, threads: int) -> Any:
    """``train(steps, ratio, envs, workers)``: seconds of as many environment steps; the first call builds and warms up.
    With workers, each of several environments is in a process of its own, as in the library's scripts."""
    made: dict[tuple[int, bool], Any] = {}

    def learn(envs: int, apart: bool, steps: int, ratio: float) -> None:
        chosen, vector = made[envs, apart]
        chosen.learn(
            vector,
            epoch=1,
            episode_per_collect=envs,
            step_per_epoch=steps,
            update_per_step=ratio,
            buffer_size=shared.CAPACITY,
            batch_size=setting.batch,
            reward_threshold=np.inf,
            save_ckpt=False,
            verbose=False,
            show_progress=False,
        )

    def train(steps: int, ratio: float, envs: int, workers: int) -> dict[str, Any]:
        apart = workers > 0 and envs > 1
        if (envs, apart) not in made:
            task = gymnasium.make(shared.TASK)
            kind = ShmemVectorEnv if apart else DummyVectorEnv
            vector = kind([lambda: gymnasium.make(shared.TASK) for _ in range(envs)])
            made[envs, apart] = agent(setting, threads, task, shared.TASK_LIMIT), vector
            learn(envs, apart, 5 * shared.HORIZON, ratio)
        began = time.perf_counter()
        learn(envs, apart, steps, ratio)
        return {"seconds": time.perf_counter() - began, "steps": steps, "updates": round(ratio * steps)}

    return train


def main() -> None:
    """Answer requests; the policy and its data are made at the first one that needs them."""
    setting, threads = shared.SETTINGS[sys.argv[1]], int(sys.argv[2])
    torch.set_num_threads(threads)
    sides: list[Side] = []

    def on_side(name: str) -> Any:
        def answer(**request: Any) -> dict[str, Any]:
            if not sides:
                sides.append(Side(setting, threads))
            return getattr(sides[0], name)(**request)

        return answer

    names = ("time", "accuracy", "memory")
    shared.serve({name: on_side(name) for name in names} | {"train": trainer(setting, threads)})


if __name__ == "__main__":
    main()

"""Our side of the update benchmark; started by ``benchmarks.updates``, one process a setting.

    python -m benchmarks.updates_ours SETTING THREADS [OPTIONS]

OPTIONS is JSON of further options of the critic. The E-step of a timed update takes the states of the
critic's batch and the online critics, as the peer's does. Its limit is the library's default, by which the problem is
feasible and the cost active on data that never change (by the paper's, the peer's, it is neither for most updates);
the peer's one step on the dual takes as long whatever its limit. Training takes the library's defaults throughout.
Freed memory stays with the process, as in every run of the library (:func:`cvpo.keep_memory`).
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter as Tally
from collections.abc import Mapping
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from gymnasium.spaces import Box

import cvpo
from benchmarks import updates_settings as shared
from benchmarks.counting import Counter
from benchmarks.updates_products import products
from benchmarks.updates_stages import STAGES, stages
from cvpo.buffers.dsrl import Dataset
from cvpo.estep import DualProblem, Status, kkt_residuals
from cvpo.estep.newton import Newton
from cvpo.offline import fill


def options(setting: shared.Setting, critic: Mapping[str, Any]) -> dict[str, Any]:
    """The options of :func:`cvpo.make_agent` that make an update the size of the peer's."""
    return {
        "gamma": shared.GAMMA,
        "cost_limits": shared.COST_LIMIT,
        "batch_size": setting.batch,
        "particles": setting.particles,
        "kl_epsilon": shared.ESTEP_KL,
        "policy": {"name": "diagonal", "hidden": setting.hidden},
        "critic": {"name": "mlp", "hidden": setting.hidden, "members": setting.members, **critic},
        "buffer": {"name": "nstep", "steps": shared.N_STEP, "capacity": shared.CAPACITY},
        "mstep": {"name": "decoupled", "kl_mean": shared.MSTEP_KL_MEAN, "kl_cov": shared.MSTEP_KL_COV},
        "fit": {"name": "likelihood", "iterations": setting.iterations, "lr": shared.ACTOR_LR},
        "critic_lr": shared.CRITIC_LR,
        "target_tau": shared.TAU,
    }


def make(
    setting: shared.Setting,
    seed: int = 0,
    count: int = shared.CAPACITY,
    critic: Mapping[str, Any] | None = None,
    **further: Any,
) -> cvpo.CVPO:
    """An agent whose buffer is full of the shared data, ready for updates."""
    same = {"states": "replay", "estep_critic": "online", "horizon": shared.HORIZON}
    box = Box(-np.inf, np.inf, (shared.OBS,)), Box(-1.0, 1.0, (shared.ACTIONS,))
    agent = cvpo.make_agent(*box, seed=seed, **(options(setting, critic or {}) | same | further))
    made = shared.data(count)
    fill(
        agent,
        Dataset(
            obs=made["obs"],
            actions=made["action"],
            signals=np.stack([made["reward"], made["cost"]]),
            next_obs=made["next_obs"],
            terminated=np.zeros_like(made["truncated"]),
            truncated=made["truncated"],
        ),
    )
    return agent


def timed(agent: cvpo.CVPO, updates: int) -> dict[str, Any]:
    """Seconds of ``updates`` updates after one another."""
    began = time.perf_counter()
    for _ in range(updates):
        agent.update()
    return {"seconds": time.perf_counter() - began}


def by_stage(agent: cvpo.CVPO, updates: int) -> dict[str, Any]:
    """Milliseconds, operations, bytes allocated and synchronisations of one update, by stage; means."""
    with stages(agent) as stage:
        timed(agent, updates)
    with stages(agent) as counted, Counter(counted.name) as counter:
        timed(agent, 10)
    rows = {
        name: {
            "ms": 1e3 * stage.seconds[name] / updates,
            "operations": counter.operations[name] / 10,
            "bytes": counter.bytes[name] / 10,
            "syncs": counter.syncs[name] / 10,
        }
        for name in STAGES
    }
    return {"stages": rows}


def accuracy(agent: cvpo.CVPO, updates: int) -> dict[str, Any]:
    """KKT residuals and statuses of the E-steps of ``updates`` updates, and KL/ε of their M-steps."""
    solver, solved = type(agent.config.estep), []
    solve = solver.solve

    def recorded(self: Any, problem: Any, warm: Any = None) -> Any:
        solution = solve(self, problem, warm)
        solved.append((problem, solution))
        return solution

    kls, guarded, residuals, statuses, iterations = [], 0, [], Tally(), []
    with patch.object(solver, "solve", recorded):
        for _ in range(updates):
            solved.clear()
            metrics = agent.update()
            problem, solution = solved[-1]
            kls.append(max(float(metrics[f"mstep/kl/{term}"]) for term in agent.config.mstep.bounds))
            guarded += float(metrics["mstep/guard_t"]) < 1.0
            residuals.append(float(kkt_residuals(problem, solution).max))
            statuses[Status(int(solution.status)).name] += 1
            iterations.append(float(solution.iterations))
    return {
        "updates": updates,
        "kkt_median": float(np.median(residuals)),
        "kkt_largest": max(residuals),
        "kkt_of": "the answer the M-step was fitted to, on the problem of that update",
        "statuses": dict(statuses),
        "iterations_median": float(np.median(iterations)),
        "lam": float(solution.lam[0]),
        "mstep_kl_median": float(np.median(kls)),
        "mstep_kl_largest": max(kls),
        "mstep_kl_over": "one update",
        "guarded": guarded / updates,
    }


def memory(agent: cvpo.CVPO, updates: int) -> dict[str, Any]:
    """Bytes of the process before the first update, and the most during ``updates`` of them; ``code``: what the
    E-step's compiled loops took when they were loaded, before that."""
    without = shared.resident()
    Newton().solve(DualProblem(torch.zeros(1, 2), torch.zeros(1, 1, 2), 0.0, 0.1))
    before = shared.resident()
    shared.forget_peak()
    timed(agent, updates)
    peak = shared.peak()
    return {"before": before, "peak": peak, "after": shared.resident(), "updates": updates, "code": before - without}


def growth(agent: cvpo.CVPO, updates: int) -> dict[str, Any]:
    """Resident bytes after a tenth of ``updates`` to warm up, and after each further tenth of ``updates``."""
    found = []
    for _ in range(11):
        timed(agent, updates // 10)
        found.append(shared.resident())
    return {"updates": updates, "resident": found, "growth": found[-1] - found[0]}


def trainer(setting: shared.Setting, critic: Mapping[str, Any]) -> Any:
    """``train(steps, ratio, envs, workers)``: seconds of as many environment steps; the first call builds and warms
    up. Workers take threads from the updates, which they run beside."""
    agents: dict[tuple[int, int], cvpo.CVPO] = {}
    threads = torch.get_num_threads()

    def train(steps: int, ratio: float, envs: int, workers: int) -> dict[str, Any]:
        torch.set_num_threads(threads - workers)
        if (envs, workers) not in agents:
            env = cvpo.envs.make(shared.TASK, num_envs=envs, workers=workers)
            limit = {"cost_limits": shared.TASK_LIMIT}
            spaces = env.observation_space, env.action_space
            agent = cvpo.make_agent(*spaces, env=env, num_envs=envs, **(options(setting, critic) | limit))
            agents[envs, workers] = agent.learn(1_000 + 5 * shared.HORIZON, warmup_steps=1_000, updates_per_step=ratio)
        agent = agents[envs, workers]
        began, updates = time.perf_counter(), agent.updates
        agent.learn(steps, updates_per_step=ratio)
        return {"seconds": time.perf_counter() - began, "steps": steps, "updates": agent.updates - updates}

    return train


def main() -> None:
    """Answer requests; the agent and its data are made at the first one that needs them."""
    setting = shared.SETTINGS[sys.argv[1]]
    critic = json.loads(sys.argv[3]) if len(sys.argv) > 3 else {}
    torch.set_num_threads(int(sys.argv[2]))
    cvpo.keep_memory()
    agents: list[cvpo.CVPO] = []

    def on_agent(call: Any) -> Any:
        def answer(updates: int) -> dict[str, Any]:
            if not agents:
                agents.append(make(setting, critic=critic))
            return call(agents[0], updates)

        return answer

    calls = {"time": timed, "stages": by_stage, "accuracy": accuracy, "memory": memory, "growth": growth}
    alone = {"train": trainer(setting, critic), "products": lambda repeats: products(setting, repeats)}
    shared.serve({name: on_agent(call) for name, call in calls.items()} | alone)


if __name__ == "__main__":
    main()

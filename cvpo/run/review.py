"""Looking back at a run: its trained policy, evaluated or recorded on film."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from cvpo.agent import CVPO
from cvpo.evaluation import evaluate
from cvpo.run.config import RunConfig
from cvpo.run.folder import RunFolder
from cvpo.run.measure import Score, evaluation_seed, score
from cvpo.run.recorder import POLICIES
from cvpo.run.session import build, evaluation_keys, load_config, make_env


@contextlib.contextmanager
def opened(
    folder: str | os.PathLike[str], *, copies: int, warn: Any = None, **env_options: Any
) -> Iterator[tuple[RunConfig, CVPO, Any]]:
    """Configuration, agent at the newest whole checkpoint, and ``copies`` of the environment for evaluation.

    ``env_options`` are added to the run's own. Raises RunError where ``folder`` is no run folder, CheckpointError where
    no checkpoint of it is whole; ``warn(message)`` is told of each that is not.
    """
    made = RunFolder(Path(folder))
    config = load_config(made)
    _, tree = made.checkpoints().newest(warn=warn)
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        with contextlib.closing(
            make_env(config, copies=copies, cost_keys=evaluation_keys(config), **env_options)
        ) as env:
            agent = build(config, env)
            # The policy is all that is needed: the replayed transitions stay in the file.
            replayed = ("store", "source")
            agent.load_state_dict({name: part for name, part in tree["agent"].items() if name not in replayed})
            yield config, agent, env
    finally:
        torch.set_num_threads(threads)


def scores(
    folder: str | os.PathLike[str], episodes: int | None = None, *, seed: int | None = None, warn: Any = None
) -> tuple[int, tuple[Score, ...]]:
    """(step, scores) of the policy's mode, its samples and random actions, all on the same ``episodes``.

    ``episodes`` and ``seed`` default to those of the run's own last evaluation, which this then repeats exactly.
    """
    config = load_config(RunFolder(Path(folder)))
    count = config.eval_episodes if episodes is None else episodes
    with opened(folder, copies=min(config.eval_envs, count), warn=warn) as (config, agent, env):
        start = evaluation_seed(config.seed, agent.steps) if seed is None else seed

        def measure(policy: str, who: CVPO | None, deterministic: bool) -> Score:
            gamma = agent.config.gamma
            done = evaluate(who, env, count, deterministic=deterministic, seed=start, gamma=gamma)
            return score(policy, done, agent.config)

        found = [measure(policy, agent, deterministic) for policy, deterministic in POLICIES]
        return agent.steps, (*found, measure("random", None, True))

"""What a run is made of: its environments and its agent, from the configuration."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import attrs
import torch

from cvpo import envs
from cvpo.agent import CVPO
from cvpo.allocator import keep_memory
from cvpo.assembly import check_safe, describe, make_agent
from cvpo.errors import ConfigError
from cvpo.run.config import RunConfig, from_options
from cvpo.run.folder import RunFolder


def load_config(folder: RunFolder) -> RunConfig:
    """The configuration that a run was made with. Raises RunError where ``folder`` is no run folder."""
    options = folder.options()
    check_safe(options)
    return from_options(options)


def build(config: RunConfig, env: Any) -> CVPO:
    """The agent of a run. Raises ConfigError where its device is not there."""
    agent = make_agent(
        env.observation_space,
        env.action_space,
        horizon=env.horizon,
        num_envs=config.num_envs,
        seed=config.seed,
        device=config.device,
        **config.agent,
    )
    for part, made in (("buffer", agent.store), ("states", agent.source)):
        missing = [name for name in ("state_dict", "load_state_dict") if not hasattr(made, name)]
        if missing:
            raise ConfigError(
                f"{part} builds a {type(made).__name__}, which has no {' and no '.join(missing)}; a run needs them for "
                "its checkpoints"
            )
    return agent


def resolved(config: RunConfig, agent: CVPO) -> RunConfig:
    """``config`` with everything explicit that the environment and the choice of parts filled in."""
    parts = describe(agent.config)
    return attrs.evolve(
        config,
        horizon=agent.config.horizon,
        agent={name: value for name, value in parts.items() if name != "horizon"},
    )


def make_env(config: RunConfig, *, copies: int, cost_keys: Any, **options: Any) -> Any:
    """Copies of the task's environment; ``options`` are added to the run's own."""
    return envs.make(
        config.task,
        num_envs=copies,
        seed=config.seed,
        workers=min(config.workers, copies),
        cost_keys=cost_keys,
        horizon=config.horizon,
        **{**config.env, **options},
    )


def constrained(config: RunConfig) -> bool:
    """Whether any cost has a limit."""
    return config.agent.get("cost_limits", ()) not in ((), None)


def training_keys(config: RunConfig) -> Any:
    """Which costs training looks at: none where there is no limit."""
    return config.cost_keys if constrained(config) else ()


def evaluation_keys(config: RunConfig) -> Any:
    """Which costs evaluation reports: named ones even where training has no limit."""
    return training_keys(config) if config.cost_keys is None else config.cost_keys


@contextlib.contextmanager
def setting(config: RunConfig) -> Iterator[tuple[Any, Any]]:
    """Training and evaluation environments, with torch's thread count as configured; undone on leaving.

    Freed memory stays with the process from here on (:func:`cvpo.keep_memory`).
    """
    keep_memory()
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch_threads(config.threads))
        env = make_env(config, copies=config.num_envs, cost_keys=training_keys(config))
        stack.callback(env.close)
        copies = min(config.eval_envs, config.eval_episodes)
        eval_env = make_env(config, copies=copies, cost_keys=evaluation_keys(config))
        stack.callback(eval_env.close)
        yield env, eval_env


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """``count`` threads of torch inside; the sum of many numbers depends on how they are divided among threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)

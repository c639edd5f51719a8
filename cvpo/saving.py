"""An agent in one file: its configuration in names, its spaces in plain values, and its state."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from cvpo import checkpoint
from cvpo.agent import CVPO
from cvpo.assembly import check_safe, describe, make_agent
from cvpo.errors import CheckpointError, fitting


def save(agent: CVPO, path: str | os.PathLike[str], *, replay: bool = True) -> None:
    """Write ``agent`` to one file; see :meth:`CVPO.save`. Raises CheckpointError where that fails."""
    tree = {
        "config": describe(agent.config),
        "observation_space": _describe_space(agent.observation_space),
        "action_space": _describe_space(agent.action_space),
        "num_envs": agent.num_envs,
        "seed": agent.seed,
        "state": agent.state_dict(replay=replay),
    }
    checkpoint.write(path, tree)


def load(path: str | os.PathLike[str], *, env: Any = None, device: str = "cpu") -> CVPO:
    """The agent that :func:`save` wrote to ``path``; of the folder of a run, its agent at the newest whole checkpoint,
    without what was replayed. Raises CheckpointError where the file is missing or damaged, RunError for a folder that
    is not that of a run."""
    if os.path.isdir(path):
        from cvpo.run.review import agent_of

        return agent_of(path, env=env, device=device)
    tree = checkpoint.read(path)
    if "config" not in tree or "state" not in tree:
        raise CheckpointError(
            f"{path} holds no agent: found {sorted(tree)}; allowed: a file that CVPO.save wrote, or the folder of a run"
        )
    with fitting(f"{path} does not describe an agent"):
        check_safe(tree["config"])
        agent = make_agent(
            _space(tree["observation_space"]),
            _space(tree["action_space"]),
            env=env,
            num_envs=tree["num_envs"],
            seed=tree["seed"],
            device=device,
            **tree["config"],
        )
    agent.load_state_dict(tree["state"])
    return agent


def _describe_space(space: Space[Any]) -> dict[str, Any]:
    if isinstance(space, spaces.Discrete):
        return {"kind": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.Box):
        return {"kind": "Box", "low": space.low, "high": space.high, "dtype": str(space.dtype)}
    if isinstance(space, spaces.MultiBinary):
        # A number and a shape of one are not the same space.
        return {"kind": "MultiBinary", "n": space.n if isinstance(space.n, int) else list(space.shape)}
    if isinstance(space, spaces.MultiDiscrete):
        return {"kind": "MultiDiscrete", "nvec": space.nvec, "start": space.start}
    if isinstance(space, spaces.Text):
        characters = "".join(space.character_list)
        return {"kind": "Text", "lengths": [space.min_length, space.max_length], "characters": characters}
    if isinstance(space, spaces.Dict):
        return {"kind": "Dict", "spaces": {name: _describe_space(part) for name, part in space.spaces.items()}}
    if isinstance(space, spaces.Tuple):
        return {"kind": "Tuple", "spaces": [_describe_space(part) for part in space.spaces]}
    raise CheckpointError(
        f"the space {space} cannot be saved; allowed: Box, Discrete, MultiBinary, MultiDiscrete, Text, Dict, Tuple"
    )


def _space(plain: dict[str, Any]) -> Space[Any]:
    kind = plain["kind"]
    if kind == "Discrete":
        return spaces.Discrete(plain["n"], start=plain["start"])
    if kind == "Box":
        dtype = np.dtype(plain["dtype"])
        return spaces.Box(np.asarray(plain["low"], dtype), np.asarray(plain["high"], dtype), dtype=dtype.type)
    if kind == "MultiBinary":
        return spaces.MultiBinary(plain["n"])
    if kind == "MultiDiscrete":
        return spaces.MultiDiscrete(np.asarray(plain["nvec"]), start=np.asarray(plain["start"]))
    if kind == "Text":
        low, high = plain["lengths"]
        return spaces.Text(high, min_length=low, charset=plain["characters"])
    if kind == "Dict":
        return spaces.Dict([(name, _space(part)) for name, part in plain["spaces"].items()])
    if kind == "Tuple":
        return spaces.Tuple([_space(part) for part in plain["spaces"]])
    raise CheckpointError(f"there is no space of the kind {kind!r}")

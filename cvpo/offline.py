"""Starting from a data set: its transitions into the agent's replay, as if they had been observed."""

from __future__ import annotations

import attrs
import numpy as np
import torch

from cvpo.agent import CVPO
from cvpo.buffers.dsrl import Dataset
from cvpo.buffers.protocol import end_windows
from cvpo.envs.spaces import ActionDoor
from cvpo.errors import ConfigError
from cvpo.types import Transition

#: How far outside of the bounds an action may lie, in units of half their width, or of 1 where that is less.
ROUNDING = 1e-4


def fill(agent: CVPO, data: Dataset) -> int:
    """Put ``data`` into the replay and the E-step's states of ``agent``; how many transitions went in.

    With N environments the data are cut into N pieces that run side by side, up to N − 1 transitions at the end are
    left out, and every piece ends as a truncation. Actions become the policy's own. The agent's steps and its measured
    costs stay as they are: those are of its own policy. Raises ConfigError where sizes or the number of costs differ,
    for actions outside of the environment's bounds, and for values that are not finite.
    """
    if not isinstance(data, Dataset):
        raise ConfigError(f"data is a {type(data).__name__}; allowed: a Dataset, such as dsrl.read(path) gives")
    if not hasattr(agent, "store"):
        raise ConfigError(f"agent is a {type(agent).__name__}; allowed: a CVPO agent, before it joins a population")
    envs = agent.num_envs
    steps = len(data) // envs
    _check(agent, data, steps)
    kept = steps * envs

    def side_by_side(values: np.ndarray) -> torch.Tensor:
        """[n,...] to [T,N,...] on the agent's device."""
        pieces = torch.from_numpy(np.ascontiguousarray(values[:kept])).to(agent.device)
        return pieces.unflatten(0, (envs, steps)).movedim(0, 1).contiguous()

    truncated = side_by_side(data.truncated).clone()
    truncated[-1] = True
    transitions = Transition(
        obs=side_by_side(data.obs),
        action=side_by_side(own_actions(agent.door, data.actions)),
        signals=side_by_side(data.signals.T).mT,
        next_obs=side_by_side(data.next_obs),
        terminated=side_by_side(data.terminated),
        truncated=truncated,
    )
    end_windows(agent.store)
    if hasattr(agent.store, "extend"):
        agent.store.extend(transitions)
    else:
        for t in range(steps):
            step = {name: value[t] for name, value in attrs.asdict(transitions).items() if value is not None}
            agent.store.add(Transition(**step))
    for obs in transitions.obs:
        agent.source.add(obs)
    agent.inputs.update(transitions.obs.flatten(0, 1))
    return kept


def own_actions(door: ActionDoor, actions: np.ndarray) -> np.ndarray:
    """The policy's own actions [n,D] for those of the environment: the inverse of :meth:`ActionDoor.to_env`; 0 in a
    dimension without width. Raises ConfigError for numbers that are none of the discrete actions, or outside of the
    bounds."""
    if door.discrete:
        index = actions.reshape(-1) - door.start
        known = np.isin(index, np.arange(door.size))
        if not known.all():
            found = actions.reshape(-1)[~known][0]
            raise ConfigError(
                f"the data set has the action {found}; allowed: {door.start} to {door.start + door.size - 1}"
            )
        return np.eye(door.size, dtype=np.float32)[index.astype(np.int64)]
    wide = door.half > 0
    outside = np.abs(actions - door.low - door.half) > door.half + ROUNDING * np.maximum(door.half, 1.0)
    if outside.any():
        raise ConfigError(
            f"the data set has {int(outside.any(-1).sum())} actions outside of {door.space}, the first "
            f"{actions[outside.any(-1)][0].tolist()}; allowed: those within, as the environment took them"
        )
    return np.where(wide, (actions - door.low) / np.where(wide, door.half, 1.0) - 1.0, 0.0).astype(np.float32)


def _check(agent: CVPO, data: Dataset, steps: int) -> None:
    pairs = (
        ("observation size", agent.spec.obs_size, data.obs.shape[1]),
        ("action size", 1 if agent.door.discrete else agent.spec.action_size, data.actions.shape[1]),
        ("costs (one limit for each)", agent.spec.signals - 1, len(data.signals) - 1),
        ("as the size of next observations", agent.spec.obs_size, data.next_obs.shape[1]),
    )
    for what, ours, theirs in pairs:
        if ours != theirs:
            hint = "; allowed without cost limits: dsrl.read(path, costs=False)" if "costs" in what and not ours else ""
            raise ConfigError(f"the agent was made for {ours} {what}, the data set has {theirs}{hint}")
    for name, value in attrs.asdict(data).items():
        length = value.shape[-1] if name == "signals" else len(value)
        if length != len(data):
            raise ConfigError(f"the data set has {length} {name} for {len(data)} obs; allowed: as many")
        if not np.isfinite(value).all():
            raise ConfigError(f"{name} of the data set has values that are not finite; allowed: finite ones")
    if steps < 1:
        raise ConfigError(f"the data set has {len(data)} transitions; allowed: one for each of {agent.num_envs} envs")

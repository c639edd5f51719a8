"""Groups of environments side by side as one, each with a seed of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from cvpo.envs.vector import Step, VectorEnv, check_actions, split_state
from cvpo.errors import ConfigError


class Groups(VectorEnv):
    """The environments of several :class:`VectorEnv`, one group after the other: N = Σ_g N_g.

    Each group keeps its seed, so that it plays the episodes that it would play alone. The groups stay the caller's to
    close. Raises ConfigError where they are not of one kind.
    """

    def __init__(self, groups: Sequence[VectorEnv]) -> None:
        if not groups:
            raise ConfigError("there are no groups of environments; allowed: at least one")
        self.groups = tuple(groups)
        if len(set(map(id, groups))) < len(groups):
            raise ConfigError("one environment is in two groups; allowed: each group its own, with steps of its own")
        first = self.groups[0]
        for name in ("task", "horizon", "cost_names", "observation_space", "action_space", "obs_size", "door", "seed"):
            setattr(self, name, getattr(first, name))
        for group in self.groups[1:]:
            for name in ("horizon", "cost_names", "observation_space", "action_space"):
                ours, theirs = getattr(first, name), getattr(group, name)
                if ours != theirs:
                    raise ConfigError(f"{name} of the groups of environments is {ours} and {theirs}; allowed: one")
        self._sizes = [group.num_envs for group in self.groups]
        self.num_envs = sum(self._sizes)

    def parts(self) -> tuple[object, ...]:
        return (self, *(part for group in self.groups for part in group.parts()))

    def reset(self, seed: int | None = None) -> np.ndarray:
        """Begin the next episode everywhere; with ``seed``, episode 0 of group g's word of ``SeedSequence(seed)``: with
        one seed for all, every group would play the same episodes."""
        seeds: list[int | None] = [None] * len(self.groups)
        if seed is not None:
            self.seed = seed
            seeds = [int(word) for word in np.random.SeedSequence(seed).generate_state(len(self.groups))]
        return np.concatenate([group.reset(own) for group, own in zip(self.groups, seeds, strict=True)])

    def step(self, actions: np.ndarray) -> Step:
        self.begin(actions)
        return self.finish()

    def begin(self, actions: np.ndarray) -> None:
        actions = check_actions(actions, self.num_envs, self.action_size)
        for group, part in zip(self.groups, np.split(actions, np.cumsum(self._sizes)[:-1]), strict=True):
            group.begin(part)

    def finish(self) -> Step:
        steps = [group.finish() for group in self.groups]
        names = [field.name for field in attrs.fields(Step)]
        return Step(*(np.concatenate([getattr(step, name) for step in steps]) for name in names))

    def state_dict(self) -> dict[str, np.ndarray]:
        states = [group.state_dict() for group in self.groups]
        return {name: np.concatenate([state[name] for state in states]) for name in states[0]}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> np.ndarray:
        parts = split_state(state, self._sizes)
        pairs = zip(self.groups, parts, strict=True)
        return np.concatenate([group.load_state_dict(part, strict) for group, part in pairs])

    def render_frame(self, index: int = 0) -> np.ndarray:
        group = int(np.searchsorted(np.cumsum(self._sizes), index, side="right"))
        return self.groups[group].render_frame(index - sum(self._sizes[:group]))

    def close(self) -> None:
        """The groups are the caller's."""

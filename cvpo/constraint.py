"""The agent's constraint: cost limits and the policy's own costs in the scale of Q, from its newest episodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cvpo.config import AgentConfig
from cvpo.critics.limits import MEASURES, to_q_scale
from cvpo.errors import ConfigError, suggest
from cvpo.statistics import Episode, EpisodeStatistics
from cvpo.types import Spec, Transition

MOST_EXCESS = 16.0
"""The most that is summed up of an excess, in units of the limit."""


class Constraint:
    """``limit`` d and ``measured`` J_c, both [M] float64 in the scale of Q, kept up to date with what happens.

    They change when an episode ends (and in every step where J_c is measured on steps); so does a scheduled limit.
    Before the first step (or, where J_c is measured on episodes, the end of the first) nothing is known of it, and
    ``measured`` is ``limit``: no slack either way. Computed when they are asked for, since there are more steps than
    updates.

    With ``integral_steps`` H the limit is ``d − Z min(J/d, 1)``, where every step of an environment, J being the cost
    of the newest, takes ``Z ← clip(Z + min(J − d, d)/H, 0, 16d)``: the integral part of a PI controller. Without it a
    constraint on measured costs settles as far over the limit as it takes to ask for what a step must be asked for all
    the time: weights that follow an uncertain Q_c follow its errors too, and cost more than it says. An excess counts
    as d at the most, as what is below the limit does: a bad beginning is made good in as many steps; and who costs
    nothing is asked for nothing. Source: Stooke, Achiam & Abbeel, Responsive safety in reinforcement learning by PID
    Lagrangian methods (2020), on the multiplier there.
    """

    def __init__(self, config: AgentConfig, spec: Spec, num_envs: int, device: torch.device) -> None:
        self._config, self._num_envs, self._device = config, num_envs, device
        self.statistics = EpisodeStatistics(
            num_envs,
            spec.obs_size,
            spec.action_size,
            spec.signals,
            spec.gamma,
            keep_episodes=config.measure_episodes,
            keep_steps=config.measure_steps,
        )
        measure, known = config.limit.measure, (*MEASURES, "bias")
        if measure not in known:
            raise ConfigError(f"{type(config.limit).__name__}.measure is {measure!r}; {suggest(str(measure), known)}")
        self._every_step = measure == "steps"
        self._changed: int | None = 0
        self.excess = np.zeros(len(config.cost_limits))

    def add(self, transition: Transition) -> list[Episode]:
        """Take one step of all environments; the episodes that it finished."""
        finished = self.statistics.add(
            transition.obs.cpu().numpy(),
            transition.action.cpu().numpy(),
            transition.signals.cpu().numpy(),
            transition.next_obs.cpu().numpy(),
            transition.terminated.cpu().numpy(),
            transition.truncated.cpu().numpy(),
        )
        if finished or self._every_step:
            self._changed = self.statistics.step_count
        if self._config.integral_steps is not None:
            self._integrate(self._config.integral_steps)
        return finished

    @property
    def limit(self) -> Tensor:
        """d [M], float64, in the scale of Q; less than that with ``integral_steps``."""
        self._refresh()
        limit = self._aimed
        if self.excess.any():
            # Of a limit of 0 there is no excess, which is 16d at the most.
            share = np.minimum(self._own("steps"), limit) / np.maximum(limit, np.finfo(limit.dtype).tiny)
            limit = limit - self.excess * share
        return torch.as_tensor(limit, device=self._device)

    @property
    def measured(self) -> Tensor:
        """J_c [M], float64, in the scale of Q; who measures it otherwise may set it until it changes again."""
        self._refresh()
        return self._measured

    @measured.setter
    def measured(self, value: Tensor) -> None:
        self._refresh()
        self._measured = value

    def threshold(self, q_cost: Tensor, prior: Tensor | None) -> Tensor:
        """The E-step's limit [M] on E_w[Q_c], for its Q-values ``q_cost`` [M,B,K] and ``prior`` [B,K] or None."""
        config = self._config
        return config.limit.threshold(q_cost.double(), prior, self.limit, self.measured, config.gamma)

    def state_dict(self) -> dict[str, Any]:
        self._refresh()
        return {
            "statistics": self.statistics.state_dict(),
            "aimed": self._aimed.copy(),
            "excess": self.excess.copy(),
            "measured": self._measured,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.statistics.load_state_dict(state["statistics"])
        self._aimed, self.excess = state["aimed"].copy(), state["excess"].copy()
        self._measured = state["measured"].to(self._device)
        self._changed = None

    def _integrate(self, steps: int) -> None:
        self._refresh()
        excess = np.minimum(self._own("steps") - self._aimed, self._aimed)
        self.excess = np.clip(self.excess + excess * self._num_envs / steps, 0.0, MOST_EXCESS * self._aimed)

    def _lengths(self) -> list[int]:
        """Lengths of the episodes that limits are converted for: the newest, or the configured one."""
        return (self.statistics.lengths() if self._config.adaptive_horizon else []) or [self._config.horizon or 1]

    def _own(self, kind: str) -> np.ndarray:
        """J_c [M] as ``kind`` says, d while nothing is known of it."""
        config = self._config
        found = self.statistics.measured_cost(
            kind,
            self._lengths(),
            terminates=config.horizon_terminates,
            ends=config.limit_kind == "discounted" and config.mask_cost,
        )
        return self._aimed if found is None else found

    def _refresh(self) -> None:
        if self._changed is None:
            return
        steps, self._changed = self._changed, None
        config = self._config
        now = config.limits_at(steps * self._num_envs)
        unit = config.limit_kind, config.gamma, self._lengths()
        self._aimed = np.array([to_q_scale(config.aim * c, *unit, terminates=config.horizon_terminates) for c in now])
        kind = config.limit.measure if config.limit.measure in ("discounted", "steps") else "episode"
        self._measured = torch.as_tensor(self._own(kind), device=self._device)


class Constraints:
    """The constraints of P agents with the same kind of limit, each with its own limits and measurements."""

    def __init__(self, members: Sequence[Constraint]) -> None:
        self._members, self._config = members, members[0]._config

    def threshold(self, q_cost: Tensor, prior: Tensor | None) -> Tensor:
        """The E-steps' limits [P,M], for Q-values ``q_cost`` [P,M,B,K] and ``prior`` [P,B,K] or None."""
        limit = torch.stack([member.limit for member in self._members])
        measured = torch.stack([member.measured for member in self._members])
        return self._config.limit.threshold(q_cost.double(), prior, limit, measured, self._config.gamma)

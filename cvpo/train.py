"""The training loop: act, observe, update; one loop for library users and for runs in a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import numpy as np
import torch

from cvpo.agent import CVPO
from cvpo.envs import Groups, VectorEnv, as_vector
from cvpo.errors import ConfigError, suggest
from cvpo.handover import check_spaces
from cvpo.metrics import Means
from cvpo.types import Transition
from cvpo.validators import number
from cvpo.vector_agent import VectorAgent


@attrs.frozen(kw_only=True)
class Schedule:
    """How collection and learning alternate.

    The first ``warmup_steps`` environment steps take uniformly random actions and are not learned from at once; from
    then on ``updates_per_step`` updates are made for each environment step (fractions and several environments too),
    while it is taken: environments in worker processes simulate at the same time.
    Over these, the learning rates of critics and policy fall linearly to the share ``final_lr`` of themselves; 1 keeps
    them.
    """

    warmup_steps: int = attrs.field(default=1_000, validator=number(ge=0, integer=True))
    updates_per_step: float = attrs.field(default=0.5, validator=number(ge=0))
    final_lr: float = attrs.field(default=1.0, validator=number(gt=0, le=1))


Callback = Callable[["Loop"], "bool | None"]


class Loop:
    """The state of a training loop; callbacks are given it after every step of the environments.

    ``agent``, ``env``, ``schedule``; ``finished``: the episodes that the last step ended; ``means``: metrics of the
    updates since they were last taken. Of a :class:`~cvpo.VectorAgent`, episodes are lists by member, and steps those
    of each member.
    """

    def __init__(self, agent: Any, env: Any, schedule: Schedule) -> None:
        check_fit(agent, env)
        self.agent, self.env, self.schedule = agent, env, schedule
        self._members: tuple[CVPO, ...] = _members(agent)
        self._rngs = [np.random.default_rng([member.seed, 1]) for member in self._members]
        self.means = Means()
        self.finished: list[Any] = []
        self.first_step, self.first_update = agent.steps, agent.updates
        self.obs: np.ndarray | None = None

    def run(self, until: int, callback: Callback | None = None) -> None:
        """Go on until the agent has seen ``until`` steps, or the callback returns False."""
        try:
            with self.env.training():
                self._run(until, callback)
        finally:
            if self.schedule.final_lr < 1.0:
                self.agent.learner.scale_rates(1.0)

    def _run(self, until: int, callback: Callback | None) -> None:
        agent, env = self.agent, self.env
        if self.obs is None:
            for member in self._members:
                member.interrupt()
            self.obs = env.reset()
        while agent.steps < until:
            log_prob = None
            if agent.steps >= self.schedule.warmup_steps:
                actions = agent.act(self.obs)
                if agent.config.returns.windows:
                    # Now: the updates below change the policy that acted.
                    log_prob = agent.log_prob(self.obs, actions)
            else:
                pairs = zip(self._members, self._rngs, strict=True)
                actions = torch.from_numpy(np.concatenate([m.door.sample(m.num_envs, rng) for m, rng in pairs]))
                log_prob = torch.full((env.num_envs,), agent.door.uniform_log_prob)
            # What learns and what simulates may be different processes: updates take no step longer than they must.
            env.begin(actions.cpu().numpy())
            self._update(until)
            step = env.finish()
            self.finished = agent.observe(
                Transition(
                    obs=torch.from_numpy(self.obs),
                    action=actions,
                    signals=torch.from_numpy(np.vstack([step.reward[None], step.cost.T]).astype(np.float32)),
                    next_obs=torch.from_numpy(step.next_obs),
                    terminated=torch.from_numpy(step.terminated),
                    truncated=torch.from_numpy(step.truncated),
                    log_prob=log_prob,
                ),
                cut=agent.steps + agent.num_envs >= until,
            )
            self.obs = step.obs
            if callback is not None and _says_false(callback(self)):
                return

    def _update(self, until: int) -> None:
        """The updates owed once the step is over that is being taken."""
        steps = self.agent.steps + self.agent.num_envs
        if self.schedule.final_lr < 1.0:
            self.agent.learner.scale_rates(self._rate(steps, until))
        # Before the first step of all there is nothing to learn from; what is owed is made up for at the next.
        for _ in range(self._due(steps) if len(self._members[0].store) else 0):
            self.means.add(self.agent.update())

    @property
    def _start(self) -> int:
        """The step from which updates are owed."""
        return max(self.first_step, self.schedule.warmup_steps)

    def _rate(self, steps: int, until: int) -> float:
        """The share of the learning rates by the count of steps up to ``until``: the same in a resumed run."""
        done = (steps - self._start) / max(until - self._start, 1)
        return 1.0 - (1.0 - self.schedule.final_lr) * min(max(done, 0.0), 1.0)

    def _due(self, steps: int) -> int:
        """Updates owed after ``steps``: by their count, so that fractions never drift."""
        owed = int((steps - self._start) * self.schedule.updates_per_step + 1e-9)
        return max(0, owed - (self.agent.updates - self.first_update))

    def state_dict(self) -> dict[str, Any]:
        """Everything the next step depends on, the environments' episodes in progress included."""
        return {
            "env": self.env.state_dict(),
            "rng": self._rngs[0].bit_generator.state,
            "others": [rng.bit_generator.state for rng in self._rngs[1:]],
            "means": self.means.state_dict(),
            "first_step": self.first_step,
            "first_update": self.first_update,
            "obs": self.obs,
        }

    def member_state(self, index: int) -> dict[str, Any]:
        """What :meth:`state_dict` of the loop of one member alone gives, but for the means; the environments are
        :class:`~cvpo.envs.Groups`, one for each member."""
        n = self.agent.num_envs
        return {
            "env": self.env.groups[index].state_dict(),
            "rng": self._rngs[index].bit_generator.state,
            "others": [],
            "first_step": self.first_step,
            "first_update": self.first_update,
            "obs": None if self.obs is None else self.obs[index * n : (index + 1) * n].copy(),
        }

    def load_member_states(self, states: Sequence[dict[str, Any]]) -> None:
        """Take over what the loops of all members would have alone, means included, at the same step."""
        for group, rng, own in zip(self.env.groups, self._rngs, states, strict=True):
            group.load_state_dict(own["env"])
            rng.bit_generator.state = own["rng"]
        self.means.load_member_states([own["means"] for own in states])
        first = states[0]
        self.first_step, self.first_update = first["first_step"], first["first_update"]
        self.obs = None if first["obs"] is None else np.concatenate([own["obs"] for own in states])

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.env.load_state_dict(state["env"])
        for rng, saved in zip(self._rngs, [state["rng"], *state.get("others", [])], strict=True):
            rng.bit_generator.state = saved
        self.means.load_state_dict(state["means"])
        self.first_step, self.first_update = state["first_step"], state["first_update"]
        self.obs = state["obs"]


def learn(agent: Any, total_steps: int, env: Any, *, callback: Callback | None = None, **schedule: Any) -> Loop:
    """Collect ``total_steps`` more environment steps with ``agent`` on ``env`` and update it along the way.

    ``env`` is a Gymnasium environment or what :func:`cvpo.envs.make` returns; it stays the caller's: it is neither
    closed nor replaced. ``callback(loop)`` runs after every step; returning False ends the call. ``schedule`` are
    fields of :class:`Schedule`. Raises ConfigError where agent and environment do not fit each other.

    A :class:`~cvpo.VectorAgent` of P members with n environments each takes ``total_steps`` with every member, on an
    ``env`` of P·n environments, or on P of n: then every member sees the episodes that it would see alone.
    """
    if isinstance(total_steps, bool) or not isinstance(total_steps, (int, np.integer)) or total_steps < 0:
        raise ConfigError(f"total_steps is {total_steps!r}; allowed: an integer >= 0")
    if env is None:
        raise ConfigError("there is no environment to learn on; pass env=... to learn or to make_agent")
    config, seed = agent.config, _members(agent)[0].seed
    if agent.steps:
        # A plain environment is wrapped anew by every call: with the same seed its first episodes would come again.
        seed = int(np.random.SeedSequence([seed, agent.steps]).generate_state(1)[0])
    if isinstance(env, (list, tuple)) and env and all(isinstance(each, VectorEnv) for each in env):
        env = Groups(env)
    vector = as_vector(env, seed=seed, costs=len(config.cost_limits), horizon=config.horizon)
    known = [field.name for field in attrs.fields(Schedule)]
    for option in schedule:
        if option not in known:
            raise ConfigError(f"learn has no option {option!r}; {suggest(option, known)}")
    loop = Loop(agent, vector, Schedule(**schedule))
    loop.run(agent.steps + total_steps, callback)
    return loop


def _says_false(answer: Any) -> bool:
    """Whether a callback said False; NumPy's, of a comparison of means, is not Python's."""
    return isinstance(answer, (bool, np.bool_)) and not answer


def _members(agent: Any) -> tuple[CVPO, ...]:
    """The agents that an agent is made of: those of a population, or itself."""
    return agent.agents if isinstance(agent, VectorAgent) else (agent,)


def check_fit(agent: Any, env: Any) -> None:
    """Raises ConfigError where the number of costs or environments, the observations' size or the actions differ."""
    pairs = (
        ("costs (one of cost_limits for each of cost_keys)", len(agent.config.cost_limits), len(env.cost_names)),
        ("parallel environments (num_envs)", agent.num_envs * len(_members(agent)), env.num_envs),
    )
    for what, ours, theirs in pairs:
        if ours != theirs:
            hint = ", or an environment of cvpo.envs.make(..., cost_keys=())" if "cost" in what and not ours else ""
            raise ConfigError(
                f"the agent was made for {ours} {what}, the environment {env.task} has {theirs}; allowed: as many{hint}"
            )
    check_spaces(agent, env)

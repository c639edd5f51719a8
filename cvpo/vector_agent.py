"""Many agents at once: P CVPO agents whose networks are one stack, updated together.

Shape legend: ``P`` members, ``n`` environments of each, ``B`` states, ``D`` action dimensions, ``O`` observation size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from cvpo.agent import CVPO
from cvpo.config import AgentConfig
from cvpo.constraint import Constraints
from cvpo.errors import CheckpointError, ConfigError, fitting
from cvpo.handover import check_step, finite_rows, require_tensor
from cvpo.learner import Learner
from cvpo.population import adopt, join_states, split_state
from cvpo.statistics import Episode
from cvpo.types import Transition

#: Fields of the configuration in which members may differ: what their own limits and buffers read, and the E-step's ε.
OWN = ("cost_limits", "limit_kind", "limit_schedule", "aim", "kl_epsilon")


class VectorAgent:
    """``θ_p <- update(θ_p)`` for p = 1..P in one batched update: every member is what it would be if trained alone.

    Networks, critics, duals, multipliers and the moments of the optimisers have a leading axis P. Each member has its
    own random generator, replay, and measurement of its limits, and draws what it would draw alone; seeds and the
    fields :data:`OWN` of the configuration may differ from member to member. A member whose E-step is infeasible, or
    not finite, does not disturb the others.

    ``agents`` are taken over, with what they have learned: their networks become views of the stack. Read them, but
    update them through this object only; :meth:`member` gives an agent of its own. Environments, observations and
    actions are [P·n,...], those of member p from p·n on. ``env`` is what :meth:`learn` trains on where it is given
    none. Raises ConfigError, naming the field, where agents do not go together.
    """

    def __init__(self, agents: Sequence[CVPO], *, env: Any = None) -> None:
        _check_alike(agents)
        self.agents = tuple(agents)
        first = self.agents[0]
        self.config, self.spec, self.door, self.device = first.config, first.spec, first.door, first.device
        self.num_envs = first.num_envs
        self.env = env
        self.generators = tuple(agent.generator for agent in self.agents)
        self._members = [agent.learner for agent in self.agents]
        states = [member.state_dict() for member in self._members]
        epsilons = [agent.config.kl_epsilon for agent in self.agents]
        self.learner = Learner(
            self.config,
            first.learner.spec,
            seed=first.seed,
            device=self.device,
            generator=self.generators,
            population=(len(self.agents),),
            kl_epsilon=torch.tensor(epsilons, dtype=torch.float64, device=self.device),
        )
        adopt(self.learner, self._members)
        self._constraints = Constraints([agent.constraint for agent in self.agents])
        join_states(self.learner, self._members, states)
        for agent in self.agents:
            agent.taken_over = True

    def __len__(self) -> int:
        return len(self.agents)

    def __reduce__(self) -> Any:
        # A copy of the members' networks would be no views of the copied stack.
        return VectorAgent, ([self.member(index) for index in range(len(self))],)

    # ---------------------------------------------------------------------------------------------- acting

    @torch.no_grad()
    def act(self, obs: Any, deterministic: bool = False) -> Tensor:
        """Actions [P·n,D] of the policies' own scale for observations [P·n,O], each drawn by its member's generator."""
        pi = self._policies(obs)
        return (pi.mode if deterministic else pi.sample(1, self.generators).squeeze(-2)).flatten(0, 1)

    @torch.no_grad()
    def log_prob(self, obs: Any, actions: Tensor) -> Tensor:
        """log π_θ(a|o) [P·n] of the policies as they are now; see :meth:`CVPO.log_prob`."""
        policies = self._policies(obs)
        count = policies.mode.shape[:-1].numel()
        require_tensor("actions", actions, (count, self.spec.action_size))
        rows = actions.to(self.device).reshape(len(self), -1, 1, actions.shape[-1])
        return policies.log_prob(rows).flatten()

    def _policies(self, obs: Any) -> Any:
        """Each member's distributions for its own of the observations [P·n,O], with leading axes [P,n]."""
        rows = finite_rows(obs, self.spec.obs_size, self.device)
        if len(rows) % len(self):
            allowed = f"[{len(self)}·n, {self.spec.obs_size}], n for each member"
            raise ConfigError(f"obs has shape {list(rows.shape)}; allowed: {allowed}")
        rows = rows.unflatten(0, (len(self), -1))
        if self.config.normalise_obs:
            seen = torch.stack([agent.inputs(own) for agent, own in zip(self.agents, rows, strict=True)])
        else:
            seen = self.agents[0].inputs(rows)
        return self.policy(seen)

    def observe(self, transition: Transition, *, cut: bool = False) -> list[list[Episode]]:
        """Store one step of all environments [P·n]; the episodes that it finished, by member.

        See :meth:`CVPO.observe`. What one member's part is refused for, none of them has stored.
        """
        count, discrete = len(self) * self.num_envs, self.agents[0].door.discrete
        check_step(transition, self.spec, count, self.steps, discrete=discrete)
        fields = attrs.asdict(transition, recurse=False)
        # Environments are the last axis of the signals, and the first of everything else.
        parts = {
            name: value.tensor_split(len(self), dim=-1 if name == "signals" else 0)
            for name, value in fields.items()
            if value is not None
        }
        return [
            agent.take(Transition(**{name: part[index] for name, part in parts.items()}), cut=cut)
            for index, agent in enumerate(self.agents)
        ]

    # ---------------------------------------------------------------------------------------------- learning

    def update(self) -> dict[str, Tensor]:
        """One round of CVPO for every member on its own replayed batch; metrics [P], left on the device."""
        drawn = [agent.draw() for agent in self.agents]
        batch = _stack([batch for batch, _ in drawn])
        metrics, td = self.learner.update(batch, torch.stack([states for _, states in drawn]), self._constraints)
        for agent, (own, _), errors in zip(self.agents, drawn, td, strict=True):
            agent.store.reprioritise(own.index, errors)
        return metrics

    def learn(self, total_steps: int, env: Any = None, *, callback: Any = None, **schedule: Any) -> VectorAgent:
        """Collect and update until every member has taken ``total_steps`` more steps; see :func:`cvpo.train.learn`.

        ``env`` has P·n environments, or is a sequence of P with n each; without it, the one that was given to
        :func:`cvpo.make_vector_agent`.
        """
        from cvpo.train import learn

        learn(self, total_steps, self.env if env is None else env, callback=callback, **schedule)
        return self

    @property
    def policy(self) -> nn.Module:
        """The stacked policy networks, observations [P,B,O] to a distribution over actions [P,B,D]."""
        return self.learner.policy

    @property
    def steps(self) -> int:
        """Environment steps that each member has seen."""
        return self.agents[0].steps

    @property
    def updates(self) -> int:
        """Updates that each member has made so far."""
        return self.learner.updates

    # ---------------------------------------------------------------------------------------------- state

    def member(self, index: int, *, replay: bool = True) -> CVPO:
        """An agent of its own with a copy of a member's state: to evaluate, predict, save, or train on alone.

        ``replay=False`` leaves the buffer empty. Raises ConfigError for a member that there is not.
        """
        if not -len(self) <= index < len(self):
            raise ConfigError(f"index is {index}; allowed: a member of the population, 0 to {len(self) - 1}")
        agent = self.agents[index]
        single = CVPO(
            agent.config,
            agent.observation_space,
            agent.action_space,
            num_envs=self.num_envs,
            seed=agent.seed,
            device=self.device,
        )
        single.load_state_dict(self.member_state(index % len(self), replay=replay))
        return single

    def state_dict(self, *, replay: bool = True) -> dict[str, Any]:
        """``members``: for each what :meth:`CVPO.state_dict` of a single agent gives."""
        return {"members": [self.member_state(index, replay=replay) for index in range(len(self))]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state of :meth:`state_dict`, or of as many single agents. Raises CheckpointError where there are
        more or fewer of them, or they have made different numbers of updates."""
        with fitting("the state does not fit the population"):
            members = state["members"]
            if len(members) != len(self):
                raise CheckpointError(f"the state is of {len(members)} members; there are {len(self)}")
            join_states(self.learner, self._members, [own["learner"] for own in members])
            for agent, own in zip(self.agents, members, strict=True):
                agent.load_state_dict(own, learner=False)

    def member_state(self, index: int, *, replay: bool = True) -> dict[str, Any]:
        """What :meth:`CVPO.state_dict` of this member alone gives."""
        state = self.agents[index].state_dict(replay=replay)
        return {**state, "learner": split_state(self.learner, self._members[index], index)}


def _check_alike(agents: Sequence[CVPO]) -> None:
    if not isinstance(agents, Sequence):
        raise ConfigError(f"agents is a {type(agents).__name__}; allowed: a sequence of CVPO agents")
    if not agents:
        raise ConfigError("a population has no agents; allowed: at least one")
    first = agents[0]
    for agent in agents:
        if not hasattr(agent, "taken_over"):
            raise ConfigError(f"agents has one of type {type(agent).__name__}; allowed: CVPO agents")
        if agent.taken_over:
            raise ConfigError("an agent is a member of a VectorAgent already; allowed: VectorAgent.member(index)")
    if len(set(map(id, agents))) < len(agents):
        raise ConfigError("agents has one agent twice; allowed: different agents, for each keeps steps of its own")
    for agent in agents[1:]:
        for field in attrs.fields(AgentConfig):
            ours, theirs = getattr(first.config, field.name), getattr(agent.config, field.name)
            if field.name not in OWN and ours != theirs:
                raise ConfigError(f"{field.name} is {ours!r} and {theirs!r}; allowed in a population: one for all")
        for name in ("observation_space", "action_space", "num_envs", "device", "steps", "updates"):
            if getattr(agent, name) != getattr(first, name):
                found = f"{getattr(first, name)} and {getattr(agent, name)}"
                raise ConfigError(f"{name} of the agents are {found}; allowed in a population: the same for all")
        if agent.config.signals != first.config.signals:
            found = f"{len(first.config.cost_limits)} and {len(agent.config.cost_limits)}"
            raise ConfigError(f"cost_limits has {found} entries; allowed in a population: as many for each member")


def _stack(records: Sequence[Any]) -> Any:
    """Records of tensors as one record, every tensor with a leading axis P."""
    first = records[0]
    if first is None:
        return None
    if isinstance(first, Tensor):
        return torch.stack(tuple(records))
    names = [field.name for field in attrs.fields(type(first))]
    return type(first)(*(_stack([getattr(record, name) for record in records]) for name in names))

"""The CVPO agent: acting, replay, and rounds of policy evaluation, E-step and M-step.

Shape legend: ``N`` environments, ``B`` states, ``D`` action dimensions, ``O`` observation size, ``M`` costs.
"""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import torch
from gymnasium import Space
from torch import Tensor, nn

from cvpo.buffers.protocol import end_windows
from cvpo.calibration import BY_CRITIC
from cvpo.config import AgentConfig
from cvpo.constraint import Constraint
from cvpo.envs.spaces import ActionDoor, flat_size, flatten
from cvpo.errors import ConfigError, fitting, load_part
from cvpo.handover import as_rows, check_batch, check_step, finite_rows, require_methods, require_tensor
from cvpo.inputs import NetworkInputs
from cvpo.learner import Learner
from cvpo.statistics import Episode
from cvpo.types import Batch, Spec, Transition
from cvpo.validators import device_here


class CVPO:
    """Constrained Variational Policy Optimization, ``max_π E[Σ γᵗ r] s.t. E[Σ γᵗ c_m] <= d_m``, as EM.

    One :meth:`update` is one round of the algorithm: critics towards their TD targets; E-step weights w over sampled
    actions (a convex program under the cost limits and a KL bound); the policy fitted to w inside a trust region.
    Source: Liu et al., CVPO (ICML 2022, arXiv 2201.11927), algorithm 1.

    Holds instances and knows no names: :func:`cvpo.make_agent` builds one from names, :func:`cvpo.load` from a file.
    ``num_envs`` environments feed :meth:`observe`; ``seed`` fixes networks, sampling and exploration.
    """

    def __init__(
        self,
        config: AgentConfig,
        observation_space: Space[Any],
        action_space: Space[Any],
        *,
        num_envs: int = 1,
        seed: int = 0,
        device: str | torch.device = "cpu",
        env: Any = None,
    ) -> None:
        for name, value, least in (("num_envs", num_envs, 1), ("seed", seed, 0)):
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not least <= value < 2**63:
                raise ConfigError(f"{name} is {value!r}; allowed: an integer >= {least}, below 2**63")
        self.config = config
        self.observation_space, self.action_space = observation_space, action_space
        self.door = ActionDoor(action_space)
        config.check_actions(action_space, discrete=self.door.discrete)
        self.num_envs, self.seed, self.device, self.env = int(num_envs), int(seed), device_here(device), env
        self.generator = torch.Generator(self.device).manual_seed(self.seed)
        self.spec = Spec(flat_size(observation_space), self.door.size, config.signals, config.gamma)

        self.inputs = NetworkInputs(config, observation_space, self.device)
        seen = attrs.evolve(self.spec, obs_size=self.inputs.size)
        self.learner = Learner(config, seen, seed=self.seed, device=self.device, generator=self.generator)
        given = self.spec, num_envs, self.device, self.generator
        methods = ("add", "sample", "reprioritise", "__len__")
        self.store = require_methods("what buffer.build gives", config.buffer.build(*given), methods)
        self.source = require_methods("what states.build gives", config.states.build(*given), ("add", "select"))
        self.constraint = Constraint(config, self.spec, num_envs, self.device)
        self.estep_batch = config.estep_batch or config.batch_size
        self._by_critic = BY_CRITIC.get(config.limit.measure)
        self.steps = 0
        #: Whether a population trains it.
        self.taken_over = False

    # ---------------------------------------------------------------------------------------------- acting

    @torch.no_grad()
    def act(
        self,
        obs: Any,
        deterministic: bool = False,
        generator: torch.Generator | None = None,
        *,
        handed_over: bool = False,
    ) -> Tensor:
        """Actions [N,D] of the policy's own scale for observations [N,O]; :attr:`door` turns them into the
        environment's. ``deterministic`` takes the mode instead of a sample, drawn with ``generator`` or the agent's;
        ``handed_over`` the policy of evaluation and :meth:`predict`, which ``policy_average`` makes another."""
        policy = self.handed_over if handed_over else self.policy
        pi = policy(self.inputs(finite_rows(obs, self.spec.obs_size, self.device)))
        return pi.mode if deterministic else pi.sample(1, generator or self.generator).squeeze(-2)

    @torch.no_grad()
    def log_prob(self, obs: Any, actions: Tensor) -> Tensor:
        """log π_θ(a|o) [N] of the policy as it is now, for observations [N,O] and actions [N,D] of :meth:`act`."""
        obs = as_rows(obs, self.spec.obs_size, self.device)
        require_tensor("actions", actions, (len(obs), self.spec.action_size))
        return self.policy(self.inputs(obs)).log_prob(actions.to(self.device).unsqueeze(-2)).squeeze(-1)

    def predict(self, obs: Any, deterministic: bool = True) -> tuple[Any, None]:
        """The environment's action for one observation (of a Box space also a batch of them), and None, as
        Stable-Baselines3 returns. Raises EnvError for what is no observation of the space."""
        flat, single = flatten(self.observation_space, obs)
        actions = self.door.to_env(self.act(flat, deterministic, handed_over=True).cpu().numpy())
        return (actions[0] if single else actions), None

    def observe(self, transition: Transition, *, cut: bool = False) -> list[Episode]:
        """Store one step of all environments; the episodes that it finished. Raises EnvError for shapes that are not
        theirs, and for values that are not finite.

        ``cut`` says that the stream of steps ends here although the episodes do not: n-step windows must not go on.
        Returns that need log μ(a|o) take that of the policy as it is now, unless ``transition`` has it: give it where
        there were updates since :meth:`act`.
        """
        self._check_own("VectorAgent.observe(transition)")
        check_step(transition, self.spec, self.num_envs, self.steps, discrete=self.door.discrete)
        return self.take(transition, cut=cut)

    def take(self, transition: Transition, *, cut: bool = False) -> list[Episode]:
        """:meth:`observe` a step that has been checked."""
        finished = self.constraint.add(transition)
        if self.config.returns.windows and transition.log_prob is None:
            transition = attrs.evolve(transition, log_prob=self.log_prob(transition.obs, transition.action))
        if cut:
            transition = attrs.evolve(transition, truncated=torch.ones_like(transition.truncated))
        transition = transition.to(self.device)
        self.store.add(transition)
        self.source.add(transition.obs)
        self.inputs.update(transition.obs)
        self.steps += self.num_envs
        return finished

    def interrupt(self) -> None:
        """Episodes under way are left: the next step of every environment is the first of another. Neither episode
        statistics nor n-step windows go on across it."""
        self.constraint.statistics.interrupt()
        end_windows(self.store)

    # ---------------------------------------------------------------------------------------------- learning

    def update(self) -> dict[str, Tensor]:
        """One round of CVPO on a replayed batch; metrics as 0-d tensors, left on the device."""
        self._check_own("update it through VectorAgent.update()")
        if not len(self.store):
            raise ConfigError("the buffer is empty; allowed: update() after at least one observe(), or after learn()")
        batch, states = self.draw()
        metrics, td = self.learner.update(batch, states, self.constraint)
        self.store.reprioritise(batch.index, td)
        return metrics

    def draw(self) -> tuple[Batch, Tensor]:
        """What an update is made of, as the networks see it: a replayed batch and the E-step's states [B,O]. Where the
        critic measures the limit, it does so now."""
        batch = self.store.sample(self.config.batch_size)
        check_batch(batch, self.spec, self.config.batch_size)
        chosen = self.source.select(batch, self.estep_batch)
        require_tensor("what states select", chosen, (self.estep_batch, self.spec.obs_size), torch.float32)
        states = self.inputs(chosen)
        if self._by_critic is not None:
            self.constraint.measured = self._measured_by_critic(*self._by_critic)
        return self.inputs.batch(batch), states

    def _measured_by_critic(self, measure: Any, before: Any) -> Tensor:
        """What the limit is measured by [M], of the newest episodes; ``before`` is of the limit until one has ended."""
        episodes = list(self.constraint.statistics.episodes)
        if not episodes:
            return before(self.constraint.limit)
        return measure(episodes, self.learner, self.inputs, self.device)

    def predicted_cost(self, episode: Episode) -> np.ndarray:
        """Q_c [M] at the first step of an episode, to be held against its realised discounted cost (calibration)."""
        obs, action = (torch.as_tensor(value, device=self.device)[None] for value in (episode.obs, episode.action))
        return self.learner.q_values(self.inputs(obs), action)[1:, 0].cpu().numpy()

    @property
    def policy(self) -> nn.Module:
        """The policy network π_θ, observations [B,O] to a distribution over actions."""
        return self.learner.policy

    @property
    def handed_over(self) -> nn.Module:
        """The policy network of evaluation and :meth:`predict`: the mean policy, or without ``policy_average`` π_θ."""
        return self.policy if self.learner.mean_policy is None else self.learner.mean_policy

    @property
    def updates(self) -> int:
        """Updates made so far."""
        return self.learner.updates

    # ---------------------------------------------------------------------------------------------- conveniences

    def learn(self, total_steps: int, callback: Any = None, *, env: Any = None, **schedule: Any) -> CVPO:
        """Collect and update until ``total_steps`` more environment steps are taken; see :func:`cvpo.train.learn`.

        The environment is ``env``, or the one given to :func:`cvpo.make_agent`; it is never closed or replaced.
        """
        from cvpo.train import learn

        learn(self, total_steps, self.env if env is None else env, callback=callback, **schedule)
        return self

    def save(self, path: Any, *, replay: bool = True) -> None:
        """Write configuration and state to one file, atomically; ``replay=False`` leaves the buffer out. Raises
        ConfigError for an agent that a population has taken over, which holds what it has learned."""
        from cvpo.saving import save

        self._check_own("VectorAgent.member(index).save(path)")
        save(self, path, replay=replay)

    @classmethod
    def load(cls, path: Any, *, env: Any = None, device: str = "cpu") -> CVPO:
        """The agent that :meth:`save` wrote, or that of the folder of a run; nothing in the file is executed."""
        from cvpo.saving import load

        return load(path, env=env, device=device)

    # ---------------------------------------------------------------------------------------------- state

    def state_dict(self, *, replay: bool = True) -> dict[str, Any]:
        """Everything the next update depends on: networks, optimisers, multipliers, duals, buffer, generator."""
        state: dict[str, Any] = {
            "learner": self.learner.state_dict(),
            "constraint": self.constraint.state_dict(),
            "normaliser": self.inputs.state_dict(),
            "generator": self.generator.get_state(),
            "steps": self.steps,
        }
        for name, what in (("store", "buffer"), ("source", "states")) if replay else ():
            part = getattr(self, name)
            if not callable(getattr(part, "state_dict", None)):
                raise ConfigError(
                    f"{what} {type(part).__name__} has no state_dict; allowed: one that has, or replay=False, which "
                    "leaves out what is stored"
                )
            state[name] = part.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any], *, learner: bool = True) -> None:
        """Take over a state of :meth:`state_dict`; the next update is then bit-identical to the saved agent's.

        ``learner=False`` leaves out what is learned: the member of a population has that from its stack. Raises
        CheckpointError for a state that is not of such an agent, of which parts may be taken over then.
        """
        with fitting("the state does not fit the agent"):
            if learner:
                self._check_own("VectorAgent.load_state_dict(state)")
                self.learner.load_state_dict(state["learner"])
            load_part(self, "constraint", state["constraint"])
            load_part(self, "inputs", state["normaliser"])
            for name in ("store", "source"):
                if name in state:
                    load_part(self, name, state[name])
            with fitting("generator"):
                self.generator.set_state(state["generator"])
            with fitting("steps"):
                self.steps = int(state["steps"])

    def _check_own(self, allowed: str) -> None:
        """Raises ConfigError where a population has taken the agent over: its optimisers are no longer its own."""
        if self.taken_over:
            raise ConfigError(f"the agent is a member of a VectorAgent; allowed: {allowed}")

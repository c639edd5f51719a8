"""The CVPO agent: policy evaluation, E-step, M-step; every part a component that it was given.

Shape legend: ``N`` environments, ``B`` states, ``K`` actions per state (particles), ``M`` costs, ``S = 1 + M`` signals.
"""

from __future__ import annotations

import copy
from typing import Any

import attrs
import numpy as np
import torch
from gymnasium import Space
from torch import Tensor, nn

from cvpo.config import AgentConfig
from cvpo.constraint import Constraint
from cvpo.critics.targets import td_targets
from cvpo.envs.normalise import ObservationNormaliser
from cvpo.envs.spaces import ActionDoor, flat_size, flatten
from cvpo.errors import ConfigError, EnvError
from cvpo.estep import DualProblem, DualSolution, Status
from cvpo.statistics import Episode
from cvpo.types import Batch, Spec, Transition

_STATUS_METRICS = tuple(f"estep/{status.name.lower()}" for status in Status)


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
        self.config = config
        self.observation_space, self.action_space = observation_space, action_space
        self.door = ActionDoor(action_space)
        if self.door.discrete != config.policy.discrete:
            raise ConfigError(
                f"policy {type(config.policy).__name__} does not fit the action space {action_space}; allowed: "
                f"{'a categorical' if self.door.discrete else 'a Gaussian'} policy"
            )
        kind = "categorical" if self.door.discrete else "gaussian"
        kinds = getattr(config.mstep, "kinds", (kind,))
        if kind not in kinds:
            raise ConfigError(
                f"M-step {type(config.mstep).__name__} is for {' or '.join(kinds)} policies, the action space "
                f"{action_space} needs a {kind} one; allowed: a projection whose kinds include {kind!r}"
            )
        self.num_envs, self.seed, self.device, self.env = num_envs, seed, torch.device(device), env
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.spec = Spec(flat_size(observation_space), self.door.size, config.signals, config.gamma)

        init = torch.Generator().manual_seed(seed)
        sizes = (self.spec.obs_size, self.spec.action_size)
        self.policy: nn.Module = config.policy.build(*sizes, generator=init).to(self.device)
        self.critic: nn.Module = config.critic.build(*sizes, config.signals, generator=init).to(self.device)
        self.old_policy = copy.deepcopy(self.policy).requires_grad_(False)
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.critic_optimiser = _adam(self.critic, config.critic_lr)
        self.fit = config.fit.build(self.policy, config.mstep)
        self.store = config.buffer.build(self.spec, num_envs, self.device, self.generator)
        self.source = config.states.build(self.spec, num_envs, self.device, self.generator)
        self.normaliser = ObservationNormaliser(self.spec.obs_size, self.device) if config.normalise_obs else None
        self.constraint = Constraint(config, self.spec, num_envs, self.device)
        self.estep_batch = config.estep_batch or config.batch_size
        self.solution: Any = None
        self._statuses = torch.tensor(list(Status), device=self.device)
        self.steps = 0
        self.updates = 0

    # ---------------------------------------------------------------------------------------------- acting

    @torch.no_grad()
    def act(self, obs: Any, deterministic: bool = False, generator: torch.Generator | None = None) -> Tensor:
        """Actions [N,D] of the policy's own scale for observations [N,O]; :attr:`door` turns them into the
        environment's. ``deterministic`` takes the mode instead of a sample, drawn with ``generator`` or the agent's."""
        pi = self.policy(self._normalised(torch.as_tensor(obs, dtype=torch.float32, device=self.device)))
        return pi.mode if deterministic else pi.sample(1, generator or self.generator).squeeze(-2)

    def predict(self, obs: Any, deterministic: bool = True) -> tuple[Any, None]:
        """The environment's action for one observation or a batch of them, and None, as Stable-Baselines3 returns."""
        flat, single = flatten(self.observation_space, obs)
        actions = self.door.to_env(self.act(flat, deterministic).cpu().numpy())
        return (actions[0] if single else actions), None

    def observe(self, transition: Transition, *, cut: bool = False) -> list[Episode]:
        """Store one step of all environments; the episodes that it finished. Raises EnvError on non-finite values.

        ``cut`` says that the stream of steps ends here although the episodes do not: n-step windows must not go on.
        """
        for name in ("obs", "action", "signals", "next_obs"):
            if not np.isfinite(getattr(transition, name).sum().item()):
                raise EnvError(f"transition.{name} has a non-finite value at step {self.steps}; allowed: finite values")
        finished = self.constraint.add(transition)
        if cut:
            transition = attrs.evolve(transition, truncated=torch.ones_like(transition.truncated))
        transition = Transition(*(value.to(self.device) for value in attrs.astuple(transition, recurse=False)))
        self.store.add(transition)
        self.source.add(transition.obs)
        if self.normaliser is not None:
            self.normaliser.update(transition.obs)
        self.steps += self.num_envs
        return finished

    # ---------------------------------------------------------------------------------------------- learning

    def update(self) -> dict[str, Tensor]:
        """One round of CVPO on a replayed batch; metrics as 0-d tensors, left on the device."""
        batch = self.store.sample(self.config.batch_size)
        states = self._normalised(self.source.select(batch, self.estep_batch))
        batch = self._normalised_batch(batch)

        metrics = self._evaluate_policy(batch)
        obs, old, actions, weights, estep = self._expectation(states)
        metrics.update(estep)
        fitted = self.config.fit.fit(
            self.fit, self.policy, self.config.mstep, obs, old, list(self.old_policy.parameters()), actions, weights
        )
        metrics.update({f"mstep/{name}": value for name, value in fitted.items()})

        _polyak(self.target_critic, self.critic, self.config.target_tau)
        self.updates += 1
        if self.config.old_policy == "polyak":
            _polyak(self.old_policy, self.policy, self.config.old_tau)
        elif self.updates % self.config.old_period == 0:
            _polyak(self.old_policy, self.policy, 1.0)
        return metrics

    def _evaluate_policy(self, batch: Batch) -> dict[str, Tensor]:
        """Critics: ``Q_s(o,a) <- x_s + γⁿ E_π Q_s(o',a')``."""
        config = self.config
        with torch.no_grad():
            policy = self.old_policy if config.target_policy == "old" else self.policy
            actions = policy(batch.next_obs).sample(config.target_particles, self.generator)
            values = config.critic.evaluate(self.target_critic, batch.next_obs, actions).mean(-1)
            target = td_targets(
                batch.signals, batch.discount, batch.terminated, values, mask_cost=config.mask_cost
            )
        loss, td = config.critic.loss(self.critic, batch, target)
        self.critic_optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.critic_optimiser.step()
        self.store.reprioritise(batch.index, td)
        means = target.mean(-1)
        metrics = {"critic/loss": loss.detach(), "critic/td_error": td.mean(), "critic/target_reward": means[0]}
        metrics.update({f"critic/target_cost_{m}": means[1 + m] for m in range(len(config.cost_limits))})
        return metrics

    @torch.no_grad()
    def _expectation(self, obs: Tensor) -> tuple[Tensor, Any, Tensor, Tensor, dict[str, Tensor]]:
        """E-step: weights w [B,K] of actions [B,K,D] drawn from π_old, under the cost limits and the KL bound."""
        config = self.config
        old = self.old_policy(obs)
        if config.policy.discrete:
            # Every action is a particle: the E-step is exact, with the policy itself as the prior.
            actions = torch.eye(self.spec.action_size, device=obs.device).expand(obs.shape[0], -1, -1)
            log_prior = torch.log_softmax(old.logits, -1)
            prior = log_prior.exp()
        else:
            actions, log_prior, prior = old.sample(config.particles, self.generator), None, None
        net = self.target_critic if config.estep_critic == "target" else self.critic
        q = config.critic.evaluate(net, obs, actions)
        if config.limit.measure == "critic":
            self.constraint.measured = self._start_values()
        limit = self.constraint.threshold(q[1:], prior)
        problem = DualProblem(q[0], q[1:], limit, config.kl_epsilon, log_prior)
        solution = config.estep.solve(problem, warm=self.solution if config.warm_start else None)
        self.solution = solution
        weights = solution.weights
        reference = -np.log(weights.shape[-1]) if log_prior is None else log_prior
        kl = (torch.xlogy(weights, weights) - weights * reference).sum(-1).mean()
        metrics = {
            "estep/eta": solution.eta,
            "estep/kl": kl / config.kl_epsilon,
            "estep/iterations": solution.iterations.float(),
            "estep/violation": solution.violation,
            "estep/q_range": (q[0].amax(-1) - q[0].amin(-1)).mean(),
        }
        counts = (solution.status == self._statuses).double().unbind()
        metrics.update(zip(_STATUS_METRICS, counts, strict=True))
        for m in range(len(config.cost_limits)):
            metrics[f"estep/lam_{m}"] = solution.lam[m]
            metrics[f"estep/cost_{m}"] = (weights * q[1 + m]).sum(-1).mean()
            metrics[f"estep/limit_{m}"] = limit[m]
        return obs, old, actions, weights, metrics

    def _start_values(self) -> Tensor:
        """J_c [M] as the critic sees it: mean value of the old policy at the newest episode starts."""
        starts = [episode.obs for episode in self.constraint.statistics.episodes]
        if not starts:
            return self.constraint.limit
        obs = self._normalised(torch.as_tensor(np.stack(starts), device=self.device))
        actions = self.old_policy(obs).sample(self.config.particles, self.generator)
        return self.config.critic.evaluate(self.target_critic, obs, actions)[1:].mean((-2, -1)).double()

    @torch.no_grad()
    def predicted_cost(self, episode: Episode) -> np.ndarray:
        """Q_c [M] at the first step of an episode, to be held against its realised discounted cost (calibration)."""
        obs = self._normalised(torch.as_tensor(episode.obs, device=self.device)[None])
        action = torch.as_tensor(episode.action, device=self.device)[None, None]
        return self.config.critic.evaluate(self.critic, obs, action)[1:, 0, 0].cpu().numpy()

    # ---------------------------------------------------------------------------------------------- conveniences

    def learn(self, total_steps: int, callback: Any = None, *, env: Any = None, **schedule: Any) -> CVPO:
        """Collect and update until ``total_steps`` more environment steps are taken; see :func:`cvpo.train.learn`.

        The environment is ``env``, or the one given to :func:`cvpo.make_agent`; it is never closed or replaced.
        """
        from cvpo.train import learn

        learn(self, total_steps, self.env if env is None else env, callback=callback, **schedule)
        return self

    def save(self, path: Any, *, replay: bool = True) -> None:
        """Write configuration and state to one file, atomically; ``replay=False`` leaves the buffer out."""
        from cvpo.assembly import save

        save(self, path, replay=replay)

    @classmethod
    def load(cls, path: Any, *, env: Any = None, device: str = "cpu") -> CVPO:
        """The agent that :meth:`save` wrote; nothing in the file is executed."""
        from cvpo.assembly import load

        return load(path, env=env, device=device)

    # ---------------------------------------------------------------------------------------------- state

    def state_dict(self, *, replay: bool = True) -> dict[str, Any]:
        """Everything the next update depends on: networks, optimisers, multipliers, duals, buffer, generator."""
        state: dict[str, Any] = {
            "policy": self.policy.state_dict(),
            "old_policy": self.old_policy.state_dict(),
            "critic": self.critic.state_dict(),
            "target_critic": self.target_critic.state_dict(),
            "critic_optimiser": self.critic_optimiser.state_dict(),
            "fit": self.fit.state_dict(),
            "constraint": self.constraint.state_dict(),
            "normaliser": None if self.normaliser is None else self.normaliser.state_dict(),
            "solution": None if self.solution is None else attrs.asdict(self.solution, recurse=False),
            "generator": self.generator.get_state(),
            "steps": self.steps,
            "updates": self.updates,
        }
        if replay:
            state["store"] = self.store.state_dict()
            state["source"] = self.source.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state of :meth:`state_dict`; the next update is then bit-identical to the saved agent's."""
        for name in ("policy", "old_policy", "critic", "target_critic", "critic_optimiser", "fit", "constraint"):
            getattr(self, name).load_state_dict(state[name])
        if self.normaliser is not None:
            self.normaliser.load_state_dict(state["normaliser"])
        for name in ("store", "source"):
            if name in state:
                getattr(self, name).load_state_dict(state[name])
        saved = state["solution"]
        self.solution = None if saved is None else DualSolution(**saved)
        self.generator.set_state(state["generator"])
        self.steps, self.updates = int(state["steps"]), int(state["updates"])

    def _normalised(self, obs: Tensor) -> Tensor:
        return obs if self.normaliser is None else self.normaliser(obs)

    def _normalised_batch(self, batch: Batch) -> Batch:
        if self.normaliser is None:
            return batch
        return attrs.evolve(batch, obs=self.normaliser(batch.obs), next_obs=self.normaliser(batch.next_obs))


def _adam(module: nn.Module, lr: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(module.parameters(), lr=lr, fused=True)


@torch.no_grad()
def _polyak(target: nn.Module, source: nn.Module, tau: float) -> None:
    """``θ_target <- (1−τ) θ_target + τ θ``, all tensors in one call."""
    torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), tau)

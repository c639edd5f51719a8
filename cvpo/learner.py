"""One round of CVPO on given states: the networks, their optimisers, and the three stages of the update.

Shape legend: ``B`` states, ``K`` actions per state (particles), ``M`` costs, ``S = 1 + M`` signals, ``P`` members of a
population.
"""

from __future__ import annotations

import copy
from typing import Any

import attrs
import torch
from torch import Tensor

from cvpo.averages import Averages
from cvpo.config import AgentConfig
from cvpo.constraint import Constraint, Constraints
from cvpo.critics.level import correct_level
from cvpo.critics.returns import Evaluation
from cvpo.critics.targets import bootstrap_of
from cvpo.distributions.checks import check_network
from cvpo.errors import load_part
from cvpo.estep import DualProblem, DualSolution
from cvpo.estep.metrics import expectation_metrics
from cvpo.handover import require_network, require_pair, require_tensor
from cvpo.types import Batch, Spec

NETWORKS = ("policy", "old_policy", "critic", "target_critic")
"""Those of every learner; with ``policy_average`` there is ``mean_policy`` as well."""


class Learner:
    """``critics -> E-step weights w of sampled actions -> policy fitted to w inside a trust region -> averages``.

    Knows neither environments nor replay: :meth:`update` is given a batch and states. ``generator`` draws the actions;
    ``seed`` fixes the networks. Source: CVPO (arXiv 2201.11927), algorithm 1.

    ``population`` (P,) is P learners in one: every tensor, metrics included, has a leading axis P, ``generator`` is P
    of them, each of which draws what it would alone, and ``kl_epsilon`` [P] may differ. () is a single learner, without
    that axis.
    """

    def __init__(
        self,
        config: AgentConfig,
        spec: Spec,
        *,
        seed: int,
        device: torch.device,
        generator: Any,
        population: tuple[int, ...] = (),
        kl_epsilon: Tensor | None = None,
    ) -> None:
        self.config, self.spec, self.generator = config, spec, generator
        init = torch.Generator().manual_seed(seed)
        sizes = (spec.obs_size, spec.action_size)
        count = {"population": population[0]} if population else {}
        policy = config.policy.build(*sizes, **count, generator=init)
        critic = config.critic.build(*sizes, config.signals, **count, generator=init)
        self.policy = require_network("what policy.build gives", policy)
        self.critic = require_network("what critic.build gives", critic)
        # Observations are float32, whatever torch's default is.
        for net in (self.policy, self.critic):
            net.to(device, torch.float32)
        many = population[0] if population else 1
        check_network(self.policy, *sizes, discrete=config.policy.discrete, population=many)
        self.averages = Averages(config, self.policy, self.critic)
        self.old_policy, self.target_critic = self.averages.old_policy, self.averages.target_critic
        self.mean_policy = self.averages.mean_policy
        self.networks = NETWORKS if self.mean_policy is None else (*NETWORKS, "mean_policy")
        self.critic_optimiser = torch.optim.Adam(self.critic.parameters(), lr=config.critic_lr, fused=True)
        self.fit = config.fit.build(self.policy, config.mstep, *([population] if population else []))
        # A fit of a user's own may do without an optimiser.
        optimisers = (self.critic_optimiser, getattr(self.fit, "optimizer", None))
        self._rates = [(each, each.param_groups[0]["lr"]) for each in optimisers if each is not None]
        self.solution: Any = None
        self.updates = 0
        self._bootstrap = bootstrap_of(config.critic)
        self._td_critic = self.target_critic if config.td_critic == "target" else self.critic
        self._evaluation = Evaluation(
            policy=self.old_policy if config.target_policy == "old" else self.policy,
            next_values=self._next_values,
            q_values=self._target_q_values,
            gamma=spec.gamma,
            mask_cost=config.mask_cost,
        )
        self._kl_epsilon = config.kl_epsilon if kl_epsilon is None else kl_epsilon
        self._lead = len(population)
        self._each = torch.ones(population, device=device)

    @torch.enable_grad()
    def update(
        self, batch: Batch, obs: Tensor, constraint: Constraint | Constraints
    ) -> tuple[dict[str, Tensor], Tensor]:
        """One round, with the E-step on the states ``obs`` [B,O]; metrics as 0-d tensors, and |TD error| [B].

        Of a population, all with a leading axis P. In the first ``critic_warmup`` rounds the critics alone.
        """
        metrics, td = self.evaluate_policy(batch)
        if self.updates >= self.config.critic_warmup:
            old = self.old_policy(obs)
            actions, weights, expected = self._expectation(obs, old, constraint)
            start = self.averages.old_parameters
            fitted = self.config.fit.fit(self.fit, self.policy, self.config.mstep, obs, old, start, actions, weights)
            metrics |= expected | {f"mstep/{name}": value for name, value in fitted.items()}
        self.updates += 1
        self.averages.step(self.updates)
        return metrics, td

    def scale_rates(self, share: float) -> None:
        """Set the learning rates of critics and policy to ``share`` of what they were built with."""
        for optimiser, rate in self._rates:
            for group in optimiser.param_groups:
                group["lr"] = share * rate

    def evaluate_policy(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """Critics: ``Q_s(o,a) <- y_s``, the target of ``config.returns``."""
        config = self.config
        with torch.no_grad():
            target = config.returns.targets(batch, self._evaluation)
        samples = getattr(target, "shape", ())[self._lead : -2]
        shape = (*self._each.shape, *samples, self.spec.signals, batch.weight.shape[-1])
        require_tensor("targets of the returns", target, shape, batch.obs.dtype)
        found = config.critic.loss(self.critic, batch, target)
        loss, td = require_pair("what critic.loss gives, the loss and |TD error|,", found)
        require_tensor("the critic's loss", loss, self._each.shape)
        require_tensor("the critic's TD errors", td, batch.weight.shape)
        # To walk modules, or the optimiser's groups, takes longer.
        for parameter in self.averages.critic_parameters:
            parameter.grad = None
        # Of a population the losses are apart: each has the gradient 1, as the loss of a single one.
        loss.backward(self._each)
        self.critic_optimiser.step()
        if config.level_rate:
            nets = self.critic, self.target_critic
            correct_level(config.critic, *nets, batch, target, config.level_rate, mask_cost=config.mask_cost)
        reward, *costs = target.mean((*range(self._lead, target.ndim - 2), -1)).unbind(-1)
        metrics = {"critic/loss": loss.detach(), "critic/td_error": td.mean(-1), "critic/target_reward": reward}
        return metrics | {f"critic/target_cost_{m}": cost for m, cost in enumerate(costs)}, td

    def _next_values(self, obs: Tensor) -> Tensor:
        """V_s = E_π Q_s(o, a) of the critics that targets are made of, from ``target_particles`` actions."""
        actions = self._evaluation.policy(obs).sample(self.config.target_particles, self.generator)
        values = self._bootstrap(self._td_critic, obs, actions)
        # A signal that is missing would be taken from another.
        samples = values.shape[self._lead : -2]
        shape = (*self._each.shape, *samples, *self._sized(obs))
        require_tensor("the critic's V of next states", values, shape, obs.dtype)
        return values

    def _sized(self, obs: Tensor) -> tuple[int, int]:
        """S signals of the B states ``obs`` [...,B,O]."""
        return self.spec.signals, obs.shape[-2]

    def _target_q_values(self, obs: Tensor, actions: Tensor) -> Tensor:
        return self.config.critic.evaluate(self._td_critic, obs, actions.unsqueeze(-2)).squeeze(-1)

    @torch.no_grad()
    def _expectation(
        self, obs: Tensor, old: Any, constraint: Constraint | Constraints
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """E-step: weights w [B,K] of actions [B,K,D] drawn from π_old, under the cost limits and the KL bound."""
        config = self.config
        if config.policy.discrete:
            # Every action is a particle: the E-step is exact, with the policy itself as the prior.
            every = torch.eye(self.spec.action_size, dtype=obs.dtype, device=obs.device)
            actions = every.expand(*obs.shape[:-1], -1, -1)
            log_prior = torch.log_softmax(old.logits, -1)
            prior = log_prior.exp()
        else:
            actions, log_prior, prior = old.sample(config.particles, self.generator), None, None
        net = self.target_critic if config.estep_critic == "target" else self.critic
        q = config.critic.evaluate(net, obs, actions)
        require_tensor("the critic's Q", q, (*self._each.shape, *self._sized(obs), actions.shape[-2]), obs.dtype)
        reward, costs = q[..., 0, :, :], q[..., 1:, :, :]
        limit = constraint.threshold(costs, prior)
        require_tensor("the limit's threshold", limit, costs.shape[:-2])
        problem = DualProblem(reward, costs, limit, self._kl_epsilon, log_prior)
        solution = config.estep.solve(problem, warm=self.solution if config.warm_start else None)
        _check_solution(solution, problem)
        self.solution = solution
        measured = {f"estep/{name}": value for name, value in expectation_metrics(problem, solution).items()}
        return actions, solution.weights, measured | {"policy/entropy": old.entropy().mean(-1)}

    @torch.no_grad()
    def values(self, obs: Tensor) -> Tensor:
        """V_s = E_π Q_s [S,B] of the old policy by the target critics, from ``particles`` actions for each state."""
        actions = self.old_policy(obs).sample(self.config.particles, self.generator)
        return self.config.critic.evaluate(self.target_critic, obs, actions).mean(-1)

    @torch.no_grad()
    def q_values(self, obs: Tensor, actions: Tensor) -> Tensor:
        """Q_s [S,B] by the online critics, for states [B,O] and one action [B,D] in each."""
        return self.config.critic.evaluate(self.critic, obs, actions.unsqueeze(-2)).squeeze(-1)

    def state_dict(self) -> dict[str, Any]:
        """Networks, optimisers, multipliers and duals: a copy, which later updates do not change."""
        state = {name: getattr(self, name).state_dict() for name in (*self.networks, "critic_optimiser", "fit")}
        solution = None if self.solution is None else attrs.asdict(self.solution, recurse=False)
        return copy.deepcopy({**state, "solution": solution, "updates": self.updates})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state of :meth:`state_dict`."""
        for name in (*self.networks, "fit"):
            load_part(self, name, state[name])
        # Optimisers keep the tensors that they are given, and change them in place.
        load_part(self, "critic_optimiser", copy.deepcopy(state["critic_optimiser"]))
        saved = state["solution"]
        self.solution = None if saved is None else DualSolution(**saved).to(self._each.device)
        self.updates = int(state["updates"])
        # The rates saved are those of a moment in a schedule, which its loop sets again before each update.
        self.scale_rates(1.0)


def _check_solution(solution: Any, problem: DualProblem) -> None:
    """Raises ConfigError unless ``solution`` has what an update reads of it."""
    reward, each = problem.q_reward, problem.kl_epsilon.shape
    shapes = {"weights": reward.shape, "eta": each, "lam": problem.cost_limit.shape}
    for name, shape in (shapes | dict.fromkeys(("status", "iterations", "violation"), each)).items():
        dtype = reward.dtype if name == "weights" else None
        require_tensor(f"{name} of the E-step's solution", getattr(solution, name, None), shape, dtype)

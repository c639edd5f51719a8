"""The E-step dual of one problem in NumPy: what a careful user of SciPy would hand to its optimisers.

Raw units, float64, one pass: for value and gradient exp is taken once, and the reductions are matrix products. It is
written apart from :mod:`cvpo.estep.dual` on purpose, so that baselines do not pay for the library's choices, or profit
from them.
"""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from cvpo.estep import DualProblem


class NumpyDual:
    """g(η, λ) and ∇g of problem ``index`` of a flattened stack; ``values`` and ``gradients`` count the evaluations."""

    def __init__(self, problem: DualProblem, index: int) -> None:
        states, particles = problem.q_reward.shape[-2:]

        def host(tensor: Tensor, *shape: int) -> np.ndarray:
            return tensor.reshape(-1, *shape)[index].double().numpy(force=True)

        self.shape = states, particles
        self.reward = host(problem.q_reward, states * particles)
        # torch cannot infer the leading size of a tensor without elements.
        costs = problem.costs
        self.cost = host(problem.q_cost, costs, states * particles) if costs else np.empty((0, states * particles))
        self.limit = host(problem.cost_limit, costs) if costs else np.empty(0)
        self.epsilon = float(problem.kl_epsilon.reshape(-1)[index])
        prior = problem.log_prior
        self.log_prior = None if prior is None else host(prior, states, particles)
        self._log_count = 0.0 if prior is not None else math.log(particles)
        self._ones = np.ones(particles)
        self.values = self.gradients = 0

    def value(self, x: np.ndarray) -> float:
        """g at x = (η, λ)."""
        self.values += 1
        return self._pass(x)[0]

    def value_and_gradient(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """g and ∇g at x = (η, λ)."""
        self.gradients += 1
        value, log_weight, mass, total = self._pass(x)
        share = 1.0 / total
        if self.log_prior is not None:
            log_weight = np.subtract(log_weight, self.log_prior, out=np.zeros_like(mass), where=mass > 0)
        kl = (np.einsum("bk,bk->b", mass, log_weight) * share - np.log(total)).mean() + self._log_count
        cost = [np.einsum("bk,bk->b", mass, one.reshape(self.shape)) @ share / self.shape[0] for one in self.cost]
        return value, np.concatenate([[self.epsilon - kl], self.limit - np.array(cost)])

    def weights(self, x: np.ndarray) -> np.ndarray:
        """softmax_k((Q_r − λᵀQ_c)/η + log p) [B,K]."""
        _, _, mass, total = self._pass(x)
        return mass / total[:, None]

    def _pass(self, x: np.ndarray) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
        """g; z + log p less its largest value in each state [B,K]; exp of that, and its sums [B]."""
        eta, lam = float(x[0]), x[1:]
        z = self.reward / eta
        for multiplier, cost in zip(lam.tolist(), self.cost, strict=True):
            z -= (multiplier / eta) * cost
        z = z.reshape(self.shape)
        if self.log_prior is not None:
            z += self.log_prior
        top = z.max(-1)
        z -= top[:, None]
        mass = np.exp(z)
        total = mass @ self._ones
        value = eta * (self.epsilon + (top + np.log(total)).mean() - self._log_count) + float(lam @ self.limit)
        return value, z, mass, total

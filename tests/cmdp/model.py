"""A small constrained Markov decision process with everything known: true Q-values, costs, and the true optimum.

Shape legend: ``X`` states, ``A`` actions, ``M`` costs, ``S = 1 + M`` signals, reward first.
"""

from __future__ import annotations

import attrs
import numpy as np
from scipy.optimize import linprog


@attrs.frozen(eq=False)
class Cmdp:
    """``next`` P(x'|x,a) [X,A,X], expected ``signals`` [S,X,A], ``start`` ρ [X], ``gamma``: all float64."""

    next: np.ndarray
    signals: np.ndarray
    start: np.ndarray
    gamma: float

    def q_values(self, policy: np.ndarray) -> np.ndarray:
        """Q_s(x,a) [S,X,A] of ``policy`` [X,A]: V = (1 − γ P_π)⁻¹ x_π, then Q = x + γ P V."""
        onward = np.einsum("xa,xay->xy", policy, self.next)
        reward = np.einsum("xa,sxa->xs", policy, self.signals)
        values = np.linalg.solve(np.eye(len(onward)) - self.gamma * onward, reward)
        return self.signals + self.gamma * np.einsum("xay,ys->sxa", self.next, values)

    def returns(self, policy: np.ndarray) -> np.ndarray:
        """Discounted sums E_ρ[Σ_t γᵗ x_s,t] [S] of ``policy``."""
        return np.einsum("x,xa,sxa->s", self.start, policy, self.q_values(policy))

    def stationary(self, policy: np.ndarray) -> np.ndarray:
        """The state distribution [X] that ``policy`` leaves as it is."""
        onward = np.einsum("xa,xay->xy", policy, self.next)
        size = len(onward)
        system = np.vstack([onward.T - np.eye(size), np.ones(size)])
        return np.linalg.lstsq(system, np.append(np.zeros(size), 1.0), rcond=None)[0]

    def optimum(self, limits: np.ndarray) -> Optimum:
        """The linear program over occupancies x(x,a) = Σ_t γᵗ P(x_t=x, a_t=a), which is the constrained problem itself.

        max Σ x r   s.t.   Σ_a x(y,a) = ρ(y) + γ Σ_{x,a} P(y|x,a) x(x,a),   Σ x c_m <= d_m,   x >= 0
        """
        states, actions = self.signals.shape[1:]
        flows = np.repeat(np.eye(states), actions, axis=1) - self.gamma * self.next.reshape(-1, states).T
        costs = self.signals[1:].reshape(len(limits), -1) if len(limits) else None
        found = linprog(
            -self.signals[0].ravel(),
            A_ub=costs,
            b_ub=limits if len(limits) else None,
            A_eq=flows,
            b_eq=self.start,
            bounds=(0, None),
        )
        if not found.success:
            raise ValueError(f"the linear program has no answer: {found.message}")
        occupancy = found.x.reshape(states, actions)
        return Optimum(-found.fun, -found.ineqlin.marginals, occupancy)


@attrs.frozen(eq=False)
class Optimum:
    """The best discounted reward inside the limits, the price λ [M] of each limit, and the occupancy [X,A]."""

    reward: float
    prices: np.ndarray
    occupancy: np.ndarray


def random_cmdp(seed: int, costs: int, *, single_start: bool, states: int = 8, actions: int = 3) -> Cmdp:
    """Three possible successors of each action, rewards and costs in [0, 1], and costs that go with the reward: what
    pays costs, so that limits bind. γ = 0.9; the start is state 0 or any."""
    rng = np.random.default_rng(seed)
    onward = np.zeros((states, actions, states))
    for row in onward.reshape(-1, states):
        row[rng.choice(states, 3, replace=False)] = rng.dirichlet(np.ones(3))
    reward = rng.uniform(size=(1, states, actions))
    cost = 0.5 * reward + 0.5 * rng.uniform(size=(costs, states, actions))
    start = np.eye(states)[0] if single_start else np.full(states, 1.0 / states)
    return Cmdp(onward, np.concatenate([reward, cost]), start, 0.9)


def binding_limits(cmdp: Cmdp, share: float = 0.5) -> np.ndarray:
    """Limits [M] between the least possible costs and those of the best unconstrained policy, ``share`` of the way
    from the least total cost."""

    def greedy(signal: np.ndarray) -> np.ndarray:
        one = attrs.evolve(cmdp, signals=np.concatenate([signal[None], cmdp.signals[1:]]))
        return np.einsum("xa,mxa->m", one.optimum(np.zeros(0)).occupancy, cmdp.signals[1:])

    least, free = greedy(-cmdp.signals[1:].sum(0)), greedy(cmdp.signals[0])
    return least + share * (free - least)

"""A user's own solver, projection, critic and buffer: registered and trained with, without touching the library."""

from __future__ import annotations

from typing import ClassVar

import attrs
import numpy as np
import pytest
import torch
from torch import nn

import cvpo
from cvpo.distributions import Gaussian
from cvpo.envs import make
from cvpo.estep import DualSolution, Status
from tests.fakes import Line


@attrs.frozen
class GridSolver:
    """E-step by brute force: the best pair (η, λ) on a logarithmic grid, for one cost."""

    summary: ClassVar[str] = "grid search over the dual"
    accuracy: ClassVar[float] = 0.1
    points: int = 25

    def solve(self, problem, warm=None):
        eta = torch.logspace(-3, 2, self.points, dtype=torch.float64)
        lam = torch.cat([torch.zeros(1, dtype=torch.float64), torch.logspace(-2, 2, self.points, dtype=torch.float64)])
        grid_eta, grid_lam = (x.reshape(-1, 1, 1) for x in torch.meshgrid(eta, lam, indexing="ij"))
        z = (problem.q_reward.double() - grid_lam * problem.q_cost[0].double()) / grid_eta
        log_mean = torch.logsumexp(z, -1) - np.log(z.shape[-1])
        g = grid_eta[:, 0, 0] * (problem.kl_epsilon + log_mean.mean(-1)) + grid_lam[:, 0, 0] * problem.cost_limit[0]
        best = g.argmin()
        return DualSolution(
            eta=grid_eta[best, 0, 0],
            lam=grid_lam[best, 0],
            weights=torch.softmax(z[best], -1).to(problem.q_reward.dtype),
            status=torch.tensor(int(Status.OK)),
            iterations=torch.tensor(g.numel()),
            violation=torch.zeros((), dtype=torch.float64),
        )


@attrs.frozen
class MeanOnly:
    """M-step that moves the mean alone: KL_mean <= ε, the covariance stays."""

    summary: ClassVar[str] = "mean only"
    kinds: ClassVar[tuple[str, ...]] = ("gaussian",)
    kl_mean: float = 0.02
    average: str = "batch"

    @property
    def bounds(self):
        return {"mean": self.kl_mean}

    def project(self, old, actions, weights):
        target = (weights.unsqueeze(-1) * actions).sum(-2)
        kl = 0.5 * ((target - old.mean) / old.scale).square().sum(-1).mean(-1, keepdim=True).unsqueeze(-1)
        return Gaussian(old.mean + (target - old.mean) * (self.kl_mean / kl).sqrt().clamp(max=1.0), old.scale)

    def kl(self, old, new):
        return {"mean": 0.5 * ((new.mean - old.mean) / old.scale).square().sum(-1)}

    def objective(self, old, new, actions, weights):
        return (weights * Gaussian(new.mean, old.scale).log_prob(actions)).sum(-1)


@attrs.frozen
class LinearCritic:
    """One linear layer on [obs, action, their products]."""

    summary: ClassVar[str] = "linear in products"

    def build(self, obs_size, action_size, signals, population=1, generator=None):
        return nn.Linear(obs_size + action_size + obs_size * action_size, signals)

    def evaluate(self, net, obs, actions):
        states = obs.unsqueeze(-2).expand(*actions.shape[:-1], obs.shape[-1])
        products = (states.unsqueeze(-1) * actions.unsqueeze(-2)).flatten(-2)
        return net(torch.cat([states, actions, products], -1)).movedim(-1, -3)

    def loss(self, net, batch, target):
        error = self.evaluate(net, batch.obs, batch.action.unsqueeze(-2)).squeeze(-1) - target
        return (error.square() * batch.weight).mean(), error.detach().abs().mean(-2)


@attrs.frozen
class NewestFirst:
    """A list of transitions, newest half preferred: only what the protocol names, and nothing else."""

    summary: ClassVar[str] = "newest first"
    capacity: int = 500

    def build(self, spec, num_envs, device, generator):
        return NewestFirstStore(self, spec, generator)


class NewestFirstStore:
    def __init__(self, config, spec, generator):
        self.config, self.spec, self.generator, self.rows = config, spec, generator, []

    def __len__(self):
        return len(self.rows)

    def add(self, transition):
        self.rows = (self.rows + [transition])[-self.config.capacity :]

    def sample(self, size):
        half = len(self.rows) // 2
        picks = torch.randint(half, len(self.rows), (size,), generator=self.generator)
        rows = [self.rows[int(i)] for i in picks]
        return cvpo.Batch(
            obs=torch.cat([row.obs for row in rows]),
            action=torch.cat([row.action for row in rows]),
            signals=torch.cat([row.signals for row in rows], -1),
            next_obs=torch.cat([row.next_obs for row in rows]),
            terminated=torch.cat([row.terminated for row in rows]),
            discount=torch.full((size,), self.spec.gamma),
            weight=torch.ones(size),
            index=picks,
        )

    def reprioritise(self, index, td):
        pass


FAMILIES = {
    "estep": ("test-grid", GridSolver, cvpo.estep.registry),
    "mstep": ("test-mean-only", MeanOnly, cvpo.mstep.registry),
    "critic": ("test-linear", LinearCritic, cvpo.critics.registry),
    "buffer": ("test-newest-first", NewestFirst, cvpo.buffers.registry),
}


@pytest.fixture
def registered():
    for name, component, registry in FAMILIES.values():
        registry.register(name, component)
    yield
    for name, _, registry in FAMILIES.values():
        del registry._targets[name]


def build(**parts):
    env = make(lambda: Line(1), seed=0, horizon=20)
    agent = cvpo.make_agent(
        env.observation_space, env.action_space, env=env, cost_limits=8.0, seed=0, batch_size=64, **parts
    )
    return agent, env


@pytest.mark.parametrize("part", [*FAMILIES, "all"])
def test_own_components_train(registered, part):
    names = {p: name for p, (name, _, _) in FAMILIES.items() if part in (p, "all")}
    agent, env = build(**names)
    for p in names:
        assert type(getattr(agent.config, p)) is FAMILIES[p][1]
    start = [parameter.clone() for parameter in agent.policy.parameters()]
    rows = []
    cvpo.learn(
        agent,
        400,
        env,
        warmup_steps=100,
        updates_per_step=0.5,
        callback=lambda loop: rows.append(loop.means.take()) or None,
    )
    rows = [row for row in rows if row]
    assert agent.updates == 150 and len(rows) == 150
    assert any(not torch.equal(a, b) for a, b in zip(start, agent.policy.parameters(), strict=True))
    assert all(row["estep/ok"] + row["estep/infeasible"] == 1.0 for row in rows)
    assert all(row["mstep/kl/mean"] <= 1.0 + 1e-3 for row in rows)


def test_own_components_are_found_again_by_path():
    agent, _ = build(estep=f"{__name__}:GridSolver", critic=LinearCritic(), mstep=MeanOnly(kl_mean=0.5))
    from cvpo.assembly import describe

    plain = describe(agent.config)
    assert plain["estep"] == {"name": f"{__name__}:GridSolver", "points": 25}
    again = cvpo.make_agent(agent.observation_space, agent.action_space, **plain)
    assert again.config == agent.config and again.config.mstep.kl_mean == 0.5

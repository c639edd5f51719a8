"""Hypothesis strategies for E-step problems: every edge case of the contract, each drawn often enough to be met."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor

from cvpo.estep import DualProblem, DualSolution, Status

REWARDS = ("small integers", "normal", "ties", "constant", "heavy tails", "one state dominates")
COSTS = ("free", "proportional to the reward", "constant in each state", "all the same")
LIMITS = ("active", "loose", "tight", "active, with others loose", "least possible", "out of reach", "anywhere")


@st.composite
def dual_problems(
    draw: st.DrawFn,
    *,
    max_costs: int = 4,
    particles: tuple[int, ...] = (1, 2, 3, 5, 8, 16, 64, 256),
    max_states: int = 6,
    dtypes: tuple[torch.dtype, ...] = (torch.float64, torch.float32),
    stacks: bool = True,
    ordinary: bool = False,
) -> DualProblem:
    """A :class:`cvpo.estep.DualProblem`: 1 … ``max_states`` states, ``particles``, 0 … ``max_costs`` costs.

    Q-values are small integers (drawn one by one, so that examples shrink to something readable), normal, tied,
    constant or heavy-tailed; costs are free, proportional to the reward, constant in each state, or M times the same
    one; both are scaled by 1e-6 … 1e6, the last cost by 1e-5 besides now and then, and shifted per state. Limits are
    active, loose, tight, exactly the least possible cost, or out of reach; ε is from 1e-3 to far beyond log K, where
    the KL bound is slack and η → 0. The prior is uniform, uneven, next to certain, or −∞ for some particles.
    ``stacks`` adds a leading dimension now and then, with an ε of its own for the last problem. ``ordinary`` keeps to
    what an agent meets: normal Q-values of size one, limits that are mostly in reach, 0.01 <= ε <= 1, no peaked prior.
    """
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31 - 1), label="seed"))
    reward = "normal" if ordinary else draw(st.sampled_from(REWARDS), label="reward")
    listed = reward == "small integers"
    lead = draw(st.sampled_from([(), (2,)]), label="lead") if stacks and not listed else ()
    costs = draw(st.integers(0, max_costs), label="M")
    states = draw(st.integers(1, 2 if listed else max_states), label="B")
    count = draw(st.sampled_from([k for k in particles if k <= 3 or not listed] or [particles[0]]), label="K")
    if ordinary:
        states, count = states + 7, max(count, 8)
    shape = (*lead, states, count)
    q = _values(draw, reward, generator, shape)
    cost = "free" if ordinary else draw(st.sampled_from(COSTS), label="costs")
    c = _costs(draw, cost, generator, q, costs, listed)
    log_prior = _prior(draw, generator, shape, ordinary)
    if not ordinary:
        q = q * draw(st.sampled_from([1.0, 1e-6, 1e6]), label="scale of Q_r")
        c = c * draw(st.sampled_from([1.0, 1e-6, 1e6]), label="scale of Q_c")
        if costs > 1 and cost != "all the same" and draw(st.booleans(), label="the last cost in smaller units"):
            c[..., -1, :, :] *= 1e-5
        offset = draw(st.sampled_from([0.0, 100.0]), label="offsets per state, in units of the scale")
        q = q + offset * q.abs().amax() * torch.randn(*lead, states, 1, generator=generator, dtype=torch.float64)
    # Rounded to the problem's own dtype first: limits that are exactly reached must be so for the rounded costs.
    dtype = draw(st.sampled_from(dtypes), label="dtype")
    q, c = q.to(dtype), c.to(dtype)
    limits = ("active", "loose") if ordinary else LIMITS
    limit = _limits(draw(st.sampled_from(limits), label="limits"), generator, c.double(), log_prior)
    epsilons = (0.1, 0.01, 1.0) if ordinary else (0.1, 0.01, 0.001, 1.0, 5.0, 50.0)
    epsilon = torch.tensor(draw(st.sampled_from(epsilons), label="kl_epsilon"), dtype=torch.float64).repeat(lead)
    if lead:
        epsilon[-1] = draw(st.sampled_from(epsilons), label="kl_epsilon of the last problem")
    return DualProblem(q, c, limit, epsilon, None if log_prior is None else log_prior.to(dtype))


def edge_cases(problem: DualProblem, solution: DualSolution) -> set[str]:
    """What a problem and its solution are examples of, by name: the edges of the contract that they visit."""
    wide = (problem.q_reward.amax(-1) - problem.q_reward.amin(-1)).double().mean(-1)
    scale = torch.where(wide > 0, wide, 1.0)
    lam, status = solution.lam, solution.status
    feasible = (status == Status.OK).unsqueeze(-1)
    c = problem.q_cost
    found = {
        f"M = {problem.costs}": True,
        "K = 1": problem.q_reward.shape[-1] == 1,
        "K >= 64": problem.q_reward.shape[-1] >= 64,
        "float32": problem.q_reward.dtype == torch.float32,
        "a stack": problem.kl_epsilon.ndim > 0,
        "uneven prior": problem.log_prior is not None,
        "particles without prior": problem.log_prior is not None and bool((problem.log_prior == -torch.inf).any()),
        "constant reward": bool((wide == 0).any()),
        "Q_r of 1e-6 or less": bool(((wide > 0) & (wide < 1e-5)).any()),
        "Q_r of 1e6 or more": bool((wide > 1e5).any()),
        "KL bound slack": bool(((solution.eta <= 1e-6 * scale) & (status == Status.OK)).any()),
        "a cost active": bool(((lam > 0) & feasible).any()),
        "a cost inactive": bool(((lam == 0) & feasible).any()),
        "KL slack, cost active": bool(((solution.eta <= 1e-6 * scale).unsqueeze(-1) & (lam > 0) & feasible).any()),
        "infeasible": bool((status == Status.INFEASIBLE).any()),
        "costs in units apart": problem.costs > 1 and _apart(c),
        "collinear costs": problem.costs > 1 and torch.equal(c[..., 0, :, :], c[..., 1, :, :]),
    }
    return {name for name, holds in found.items() if holds}


def _apart(costs: Tensor) -> bool:
    """Whether the ranges of the costs of some problem are more than 1e4 apart, none of them 0."""
    low, high = (costs.amax(-1) - costs.amin(-1)).double().mean(-1).aminmax(dim=-1)
    return bool(((low > 0) & (high > 1e4 * low)).any())


def _values(draw: st.DrawFn, kind: str, generator: torch.Generator, shape: tuple[int, ...]) -> Tensor:
    if kind == "small integers":
        numbers = st.lists(st.integers(-2, 2), min_size=shape[-1] * shape[-2], max_size=shape[-1] * shape[-2])
        return torch.tensor(draw(numbers, label="values"), dtype=torch.float64).reshape(shape)
    q = torch.randn(shape, generator=generator, dtype=torch.float64)
    if kind == "ties":
        return (2 * q).round() / 2
    if kind == "constant":
        return torch.ones_like(q)
    if kind == "heavy tails":
        return q**5
    if kind == "one state dominates":
        q[..., 1:, :] *= 1e-3
    return q


def _costs(draw: st.DrawFn, kind: str, generator: torch.Generator, q: Tensor, costs: int, listed: bool) -> Tensor:
    lead = q.shape[:-2]
    if listed and costs:
        c = torch.stack([_values(draw, "small integers", generator, tuple(q.shape)) for _ in range(costs)], dim=-3)
    else:
        c = torch.randn(*lead, costs, *q.shape[-2:], generator=generator, dtype=torch.float64) + 0.5 * q.unsqueeze(-3)
    if costs and kind == "proportional to the reward":
        c[..., 0, :, :] = 2 * q
    elif costs and kind == "constant in each state":
        c[..., 0, :, :] = c[..., 0, :, :1]
    elif kind == "all the same":
        c = c[..., :1, :, :].expand_as(c).clone()
    return c


def _prior(draw: st.DrawFn, generator: torch.Generator, shape: tuple[int, ...], ordinary: bool) -> Tensor | None:
    kinds = ["uniform", "uneven", "some impossible", *([] if ordinary else ["peaked"])]
    kind = draw(st.sampled_from(kinds), label="prior")
    if kind == "uniform":
        return None
    logits = torch.randn(shape, generator=generator, dtype=torch.float64)
    if kind in ("uneven", "peaked"):
        return {"uneven": 2.0, "peaked": 30.0}[kind] * logits
    impossible = torch.rand(shape, generator=generator) < 0.4
    impossible[..., 0] = False
    return logits.masked_fill(impossible, -torch.inf)


def _limits(kind: str, generator: torch.Generator, c: Tensor, log_prior: Tensor | None) -> Tensor:
    """Between the prior's own cost and the least possible one, over the particles that the prior allows."""
    if log_prior is None:
        inside, p = torch.ones_like(c[..., :1, :, :], dtype=torch.bool), torch.full_like(c, 1 / c.shape[-1])
    else:
        inside, p = (log_prior > -torch.inf).unsqueeze(-3), log_prior.softmax(-1).unsqueeze(-3)
    mean = (c * p).sum(-1).mean(-1)
    least = c.masked_fill(~inside, torch.inf).amin(-1).mean(-1)
    most = c.masked_fill(~inside, -torch.inf).amax(-1).mean(-1)
    share = torch.rand(mean.shape, generator=generator, dtype=torch.float64)
    if kind == "loose":
        return mean + (most - mean) * share
    if kind == "least possible":
        return least
    if kind == "out of reach":
        return least - (0.1 + share) * torch.where(most > least, most - least, 1.0)
    if kind == "anywhere":
        return least + (most - least) * (4 * share - 2)
    if kind == "active, with others loose":
        loose = mean + (most - mean) * share
        return torch.cat([(mean + 0.2 * share * (least - mean))[..., :1], loose[..., 1:]], dim=-1)
    return mean + (least - mean) * share * (0.2 if kind == "active" else 1.0)

"""What a critic promises, one property each: drawn from a :data:`Case`, AssertionError where it breaks."""

from __future__ import annotations

import copy
from typing import Any

import attrs
import torch
from torch import Tensor

from cvpo.critics.targets import bootstrap_of, td_targets
from cvpo.testing.drawing import require, same
from cvpo.types import Batch

OBS, ACT = 3, 2
Case = tuple[int, int, int, int]
"""Signals S, states B, actions K per state, seed."""


def check_form(critic: Any, case: Case) -> None:
    """[S,B,K] and finite, with a further leading axis too."""
    net, obs, actions = _drawn(critic, case)
    before = obs.clone(), actions.clone()
    q = critic.evaluate(net, obs, actions)
    signals, states, count, _ = case
    require(q.shape == (signals, states, count), f"evaluate gives {tuple(q.shape)}; allowed: (S, B, K) = {case[:3]}")
    require(q.dtype == obs.dtype, f"evaluate gives {q.dtype}; allowed: {obs.dtype}, as the observations")
    require(bool(torch.isfinite(q).all()), "evaluate gives values that are not finite")
    kept = torch.equal(before[0], obs) and torch.equal(before[1], actions)
    require(kept, "evaluate changed its inputs in place")
    stacked = critic.evaluate(net, torch.stack([obs, obs]), torch.stack([actions, actions]))
    same("a stack of two equal problems", stacked, torch.stack([q, q]))


def check_rows(critic: Any, case: Case) -> None:
    """States and actions in another order, or alone, have the same values."""
    net, obs, actions = _drawn(critic, case)
    q = critic.evaluate(net, obs, actions)
    same("states in reverse", critic.evaluate(net, obs.flip(0), actions.flip(0)).flip(1), q)
    same("actions in reverse", critic.evaluate(net, obs, actions.flip(1)).flip(2), q)
    same("the first state alone", critic.evaluate(net, obs[:1], actions[:1]), q[:, :1])
    same("the first action alone", critic.evaluate(net, obs, actions[:, :1]), q[:, :, :1])


def check_build(critic: Any, case: Case) -> None:
    """One seed, one network."""
    net, obs, actions = _drawn(critic, case)
    again, _, _ = _drawn(critic, case)
    same("a network from the same seed", critic.evaluate(again, obs, actions), critic.evaluate(net, obs, actions))


def check_pessimism(critic: Any, case: Case) -> None:
    """Reward at most, costs at least what the members say on average; only where the critic offers ``ensemble``."""
    if not hasattr(critic, "ensemble"):
        return
    net, obs, actions = _drawn(critic, case)
    members = torch.stack([each.mean(-3) for each in critic.ensemble(net, obs, actions)])
    q = critic.evaluate(net, obs, actions)
    room = 1e-5 * (1.0 + members.abs())
    reward = bool((q[0] <= members[0] + room[0]).all())
    require(reward, "the reward's Q is above the mean of the ensemble; allowed: at most the mean")
    costs = bool((q[1:] >= members[1:] - room[1:]).all())
    require(costs, "a cost's Q is below the mean of the ensemble; allowed: at least the mean")


def check_loss(critic: Any, case: Case) -> None:
    """Doubled weights double loss and gradients, a weight of 0 takes its row out; TD errors have no weights."""
    net, obs, _ = _drawn(critic, case)
    signals, states, _, seed = case
    generator = torch.Generator().manual_seed(seed)
    batch = _batch(obs, torch.rand(states, ACT, generator=generator), signals)
    target = 1.0 + torch.rand(signals, states, generator=generator)

    def graded(weight: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        net.zero_grad()
        loss, td = critic.loss(net, _weighted(batch, weight), target)
        require(loss.ndim == 0, f"the loss has shape {tuple(loss.shape)}; allowed: a scalar")
        require(td.shape == (states,), f"TD errors have shape {tuple(td.shape)}; allowed: (B,) = ({states},)")
        require(bool((td >= 0).all()) and not td.requires_grad, "TD errors are negative, or carry a gradient")
        loss.backward()
        missing = [name for name, p in net.named_parameters() if p.grad is None]
        require(not missing, f"the loss does not reach the parameters {missing}")
        return loss.detach(), torch.cat([p.grad.flatten() for p in net.parameters()]), td  # type: ignore[union-attr]

    weight = 0.1 + torch.rand(states, generator=generator)
    loss, gradient, td = graded(weight, target)
    twice, steeper, unweighted = graded(2.0 * weight, target)
    same("the loss with doubled weights", twice, 2.0 * loss)
    same("gradients with doubled weights", steeper, 2.0 * gradient)
    same("TD errors with doubled weights", unweighted, td)
    weight[0] = 0.0
    moved = target.clone()
    moved[:, 0] += 5.0
    loss, gradient, _ = graded(weight, target)
    same("the loss with another target in a row of weight 0", graded(weight, moved)[0], loss)
    same("gradients with another target in a row of weight 0", graded(weight, moved)[1], gradient)


def check_evaluation(critic: Any, signals: int, accuracy: float) -> None:
    """Q of the policy a = 0.5 on the chain 0 → 1 → 2 → end, each state with the actions 0, 0.5 and 1; of the signals
    that are learned."""
    gamma = 0.8
    states, choices = torch.arange(3).repeat_interleave(3), torch.tensor([0.0, 0.5, 1.0]).repeat(3)
    one_hot = torch.eye(3)
    # Every signal pays 1 + s + a, times 1, -2/3, 1/2 ... so that no two are alike; state 0 is worth more than the last.
    scale = torch.tensor([(-1.0) ** s * 2.0 / (2 + s) for s in range(signals)]).unsqueeze(-1)
    pay = scale * (1.0 + states + choices)
    ahead = torch.where(states < 2, states + 1, 0)
    end, discount = states == 2, torch.full((9,), gamma)
    batch = attrs.evolve(
        _batch(one_hot[states], choices.unsqueeze(-1).repeat(1, ACT), signals),
        signals=pay,
        next_obs=one_hot[ahead],
        terminated=end,
        discount=discount,
    )
    value = torch.zeros(signals, 3)
    for s in (2, 1, 0):
        value[:, s] = scale[:, 0] * (1.5 + s) + (gamma * value[:, s + 1] if s < 2 else 0.0)
    expected = pay + gamma * torch.where(end, 0.0, value[:, ahead])

    net = critic.build(3, ACT, signals, generator=torch.Generator().manual_seed(0))
    frozen = copy.deepcopy(net)
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
    bootstrap, mean_action = bootstrap_of(critic), torch.full((9, 1, ACT), 0.5)
    for step in range(600):
        if step % 20 == 0:
            frozen.load_state_dict(net.state_dict())
        if step == 400:
            optimiser.param_groups[0]["lr"] = 1e-3
        with torch.no_grad():
            target = td_targets(pay, discount, end, bootstrap(frozen, batch.next_obs, mean_action))
        loss, _ = critic.loss(net, batch, target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        found = critic.evaluate(net, batch.obs, batch.action.unsqueeze(1)).squeeze(-1)
    span = expected.amax(-1, keepdim=True) - expected.amin(-1, keepdim=True)
    off = (found - expected).abs() / span
    off[list(getattr(critic, "given", ()))] = 0.0
    s, i = divmod(int(off.argmax()), 9)
    require(
        float(off.max()) <= accuracy,
        f"after policy evaluation on a chain of three states, signal {s} of state {int(states[i])} with action "
        f"{float(choices[i])} is {float(found[s, i]):.4g}; its value is {float(expected[s, i]):.4g}",
    )


def _drawn(critic: Any, case: Case) -> tuple[Any, Tensor, Tensor]:
    signals, states, count, seed = case
    generator = torch.Generator().manual_seed(seed)
    net = critic.build(OBS, ACT, signals, generator=generator)
    # Networks may start at 0, where nothing is seen: away from there.
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    obs = torch.randn(states, OBS, generator=generator)
    return net, obs, 2.0 * torch.rand(states, count, ACT, generator=generator) - 1.0


def _batch(obs: Tensor, action: Tensor, signals: int) -> Batch:
    size = len(obs)
    zeros = torch.zeros(size)
    return Batch(obs, action, torch.zeros(signals, size), obs, zeros > 0, zeros + 0.9, zeros + 1.0, zeros.long())


def _weighted(batch: Batch, weight: Tensor) -> Batch:
    return attrs.evolve(batch, weight=weight)

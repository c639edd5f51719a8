"""Retrace and lambda-returns: against a loop over the equation, and against a process whose values are known."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest
import torch

import cvpo
from cvpo import buffers
from cvpo.critics import returns
from cvpo.critics.returns import Evaluation, LambdaReturns, Retrace, TemporalDifference
from cvpo.distributions import Categorical, Gaussian
from cvpo.errors import ConfigError
from cvpo.types import Batch, Spec, Transition, Window
from tests.cmdp.model import random_cmdp
from tests.fakes import line_agent

B, STEPS, OBS, ACT, SIGNALS, GAMMA = 50, 4, 3, 2, 2, 0.9


def case(seed: int = 0, mask_cost: bool = True) -> tuple[Batch, Evaluation]:
    """Random windows, some of them short, some ending in a termination; π = N(o[:2], 0.5²), Q and V made up."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    lengths = torch.randint(1, STEPS + 1, (B,), generator=generator)
    inside = torch.arange(STEPS) < lengths.unsqueeze(-1)
    terminated = (torch.arange(STEPS) == lengths.unsqueeze(-1) - 1) & (noise(B, 1) > 0)
    obs, action, next_obs = noise(B, STEPS, OBS), noise(B, STEPS, ACT), noise(B, STEPS, OBS)
    window = Window(obs, action, noise(SIGNALS, B, STEPS), next_obs, terminated, noise(B, STEPS) - 1.5, inside)
    rest = torch.zeros(B)
    batch = Batch(obs[:, 0], action[:, 0], rest, next_obs[:, -1], terminated[:, -1], rest, rest, rest, window)
    evaluation = Evaluation(
        policy=lambda o: Gaussian(o[..., :ACT], torch.full_like(o[..., :ACT], 0.5)),
        next_values=lambda o: torch.stack([o.sum(-1), o.square().sum(-1)]),
        q_values=lambda o, a: torch.stack([o.sum(-1) + a.sum(-1), o.square().sum(-1) - a.sum(-1)]),
        gamma=GAMMA,
        mask_cost=mask_cost,
    )
    return batch, evaluation


def by_loop(batch: Batch, evaluation: Evaluation, decay: float, corrected: bool) -> torch.Tensor:
    """Equation 3 of Munos et al., one window, one step, one signal at a time."""
    window, target = batch.window, torch.zeros(SIGNALS, B, dtype=torch.float64)
    for b in range(B):
        q = evaluation.q_values(window.obs[b], window.action[b])
        v = evaluation.next_values(window.next_obs[b])
        density = torch.distributions.Normal(window.obs[b, :, :ACT], 0.5).log_prob(window.action[b]).sum(-1)
        for s in range(SIGNALS):
            total, trace = float(q[s, 0]), 1.0
            for t in range(STEPS):
                if not window.inside[b, t]:
                    break
                if t > 0:
                    ratio = float((density[t] - window.log_prob[b, t]).exp()) if corrected else 1.0
                    trace *= decay * min(1.0, ratio)
                ends = bool(window.terminated[b, t]) and (s == 0 or evaluation.mask_cost)
                onward = 0.0 if ends else GAMMA * float(v[s, t])
                total += GAMMA**t * trace * (float(window.signals[s, b, t]) + onward - float(q[s, t]))
            target[s, b] = total
    return target


@pytest.mark.parametrize("mask_cost", [True, False])
@pytest.mark.parametrize("decay", [0.0, 0.7, 1.0])
def test_targets_are_those_of_the_equation(decay: float, mask_cost: bool) -> None:
    batch, evaluation = case(mask_cost=mask_cost)
    for component, corrected in ((Retrace(decay), True), (LambdaReturns(decay), False)):
        found = component.targets(batch, evaluation)
        torch.testing.assert_close(found, by_loop(batch, evaluation, decay, corrected), rtol=1e-10, atol=1e-10)


def test_steps_outside_the_window_are_not_read() -> None:
    batch, evaluation = case()
    window, outside = batch.window, ~batch.window.inside
    changed = attrs.evolve(
        window,
        signals=torch.where(outside, 1e6, window.signals),
        obs=torch.where(outside.unsqueeze(-1), 9.0, window.obs),
        log_prob=torch.where(outside, torch.nan, window.log_prob),
    )
    for component in (Retrace(1.0), LambdaReturns(1.0)):
        other = component.targets(attrs.evolve(batch, window=changed), evaluation)
        torch.testing.assert_close(other, component.targets(batch, evaluation))


def test_where_the_behaviour_is_not_known_the_trace_ends() -> None:
    batch, evaluation = case()
    unknown = attrs.evolve(batch.window, log_prob=torch.full_like(batch.window.log_prob, torch.nan))
    found = Retrace(1.0).targets(attrs.evolve(batch, window=unknown), evaluation)
    torch.testing.assert_close(found, LambdaReturns(0.0).targets(batch, evaluation))


def off_policy(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Error of the mean target [S,X·A] at the true Q^π, from 60 000 windows of another policy; its standard error."""
    cmdp, rng = random_cmdp(3, 1, single_start=False), np.random.default_rng(0)
    states, actions = cmdp.signals.shape[1:]
    policy, behaviour = (0.9 * rng.dirichlet(np.full(actions, 0.5), size=states) + 0.1 / actions for _ in range(2))
    q = torch.from_numpy(cmdp.q_values(policy))
    values = (torch.from_numpy(policy) * q).sum(-1)
    envs, steps = 60_000, 4
    config = buffers.registry.create("nstep", steps=4, windows=True, capacity=envs * steps)
    spec = Spec(states, actions, 2, cmdp.gamma)
    store = config.build(spec, envs, torch.device("cpu"), torch.Generator().manual_seed(0))
    none = torch.zeros(envs, dtype=torch.bool)
    state = rng.integers(states, size=envs)
    for _ in range(steps):
        action = (behaviour[state].cumsum(-1) > rng.uniform(size=(envs, 1))).argmax(-1)
        after = (cmdp.next[state, action].cumsum(-1) > rng.uniform(size=(envs, 1))).argmax(-1)
        signals = torch.from_numpy(cmdp.signals[:, state, action]).float()
        obs, one_hot, ahead = torch.eye(states)[state], torch.eye(actions)[action], torch.eye(states)[after]
        chance = torch.from_numpy(np.log(behaviour[state, action])).float()
        store.add(Transition(obs, one_hot, signals, ahead, none, none, chance))
        state = after
    evaluation = Evaluation(
        policy=lambda o: Categorical(torch.from_numpy(np.log(policy)).float()[o.argmax(-1)]),
        next_values=lambda o: values[:, o.argmax(-1)],
        q_values=lambda o, a: q[:, o.argmax(-1), a.argmax(-1)],
        gamma=cmdp.gamma,
        mask_cost=True,
    )
    batch = store.at(torch.arange(envs))  # those that start at the first step: independent of each other
    found = returns.create(name, **({} if name == "td" else {"decay": 1.0})).targets(batch, evaluation)
    cell = batch.obs.argmax(-1) * actions + batch.action.argmax(-1)
    errors = found - q.flatten(1)[:, cell]
    counts = torch.bincount(cell, minlength=states * actions)
    mean = torch.zeros(2, states * actions, dtype=torch.float64).index_add_(1, cell, errors) / counts
    square = torch.zeros_like(mean).index_add_(1, cell, errors.square()) / counts
    return mean, ((square - mean.square()) / counts).sqrt()


@pytest.mark.parametrize("name", ["retrace", "lambda"])
def test_the_true_values_are_the_fixed_point_off_policy(name: str) -> None:
    """Within five standard errors in each of 48 cells."""
    mean, error = off_policy(name)
    assert (mean.abs() <= 5 * error + 1e-6).all()


def test_nstep_sums_have_another_fixed_point() -> None:
    """What the returns above are for: uncorrected, the other policy's steps are taken for the policy's own."""
    mean, error = off_policy("td")
    assert (mean.abs() > 10 * error).any()


def test_the_agent_stores_who_acted_and_learns_from_it() -> None:
    agent, _ = line_agent(1, returns={"name": "retrace", "decay": 0.8}, buffer=WINDOWS)
    agent.learn(60, warmup_steps=20, updates_per_step=0.0)
    data = {name: value[:60, 0] for name, value in agent.store.ring.data.items()}
    expected = agent.policy(data["obs"]).log_prob(data["action"].unsqueeze(-2)).squeeze(-1)
    torch.testing.assert_close(data["log_prob"][20:], expected[20:].detach())
    torch.testing.assert_close(data["log_prob"][:20], torch.full((20,), -2 * np.log(2.0)).float())
    agent.learn(40, warmup_steps=0, updates_per_step=1.0)
    assert all(torch.isfinite(value).all() for value in agent.update().values())


@pytest.mark.parametrize("members", [0, 2])
def test_who_acted_is_who_it_was_before_the_updates_of_its_step(members: int, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"returns": "retrace", "buffer": WINDOWS, "normalise_obs": True}
    if members:
        agents = [line_agent(1, **{**options, "seed": seed}) for seed in range(members)]
        agent, env = cvpo.VectorAgent([each for each, _ in agents]), [own for _, own in agents]
    else:
        agent, env = line_agent(1, **options)
    who, seen, act = type(agent), [], type(agent).act

    def watched(self: Any, obs: Any, *given: Any) -> torch.Tensor:
        actions = act(self, obs, *given)
        seen.append(self.log_prob(obs, actions))
        return actions

    monkeypatch.setattr(who, "act", watched)
    agent.learn(40, env=env, warmup_steps=10, updates_per_step=2.0)
    single = agent.agents if members else (agent,)
    stored = torch.cat([each.store.ring.data["log_prob"][10:40] for each in single], -1)
    torch.testing.assert_close(stored, torch.stack(seen))
    assert agent.updates == 60


WINDOWS = {"name": "nstep", "steps": 4, "windows": True, "capacity": 500}


@pytest.mark.parametrize("name", ["retrace", "lambda"])
@pytest.mark.parametrize("buffer", ["nstep", "prioritized"])
def test_every_buffer_of_windows_and_normalised_observations(name: str, buffer: str) -> None:
    agent, _ = line_agent(2, returns=name, buffer={**WINDOWS, "name": buffer}, normalise_obs=True)
    agent.learn(60, warmup_steps=40)
    assert all(torch.isfinite(value).all() for value in agent.update().values())


def test_what_does_not_fit_together_is_said_at_construction() -> None:
    with pytest.raises(ConfigError, match="'windows': True"):
        line_agent(1, returns="retrace")
    with pytest.raises(ConfigError, match="learns the distribution"):
        line_agent(1, returns="lambda", buffer=WINDOWS, critic={"name": "quantile", "hidden": (8,)})
    with pytest.raises(ConfigError, match="batch.window is None"):
        batch, evaluation = case()
        Retrace().targets(attrs.evolve(batch, window=None), evaluation)


def test_td_is_the_equation_of_the_buffer() -> None:
    batch, evaluation = case()
    plain = attrs.evolve(batch, signals=torch.ones(SIGNALS, B), discount=torch.full((B,), 0.5), window=None)
    found = TemporalDifference().targets(plain, evaluation)
    onward = 0.5 * (~plain.terminated) * evaluation.next_values(plain.next_obs)
    torch.testing.assert_close(found, 1.0 + onward)

"""Fits by hand and by autograd end at the same policy, with the same statistics."""

from __future__ import annotations

import attrs
import pytest
import torch

import cvpo
from cvpo.errors import ConfigError
from cvpo.mstep import slopes
from cvpo.mstep.decoupled import Decoupled
from cvpo.mstep.full import Full
from cvpo.mstep.likelihood import Likelihood
from cvpo.mstep.terms import Terms
from cvpo.policy import DiagonalPolicy
from tests.fakes import Line
from tests.mstep.helpers import problem

pytest.importorskip("numba")


def drawn(population: int = 1, lead: tuple[int, ...] = ()):
    torch.manual_seed(1)
    policy = DiagonalPolicy(hidden=(16, 16)).build(3, 2, population, torch.Generator().manual_seed(0))
    obs = torch.randn(*lead, 32, 3)
    return policy, obs, *problem(policy, obs)


def fitted(fit: Likelihood, projection: Decoupled, by_hand: bool, monkeypatch, population: int = 1, spoil=None):
    """Statistics of three M-steps, the state, and the policy at the end."""
    lead = (population,) if population > 1 else ()
    policy, obs, _, _, actions, weights = drawn(population, lead)
    state, used = fit.build(policy, projection, lead), []
    way = slopes.by_hand

    def watched(net):
        found = way(net) if by_hand else None
        used.append(found is not None)
        return found

    monkeypatch.setattr(slopes, "by_hand", watched)
    stats = []
    for _ in range(3):
        with torch.no_grad():
            old, start = policy(obs).detach(), [p.detach().clone() for p in policy.parameters()]
        given = weights if spoil is None else spoil(weights)
        stats.append(fit.fit(state, policy, projection, obs, old, start, actions, given))
    monkeypatch.setattr(slopes, "by_hand", way)
    assert used == [by_hand] * 3
    return stats, state, [p.detach().clone() for p in policy.parameters()]


@pytest.mark.parametrize("population", [1, 3])
@pytest.mark.parametrize(
    "fit, projection",
    [
        (Likelihood(iterations=3), Decoupled()),
        (Likelihood(iterations=3, lr=0.1), Decoupled()),
        (Likelihood(iterations=2, max_grad_norm=0.1), Decoupled(average="state")),
        (Likelihood(iterations=1, multipliers="reset"), Decoupled(kl_mean=0.1, kl_cov=0.01)),
    ],
)
def test_a_fit_by_hand_is_the_fit(fit: Likelihood, projection: Decoupled, population: int, monkeypatch) -> None:
    found = fitted(fit, projection, True, monkeypatch, population)
    expected = fitted(fit, projection, False, monkeypatch, population)
    for ours, other in zip(found[0], expected[0], strict=True):
        assert ours.keys() == other.keys()
        for name, value in ours.items():
            torch.testing.assert_close(value, other[name], rtol=2e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    torch.testing.assert_close(found[1].alpha, expected[1].alpha, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found[2], expected[2], rtol=1e-3, atol=1e-4)


def test_weights_that_are_not_finite_leave_the_policy_as_it_was(monkeypatch) -> None:
    def spoil(weights):
        weights = weights.clone()
        weights[0, 0] = float("nan")
        return weights

    for by_hand in (True, False):
        stats, state, end = fitted(Likelihood(iterations=2), Decoupled(), by_hand, monkeypatch, spoil=spoil)
        policy = drawn()[0]
        assert all(torch.equal(a, b) for a, b in zip(end, policy.parameters(), strict=True))
        assert all(not s["loss"].isfinite() and s["guard_t"] == 0 for s in stats)
        moments = [v for kept in state.optimizer.state.values() for v in kept.values()]
        assert all(value.isfinite().all() for value in moments)


def way(projection, obs=None):
    policy, states, old, _, actions, weights = drawn()
    terms = Terms(tuple(projection.bounds), projection, old, actions, weights)
    return type(slopes.slopes_of(policy, terms, states if obs is None else obs))


@attrs.frozen
class Louder(Decoupled):
    def joined(self, old, actions, weights):
        terms = super().joined(old, actions, weights)
        return lambda new: 2.0 * terms(new)


def test_which_way_a_fit_goes() -> None:
    assert way(Decoupled()) is slopes.ByHand
    assert way(Full()) is slopes.Traced
    assert way(Louder()) is slopes.Traced
    assert way(Decoupled(), torch.randn(32, 3, requires_grad=True)) is slopes.Traced


def test_an_agent_of_defaults_fits_by_hand(monkeypatch) -> None:
    ways, of = [], slopes.slopes_of
    monkeypatch.setattr("cvpo.mstep.likelihood.slopes_of", lambda *given: ways.append(of(*given)) or ways[-1])
    env = Line(1)
    agent = cvpo.make_agent(env.observation_space, env.action_space, env=env, horizon=20, cost_limits=5.0)
    agent.learn(30, warmup_steps=20)
    assert ways and all(type(each) is slopes.ByHand for each in ways)


def test_what_the_values_are_is_looked_at(monkeypatch) -> None:
    policy, obs, old, _, actions, weights = drawn()

    class Lying:
        def __call__(self, new):
            return torch.zeros(3, self.states)

        def slopes(self, factors):
            return torch.zeros(32, 2), torch.zeros(32, 1)

    terms = Terms(("mean", "cov"), Decoupled(), old, actions, weights)
    monkeypatch.setattr(terms, "by_hand", Lying)
    Lying.states = 31
    with pytest.raises(ConfigError, match=r"by_hand gives .*\[3, 31\].*\[3, 32\]"):
        slopes.slopes_of(policy, terms, obs).values()
    Lying.states = 32
    found = slopes.slopes_of(policy, terms, obs)
    found.values()
    with pytest.raises(ConfigError, match=r"slope of by_hand .*\[32, 1\].*\[32, 2\]"):
        found.backward(torch.ones(3))


def test_what_does_not_fit_is_not_read() -> None:
    _, _, old, _, actions, weights = drawn()
    with pytest.raises(RuntimeError, match="size"):
        Decoupled().joined(old, actions, weights[:, :-1])
    with pytest.raises(RuntimeError, match="size"):
        Decoupled().joined(old, actions[:-1], weights[:-1])
    one = Decoupled().joined(old, actions[:1], weights[:1])
    torch.testing.assert_close(one(old)[-1], Decoupled().objective(old, old, actions[:1], weights[:1]))
    assert one.by_hand() is None
    terms = Decoupled().joined(old, actions, weights).by_hand()
    with pytest.raises(ConfigError, match=r"new policy's mean .*\[31, 2\].*\[32, 2\]"):
        terms(type(old)(old.mean[:-1], old.scale[:-1]))
    terms(old)
    with pytest.raises(ConfigError, match=r"factors .*\[2\].*\[3\]"):
        terms.slopes(torch.ones(2))


def test_no_states_are_no_terms() -> None:
    policy, obs, old, _, actions, weights = drawn()
    none = type(old)(old.mean[:0], old.scale[:0])
    terms = Decoupled().joined(none, actions[:0], weights[:0]).by_hand()
    assert terms(none).shape == (3, 0)
    assert all(slope.shape == (0, 2) for slope in terms.slopes(torch.ones(3)))

"""Fits: every update ends inside the trust region and gets closer to the projection."""

from __future__ import annotations

import attrs
import pytest
import torch

from cvpo import mstep
from cvpo.distributions import Gaussian
from cvpo.errors import ConfigError
from cvpo.mstep import guard
from cvpo.mstep.decoupled import Decoupled
from tests.mstep.helpers import Net, Table, problem

CASES = [("decoupled", "diagonal"), ("decoupled", "cholesky"), ("full", "cholesky"), ("full", "categorical")]


def ratio(projection, old, new) -> float:
    """Largest KL/ε, from the projection's own terms."""
    pool = torch.mean if getattr(projection, "average", "batch") == "batch" else torch.amax
    return max(float(pool(kl, -1)) / projection.bounds[name] for name, kl in projection.kl(old, new).items())


@pytest.mark.parametrize("average", ["batch", "state"])
@pytest.mark.parametrize("fit_name", mstep.fits.names())
@pytest.mark.parametrize("name, kind", CASES)
def test_no_update_leaves_the_trust_region(name: str, kind: str, fit_name: str, average: str) -> None:
    torch.manual_seed(0)
    projection = mstep.registry.create(name, average=average)
    for lr, updates in ((1e-3, 20), (0.3, 20)):
        policy, fit = Net(kind), mstep.fits.create(fit_name, lr=lr, iterations=3)
        state, acted = fit.build(policy, projection), 0
        for _ in range(updates):
            obs = torch.randn(32, 3)
            old, old_params, actions, weights = problem(policy, obs)
            stats = fit.fit(state, policy, projection, obs, old, old_params, actions, weights)
            with torch.no_grad():
                found = ratio(projection, old, policy(obs))
            reported = max(float(stats[f"kl/{term}"]) for term in projection.bounds)
            assert found <= 1.0 + 1e-3
            assert found == pytest.approx(reported, rel=1e-4)
            if float(stats["guard_t"]) < 1.0:
                acted += 1
                assert found >= 0.9
            assert all(value.ndim == 0 and not value.requires_grad for value in stats.values())
        assert lr == 1e-3 or acted > 0


@pytest.mark.parametrize("name", ["decoupled", "full"])
def test_both_fits_arrive_at_the_projection(name: str) -> None:
    # A table has no limits of its own, so the best policy inside the trust region is the projection itself.
    torch.manual_seed(0)
    obs = torch.randn(6, 1)
    bounds = {"decoupled": {"kl_mean": 0.1, "kl_cov": 0.02}, "full": {"kl": 0.1}}[name]
    projection = mstep.registry.create(name, **bounds)
    for fit in (
        mstep.fits.create("likelihood", iterations=1000, lr=0.01, multiplier_lr=0.02),
        mstep.fits.create("regression", iterations=400, lr=0.01),
    ):
        policy = Table(6, 2)
        old, old_params, actions, weights = problem(policy, obs, count=16, sharpness=4.0)
        stats = fit.fit(fit.build(policy, projection), policy, projection, obs, old, old_params, actions, weights)
        best = projection.project(old, actions, weights)
        with torch.no_grad():
            reached, start, top = (
                float(projection.objective(old, p, actions, weights).mean()) for p in (policy(obs), old, best)
            )
        assert reached - start > 0.97 * (top - start)
        assert max(float(stats[f"kl/{term}"]) for term in projection.bounds) > 0.95


@pytest.mark.parametrize("fit_name", mstep.fits.names())
def test_duplicated_particles_change_nothing(fit_name: str) -> None:
    results = []
    for copies in (1, 4):
        torch.manual_seed(0)
        policy, projection, obs = (
            Net("diagonal").double(),
            mstep.registry.create("decoupled"),
            torch.randn(32, 3).double(),
        )
        fit = mstep.fits.create(fit_name, iterations=3)
        old, old_params, actions, weights = problem(policy, obs)
        actions, weights = actions.repeat_interleave(copies, -2), (weights / copies).repeat_interleave(copies, -1)
        stats = fit.fit(fit.build(policy, projection), policy, projection, obs, old, old_params, actions, weights)
        results.append((stats["loss"], torch.cat([p.detach().flatten() for p in policy.parameters()])))
    assert float(results[0][0]) == pytest.approx(float(results[1][0]), rel=1e-9)
    assert torch.allclose(results[0][1], results[1][1], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("fit_name", mstep.fits.names())
def test_a_non_finite_step_is_visible_and_leaves_the_old_policy_which_learns_on(fit_name: str) -> None:
    torch.manual_seed(0)
    policy, projection, obs = Net("diagonal"), mstep.registry.create("decoupled"), torch.randn(8, 3)
    fit = mstep.fits.create(fit_name, iterations=3)
    state = fit.build(policy, projection)
    old, old_params, actions, weights = problem(policy, obs)
    fit.fit(state, policy, projection, obs, old, old_params, actions, weights)
    before = [p.detach().clone() for p in policy.parameters()]
    old = policy(obs).detach()
    spoiled = next(policy.parameters()).register_hook(lambda gradient: gradient * torch.nan)
    stats = fit.fit(state, policy, projection, obs, old, before, actions, weights)
    spoiled.remove()
    assert torch.isnan(stats["loss"]) and float(stats["guard_t"]) == 0.0
    assert all(torch.equal(p, o) for p, o in zip(policy.parameters(), before, strict=True))
    stats = fit.fit(state, policy, projection, obs, old, before, actions, weights)
    assert torch.isfinite(stats["loss"]) and float(stats["guard_t"]) > 0.0 and bool(state.alpha.isfinite().all())
    assert not any(torch.equal(p, o) for p, o in zip(policy.parameters(), before, strict=True))


@attrs.frozen
class Lost(Decoupled):
    """An objective that is not a number, with gradients that are; with ``once``, in the first iteration alone."""

    once: bool = False

    def objective(self, old, new, actions, weights):
        found = super().objective(old, new, actions, weights)
        return found if self.once and not torch.equal(old.mean, new.mean) else found + torch.nan


@pytest.mark.parametrize("early", [True, False])
def test_a_step_on_a_loss_that_is_not_finite_is_taken_back_though_it_looks_like_any_other(monkeypatch, early) -> None:
    torch.manual_seed(0)
    policy, obs = Net("diagonal"), torch.randn(8, 3)
    fit = mstep.fits.create("likelihood", iterations=3)
    old, old_params, actions, weights = problem(policy, obs)
    before = [p.detach().clone() for p in policy.parameters()]
    look = guard.guard
    monkeypatch.setattr("cvpo.mstep.fit.guard", lambda *given: look(*given[:4], early, *given[5:]))
    for projection, stays in ((Lost(), True), (Lost(once=True), True), (Decoupled(), False)):
        state = fit.build(policy, projection)
        stats = fit.fit(state, policy, projection, obs, old, old_params, actions, weights)
        assert bool(stats["loss"].isfinite()) is not stays and bool(stats["guard_t"] == 0.0) is stays
        assert all(torch.equal(p, o) is stays for p, o in zip(policy.parameters(), before, strict=True))


@attrs.frozen
class MeanOnly:
    """As a user would write it: the mean moves inside one bound, the covariance stays."""

    bound: float = 0.02

    @property
    def bounds(self):
        return {"step": self.bound}

    def project(self, old, actions, weights):
        move = (weights[..., None] * (actions - old.mean[..., None, :])).sum(-2)
        size = 0.5 * (move / old.scale).square().sum(-1).mean(-1)
        return Gaussian(old.mean + move * (self.bound / size).clamp(max=1.0).sqrt(), old.scale)

    def kl(self, old, new):
        return {"step": old.kl(new)}

    def objective(self, old, new, actions, weights):
        return (weights * Gaussian(new.mean, old.scale).log_prob(actions)).sum(-1)


@pytest.mark.parametrize("fit_name", mstep.fits.names())
def test_a_projection_of_a_user_is_fitted_and_guarded(fit_name: str) -> None:
    torch.manual_seed(0)
    policy, projection, fit = Net("diagonal"), MeanOnly(), mstep.fits.create(fit_name, lr=0.1)
    state = fit.build(policy, projection)
    for _ in range(10):
        obs = torch.randn(32, 3)
        old, old_params, actions, weights = problem(policy, obs)
        stats = fit.fit(state, policy, projection, obs, old, old_params, actions, weights)
        assert 0.0 < float(stats["kl/step"]) <= 1.0


@pytest.mark.parametrize("option", [{"iterations": 0}, {"lr": 0.0}, {"max_grad_norm": -1.0}, {"itertions": 3}])
@pytest.mark.parametrize("fit_name", mstep.fits.names())
def test_options_out_of_range_are_refused(fit_name: str, option: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(option))):
        mstep.fits.create(fit_name, **option)

"""The closed forms of the projections, and their options."""

from __future__ import annotations

import pytest
import torch

from cvpo import mstep
from cvpo.distributions import Categorical
from cvpo.errors import ConfigError
from cvpo.mstep.decoupled import Decoupled
from cvpo.mstep.full import Full
from tests.mstep.helpers import DOUBLE, covariance, gaussian, particles, second


@pytest.mark.parametrize("cholesky", [False, True])
def test_full_has_the_moments_of_the_mixture(cholesky: bool) -> None:
    old = gaussian(cholesky)
    actions, weights = particles(old, 6)
    new = Full(kl=0.05).project(old, actions, weights)
    m = (weights.unsqueeze(-1) * actions).sum(-2)
    # One β for the batch, read off one coordinate of one mean.
    t = ((new.mean - old.mean) / (m - old.mean))[0, 0]
    beta = 1.0 / t - 1.0
    moved = (m - old.mean).unsqueeze(-1)
    expected = (second(actions, weights, m) + beta * covariance(old)) / (1 + beta)
    expected = expected + beta / (1 + beta) ** 2 * moved @ moved.mT
    found = covariance(new)
    if not cholesky:
        expected, found = (x.diagonal(dim1=-2, dim2=-1) for x in (expected, found))
    assert torch.allclose(new.mean, (m + beta * old.mean) / (1 + beta), atol=1e-12)
    assert torch.allclose(found, expected, atol=1e-11)
    assert float(old.kl(new).mean()) == pytest.approx(0.05, rel=1e-9)


@pytest.mark.parametrize("cholesky", [False, True])
def test_decoupled_scales_the_step_and_mixes_the_covariance(cholesky: bool) -> None:
    old = gaussian(cholesky)
    actions, weights = particles(old, 6)
    projection = Decoupled(kl_mean=0.01, kl_cov=0.003, average="state")
    new = projection.project(old, actions, weights)
    m = (weights.unsqueeze(-1) * actions).sum(-2)
    kls = projection.kl(old, new)
    assert torch.allclose(kls["mean"], torch.full((4,), 0.01, dtype=DOUBLE), rtol=1e-9)
    assert torch.allclose(kls["cov"], torch.full((4,), 0.003, dtype=DOUBLE), rtol=1e-8)
    ratio = (new.mean - old.mean) / (m - old.mean)
    assert torch.allclose(ratio, ratio[:, :1].expand_as(ratio), rtol=1e-9)
    s, start, found = second(actions, weights, old.mean), covariance(old), covariance(new)
    mix = ((found - start) / (s - start)).diagonal(dim1=-2, dim2=-1)
    assert torch.allclose(mix, mix[:, :1].expand_as(mix), rtol=1e-7)
    assert ((mix > 0) & (mix < 1)).all()


def test_categorical_is_the_mixture() -> None:
    generator = torch.Generator().manual_seed(0)
    old = Categorical(torch.randn(4, 5, generator=generator, dtype=DOUBLE))
    weights = torch.softmax(2 * torch.randn(4, 5, generator=generator, dtype=DOUBLE), -1)
    new = Full(kl=0.02).project(old, None, weights)
    p0, p = old.log_probs.exp(), new.log_probs.exp()
    t = ((p - p0) / (weights - p0)).flatten()
    assert torch.allclose(t, t[0].expand_as(t), rtol=1e-8)
    assert float(old.kl(new).mean()) == pytest.approx(0.02, rel=1e-9)
    # One-hot particles carry the same weights as the categories they stand for.
    eye = torch.eye(5, dtype=DOUBLE).expand(4, 5, 5)
    again = Full(kl=0.02).project(old, eye.repeat_interleave(2, -2), (0.5 * weights).repeat_interleave(2, -1))
    assert torch.allclose(again.log_probs, new.log_probs, atol=1e-10)


@pytest.mark.parametrize("name", mstep.registry.names())
def test_slack_bounds_give_the_weighted_maximum_likelihood(name: str) -> None:
    old = gaussian(True)
    actions, weights = particles(old, 12)
    options = {"kl": 1e3} if name == "full" else {"kl_mean": 1e3, "kl_cov": 1e3}
    new = mstep.registry.create(name, **options).project(old, actions, weights)
    m = (weights.unsqueeze(-1) * actions).sum(-2)
    assert torch.allclose(new.mean, m, atol=1e-12)
    centre = m if name == "full" else old.mean
    assert torch.allclose(covariance(new), second(actions, weights, centre), atol=1e-11)


@pytest.mark.parametrize("options", [{"kl_mean": 0.0}, {"kl_cov": -1.0}, {"average": "sum"}, {"kl_means": 0.1}])
def test_options_out_of_range_are_refused(options: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        mstep.registry.create("decoupled", **options)


def test_components_describe_themselves_and_come_back() -> None:
    for component in (Full(kl=0.3, average="state"), Decoupled(kl_mean=0.2)):
        assert mstep.registry.resolve(mstep.registry.describe(component)) == component
    assert all(mstep.registry.summary(name) for name in mstep.registry)
    assert all(mstep.fits.summary(name) for name in mstep.fits)

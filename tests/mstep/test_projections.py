"""The closed forms of the projections, their edges and their gradients."""

from __future__ import annotations

import pytest
import torch

from cvpo import mstep
from cvpo.distributions import Categorical, Gaussian
from cvpo.errors import ConfigError
from cvpo.mstep.decoupled import Decoupled
from cvpo.mstep.full import Full
from cvpo.mstep.paths import curve_of
from cvpo.mstep.root import largest_step

DOUBLE = torch.float64


def gaussian(cholesky: bool, shape=(4, 3), seed: int = 0) -> Gaussian:
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(shape, generator=generator, dtype=DOUBLE)
    scale = torch.rand(shape, generator=generator, dtype=DOUBLE) + 0.3
    if cholesky:
        lower = torch.randn((*shape, shape[-1]), generator=generator, dtype=DOUBLE).tril(-1)
        scale = torch.diag_embed(scale) + 0.4 * lower
    return Gaussian(mean, scale)


def particles(old: Gaussian, count: int, seed: int = 1):
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand((*old.mean.shape[:-1], count), generator=generator, dtype=DOUBLE)
    return old.sample(count, generator), weights / weights.sum(-1, keepdim=True)


def covariance(p: Gaussian) -> torch.Tensor:
    return p.scale_tril() @ p.scale_tril().mT


def second(actions, weights, centre) -> torch.Tensor:
    x = actions - centre.unsqueeze(-2)
    return (weights.unsqueeze(-1) * x).mT @ x


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


@pytest.mark.parametrize("average", ["batch", "state"])
@pytest.mark.parametrize("name", mstep.registry.names())
def test_nothing_to_do_is_done_without_nan(name: str, average: str) -> None:
    projection = mstep.registry.create(name, average=average)
    if "categorical" in projection.kinds:
        logits = torch.tensor([[0.0, 1.0, -torch.inf]], dtype=DOUBLE, requires_grad=True)
        new = projection.project(Categorical(logits), None, logits.detach().softmax(-1))
        assert torch.allclose(new.log_probs.exp(), logits.detach().softmax(-1))
        new.log_probs[:, :2].sum().backward()
        assert torch.isfinite(logits.grad[:, :2]).all()
    # Two particles at μ₀ ± σ of one dimension have the moments of π₀.
    old = Gaussian(torch.zeros(2, 1, dtype=DOUBLE), torch.ones(2, 1, dtype=DOUBLE, requires_grad=True))
    actions = torch.tensor([[[1.0], [-1.0]]] * 2, dtype=DOUBLE)
    new = projection.project(old, actions, torch.full((2, 2), 0.5, dtype=DOUBLE))
    assert torch.equal(new.scale, torch.ones(2, 1, dtype=DOUBLE))
    new.scale.sum().backward()
    assert torch.isfinite(old.scale.grad).all()


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("size", [1, 6, 64])
@pytest.mark.parametrize("cholesky", [False, True])
@pytest.mark.parametrize("name", mstep.registry.names())
def test_one_hot_weights_and_fewer_particles_than_dimensions(name, cholesky, size, dtype) -> None:
    for bound in (1e-6, 1e-2, 10.0):
        options = {"kl": bound} if name == "full" else {"kl_mean": bound, "kl_cov": bound}
        projection = mstep.registry.create(name, average="state", **options)
        old = gaussian(cholesky, shape=(3, size)).to(dtype)
        if cholesky:
            # Independent random rows are far from singular only when they are few.
            old = Gaussian(
                old.mean, torch.linalg.cholesky(old.scale @ old.scale.mT + size * torch.eye(size, dtype=dtype))
            )
        actions = old.to(DOUBLE).sample(2, torch.Generator().manual_seed(3)).to(dtype)
        new = projection.project(old, actions, torch.tensor([[1.0, 0.0]] * 3, dtype=dtype))
        assert new.mean.dtype == dtype and torch.isfinite(new.mean).all() and torch.isfinite(new.scale).all()
        slack = 1e-6 if dtype == DOUBLE else 3e-3 if bound < 1e-4 else 1e-4
        for term, kl in projection.kl(old, new).items():
            assert (kl <= projection.bounds[term] * (1 + slack)).all()
        # A covariance without spread in some direction is infinitely far, so that term is always at its bound.
        if name == "full" or (cholesky and size > 1):
            term = "joint" if name == "full" else "cov"
            assert (projection.kl(old, new)[term] >= projection.bounds[term] * (1 - slack)).all()


@pytest.mark.parametrize("average", ["batch", "state"])
@pytest.mark.parametrize("cholesky", [False, True])
@pytest.mark.parametrize("projection", [Full(kl=0.05), Decoupled(kl_mean=0.02, kl_cov=0.01)])
def test_gradients_are_those_of_finite_differences(projection, cholesky: bool, average: str) -> None:
    projection = mstep.registry.resolve(mstep.registry.describe(projection) | {"average": average})
    old = gaussian(cholesky, shape=(2, 2))
    actions, weights = particles(old, 3)

    def outputs(mean, scale, actions, weights):
        new = projection.project(Gaussian(mean, scale.tril() if cholesky else scale), actions, weights)
        return new.mean, new.scale

    inputs = [x.clone().requires_grad_() for x in (old.mean, old.scale, actions, weights)]
    assert torch.autograd.gradcheck(outputs, inputs, atol=1e-5, rtol=1e-4)


def test_categorical_gradients_are_those_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, generator=generator, dtype=DOUBLE, requires_grad=True)
    weights = torch.rand(2, 3, generator=generator, dtype=DOUBLE, requires_grad=True)
    for average in ("batch", "state"):
        projection = Full(kl=0.02, average=average)

        def outputs(x, w, projection=projection):
            return projection.project(Categorical(x), None, w).log_probs

        assert torch.autograd.gradcheck(outputs, (logits, weights))


def test_the_root_is_found_from_any_scale() -> None:
    """Paths with variance ratios 0 … 1e12 and bounds 1e-10 … 1e3: the step ends at its bound, or at the path's end."""
    generator = torch.Generator().manual_seed(0)
    spread = 10.0 ** (24 * torch.rand(4000, 3, generator=generator, dtype=DOUBLE) - 12)
    spread[:500] = 0.0
    u = torch.randn(4000, 3, generator=generator, dtype=DOUBLE)
    u[1000:2000] *= 1e3
    bound = 10.0 ** (13 * torch.rand(4000, generator=generator, dtype=DOUBLE) - 10)
    curve, curvature = curve_of(spread - 1.0, u)

    def relative(t):
        kl, slope = curve(t)
        return kl / bound, slope / bound

    t = largest_step(relative, curvature / bound, 1.0, "state")
    kl = relative(t)[0]
    end = relative(torch.ones_like(t))[0] <= 1.0
    assert 20 < int(end.sum()) < 2000
    assert (t[end] == 1.0).all()
    assert (kl <= 1.0 + 1e-9).all()
    # Rounding of t itself decides how close a steep curve can come to a bound of 1e3.
    assert (kl[~end] >= 1.0 - 1e-6).all()


@pytest.mark.parametrize("options", [{"kl_mean": 0.0}, {"kl_cov": -1.0}, {"average": "sum"}, {"kl_means": 0.1}])
def test_options_out_of_range_are_refused(options: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        mstep.registry.create("decoupled", **options)


def test_components_describe_themselves_and_come_back() -> None:
    for component in (Full(kl=0.3, average="state"), Decoupled(kl_mean=0.2)):
        assert mstep.registry.resolve(mstep.registry.describe(component)) == component
    assert all(mstep.registry.summary(name) for name in mstep.registry)
    assert all(mstep.fits.summary(name) for name in mstep.fits)

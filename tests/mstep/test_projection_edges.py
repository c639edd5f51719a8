"""Projections at their edges: nothing to do, one-hot weights, few particles, steep paths; and their gradients."""

from __future__ import annotations

import math

import pytest
import torch

from cvpo import mstep
from cvpo.distributions import Categorical, Gaussian
from cvpo.mstep.decoupled import Decoupled
from cvpo.mstep.full import Full
from cvpo.mstep.paths import curve_of
from cvpo.mstep.root import largest_step
from tests.mstep.helpers import DOUBLE, gaussian, particles


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


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("low", [-300.0, -380.0, -700.0, -744.0, -1000.0])
@pytest.mark.parametrize("weights", [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
def test_categories_as_good_as_impossible(weights: list[float], low: float, grad: bool) -> None:
    old = Categorical(torch.tensor([[0.0, low]], dtype=DOUBLE, requires_grad=grad))
    projection = Full(kl=0.05)
    new = projection.project(old, None, torch.tensor([weights], dtype=DOUBLE))
    logits = new.logits.detach()
    assert not logits.isnan().any() and (logits < torch.inf).all()
    torch.testing.assert_close(logits.exp().sum(-1), torch.ones(1, dtype=DOUBLE), rtol=1e-12, atol=0.0)
    kl = projection.kl(old.detach(), new.detach())["joint"]
    # Weight on what π₀ all but rules out: the bound is met with equality, 1 − π = 1 − exp(−ε).
    expected = 0.0 if weights == [1.0, 0.0] else 0.05
    torch.testing.assert_close(kl, torch.full_like(kl, expected), rtol=1e-6, atol=1e-12)


def test_a_category_that_is_never_drawn_adds_nothing_to_the_likelihood() -> None:
    old = Categorical(torch.tensor([[-torch.inf, 0.0, 0.0]], dtype=DOUBLE, requires_grad=True))
    weights, full = torch.tensor([[0.0, 0.25, 0.75]], dtype=DOUBLE), mstep.registry.create("full")
    for actions in (None, torch.eye(3, dtype=DOUBLE)[None]):
        assert full.objective(old, old, actions, weights).tolist() == pytest.approx([math.log(0.5)])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_likelihood_in_half_precision(dtype: torch.dtype) -> None:
    old = gaussian(True, shape=(3, 2))
    actions, weights = old.sample(4, torch.Generator().manual_seed(3)), torch.full((3, 4), 0.25, dtype=DOUBLE)
    decoupled = mstep.registry.create("decoupled")
    half = old.to(dtype)
    found = decoupled.objective(half, half, actions.to(dtype), weights.to(dtype))
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), decoupled.objective(old, old, actions, weights), rtol=0.1, atol=0.1)

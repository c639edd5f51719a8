"""Distributions and KL divergences against torch.distributions, series and float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributions as td

from cvpo import distributions as d
from cvpo.distributions import Categorical, Gaussian
from cvpo.errors import ProblemError
from cvpo.testing.gaussians import categoricals, gaussians

DOUBLE = torch.float64
quick = settings(max_examples=40, deadline=None, derandomize=True)


def reference(p: Gaussian) -> td.Distribution:
    return td.MultivariateNormal(p.mean, scale_tril=p.scale_tril())


def test_phi_is_exact_to_relative_precision_and_never_negative() -> None:
    x = torch.logspace(-8, 1.5, 400, dtype=DOUBLE)
    x = torch.cat([x, -x])
    exact = sum(x.pow(n) * (1.0 / math.factorial(n)) for n in range(2, 30))
    near = x.abs() < 1.0
    assert torch.allclose(d.phi(x)[near], exact[near], rtol=1e-12, atol=0.0)
    assert torch.allclose(d.phi(x)[~near], (x.exp() - 1.0 - x)[~near], rtol=1e-12, atol=0.0)
    assert (d.phi(x.float()) >= 0).all()
    assert torch.allclose(d.phi(x.float()).double(), d.phi(x.float().double()), rtol=1e-6, atol=0.0)


def test_derivatives_of_phi_and_of_the_scale_term() -> None:
    x = torch.tensor([-3.0, -0.2, -1e-3, 0.0, 5e-3, 0.7], dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(d.phi, x)
    assert torch.autograd.gradgradcheck(d.phi, x)
    a = torch.tensor([0.3, 1.0, 1.0, 5.0], dtype=DOUBLE, requires_grad=True)
    b = torch.tensor([0.7, 1.0, 1.001, 2.0], dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(d.scale_term, (a, b))
    assert torch.autograd.gradgradcheck(d.scale_term, (a, b))


@pytest.mark.parametrize("cholesky", [False, True])
def test_small_kl_keeps_its_relative_precision_where_the_textbook_formula_is_noise(cholesky: bool) -> None:
    for step in (1e-4, 1e-6, 1e-8):
        scale = torch.full((1, 6), 0.2, dtype=DOUBLE)
        wider = scale * (1.0 + step)
        old, new = (Gaussian(torch.zeros_like(scale), torch.diag_embed(s) if cholesky else s) for s in (scale, wider))
        # ½·6·φ(−2 log(1+δ)) = 6δ²(1 − 5δ/3 + …)
        assert float(old.kl(new)) == pytest.approx(
            6 * step**2 * (1 - 5 * step / 3), rel=max(1e-7, 10 * step**2, 1e-16 / step)
        )


def test_the_peer_whose_covariance_kl_is_negative() -> None:
    # σ 0.2 → 0.25 in six dimensions: −1.08 with determinants clamped at 1e-6.
    old, new = (Gaussian(torch.zeros(1, 6), torch.full((1, 6), s)) for s in (0.2, 0.25))
    assert float(old.kl(new)) == pytest.approx(0.2588613, rel=1e-6)


@quick
@given(gaussians(), st.integers(0, 10**6), st.sampled_from([1.0, 0.03]))
def test_gaussian_kl_log_prob_and_entropy_agree_with_torch(old: Gaussian, seed: int, near: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    size = old.mean.shape[-1]
    stretch = (near * torch.randn(old.mean.shape, generator=generator, dtype=DOUBLE)).exp()
    if old.is_diagonal:
        new = Gaussian(old.sample(1, generator).squeeze(-2), old.scale * stretch)
    else:
        lean = near / size * torch.randn(old.scale.shape, generator=generator, dtype=DOUBLE).tril(-1)
        new = Gaussian(old.sample(1, generator).squeeze(-2), old.scale @ (torch.diag_embed(stretch) + lean))
    p, q = reference(old), reference(new)
    assert torch.allclose(old.kl(new), td.kl_divergence(p, q), rtol=1e-10, atol=1e-13 * size)
    assert torch.equal(old.kl(old), torch.zeros_like(old.kl(old)))
    actions = old.sample(3, generator)
    expected = p.log_prob(actions.movedim(-2, 0)).movedim(0, -1)
    assert torch.allclose(old.log_prob(actions), expected, rtol=1e-9, atol=1e-10 * size)
    assert torch.allclose(old.entropy(), p.entropy(), rtol=1e-12, atol=1e-12 * size)


@quick
@given(gaussians(dtype=torch.float32), st.integers(0, 10**6))
def test_float32_kl_is_that_of_float64_with_the_same_inputs(old: Gaussian, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    stretch = (0.1 * torch.randn(old.mean.shape, generator=generator)).exp()
    new = Gaussian(old.mean + 0.1 * d.diagonal(old.scale, old.mean) * stretch, d.scale_tril(old.scale, old.mean))
    new = (
        Gaussian(new.mean, old.scale * stretch)
        if old.is_diagonal
        else Gaussian(new.mean, new.scale * stretch.unsqueeze(-1))
    )
    exact = old.to(DOUBLE).kl(new.to(DOUBLE))
    assert (old.kl(new) >= 0).all()
    # The triangular solves lose what the condition of the factor costs, and no more; the diagonal kind has none.
    condition = 1.0 if old.is_diagonal else torch.linalg.cond(old.scale.double(), 1).clamp(max=1e6)
    assert ((old.kl(new).double() - exact).abs() <= 1e-5 * condition * exact).all()


@quick
@given(categoricals(), st.integers(0, 10**6), st.sampled_from([3.0, 1e-2]))
def test_categorical_kl_and_entropy_agree_with_torch(old: Categorical, seed: int, near: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    new = Categorical(old.logits + near * torch.randn(old.logits.shape, generator=generator, dtype=DOUBLE))
    p, q = (td.Categorical(logits=x.logits, validate_args=False) for x in (old, new))
    size = old.logits.shape[-1]
    assert torch.allclose(old.kl(new), td.kl_divergence(p, q), rtol=1e-10, atol=1e-13 * size)
    assert (old.kl(old) <= 1e-25).all() and (old.kl(new) >= 0).all()
    assert torch.allclose(old.entropy(), p.entropy(), rtol=1e-12, atol=1e-12)


def test_categorical_kl_at_the_ends() -> None:
    inf = torch.inf
    old = Categorical(torch.tensor([[0.0, 0.0, -inf], [0.0, 0.0, -inf], [0.0, -200.0, 0.0]]))
    new = Categorical(torch.tensor([[0.0, 0.0, -inf], [0.0, -inf, 0.0], [0.0, 0.0, 0.0]], requires_grad=True))
    kl = old.kl(new)
    assert kl.tolist() == pytest.approx([0.0, math.inf, math.log(1.5)], rel=1e-5)
    kl[2].backward()
    assert torch.isfinite(new.logits.grad[2]).all()


@pytest.mark.parametrize("cholesky", [False, True])
@pytest.mark.parametrize("lead", [(), (3,)])
def test_samples_have_the_moments_of_the_distribution(cholesky: bool, lead: tuple[int, ...]) -> None:
    scale = torch.tensor([[0.5, 0.0], [0.9, 0.2]], dtype=DOUBLE) if cholesky else torch.tensor([0.5, 2.0], dtype=DOUBLE)
    p = Gaussian(torch.tensor([1.0, -2.0], dtype=DOUBLE).expand(*lead, 4, 2), scale.expand(*lead, 4, *scale.shape))
    actions = p.sample(20_000, torch.Generator().manual_seed(0))
    assert actions.shape == (*lead, 4, 20_000, 2)
    x = actions - p.mean.unsqueeze(-2)
    tril = p.scale_tril()
    assert x.mean(-2).abs().max() < 0.06
    assert (x.mT @ x / 20_000 - tril @ tril.mT).abs().max() < 0.15
    again = p.sample(20_000, torch.Generator().manual_seed(0))
    assert torch.equal(actions, again)


def test_categorical_samples_are_one_hot_with_the_right_frequencies() -> None:
    p = Categorical(torch.tensor([[0.0, 1.0, -torch.inf, 0.5], [-torch.inf, 0.0, -torch.inf, -torch.inf]]))
    actions = p.sample(40_000, torch.Generator().manual_seed(0))
    assert actions.shape == (2, 40_000, 4)
    assert torch.equal(actions.sum(-1), torch.ones(2, 40_000))
    frequencies = actions.mean(-2)
    assert (frequencies - p.logits.softmax(-1)).abs().max() < 0.01
    assert frequencies[0, 2] == 0.0 and frequencies[1, 1] == 1.0
    assert torch.equal(p.mode, torch.tensor([[0.0, 1.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]))
    assert torch.isfinite(p.log_prob(actions)).all()


def test_mixed_kinds_are_an_error_that_names_them() -> None:
    flat = Gaussian(torch.zeros(1, 2), torch.ones(1, 2))
    full = Gaussian(flat.mean, flat.scale_tril())
    with pytest.raises(ProblemError, match=r"gaussian \(diagonal\).*gaussian \(Cholesky\)"):
        flat.kl(full)
    with pytest.raises(ProblemError, match="categorical"):
        flat.kl(Categorical(torch.zeros(1, 2)))


@pytest.mark.parametrize(("one", "other"), [((5, 2), (5, 3)), ((5, 2), (5, 1)), ((5, 2), (4, 2))])
def test_shapes_that_do_not_fit_are_named(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    for kind in (Categorical, lambda x: Gaussian(x, torch.ones_like(x))):
        with pytest.raises(ProblemError, match=rf"\[{one[0]}, {one[1]}\] and \[{other[0]}, {other[1]}\]"):
            kind(torch.zeros(one)).kl(kind(torch.zeros(other)))
        assert kind(torch.zeros(one)).kl(kind(torch.zeros(1, one[1]))).shape == one[:1]


def test_records_detach_and_move() -> None:
    p = Gaussian(torch.zeros(1, 2, requires_grad=True), torch.ones(1, 2, requires_grad=True))
    assert not p.detach().mean.requires_grad and not p.detach().scale.requires_grad
    assert p.to(DOUBLE).scale.dtype == DOUBLE
    assert not p.sample(3).requires_grad
    assert torch.equal(p.mode, p.mean)


def test_the_free_functions_trace_as_one_graph() -> None:
    def loss(mean0, scale0, mean, scale, actions):
        kl = d.mean_kl(mean0, scale0, mean) + d.covariance_kl(mean0, scale0, scale)
        return kl.sum() - d.gaussian_log_prob(mean, scale, actions).sum()

    torch.manual_seed(0)
    scale0, scale = torch.diag_embed(torch.rand(2, 4, 3) + 0.5)
    moving = [torch.randn(4, 3, requires_grad=True), scale.requires_grad_()]
    inputs = (torch.randn(4, 3), scale0, *moving, torch.randn(4, 5, 3))
    plain = torch.autograd.grad(loss(*inputs), moving)
    traced = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(*inputs), moving)
    assert all(torch.allclose(a, b) for a, b in zip(plain, traced, strict=True))

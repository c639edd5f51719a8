"""The terms of a fit in one tensor: what ``kl`` and ``objective`` give, with the same derivatives, or not used."""

from __future__ import annotations

import attrs
import pytest
import torch

from cvpo.distributions import Gaussian
from cvpo.errors import ConfigError
from cvpo.mstep.decoupled import Decoupled
from cvpo.mstep.diagonal import DiagonalTerms, moments_of
from cvpo.mstep.likelihood import Likelihood
from cvpo.mstep.terms import Terms
from cvpo.testing.projection import check_projection
from tests.mstep.helpers import Net, gaussian, problem


class Apart(Decoupled):
    """Without the quicker way."""

    joined = None


@pytest.mark.parametrize("lead", [(), (3,)])
def test_terms_are_relatively_exact_however_small_the_step(lead: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    mean, scale = torch.randn(*lead, 5, 2), 0.1 + torch.rand(*lead, 5, 2)
    old, actions = Gaussian(mean, scale), torch.randn(*lead, 5, 7, 2)
    weights = torch.softmax(torch.randn(*lead, 5, 7), -1)
    for step in (1.0, 1e-3, 1e-6):
        new = Gaussian(mean + step * scale, scale * (1.0 + step))
        terms = Decoupled().joined(old, actions, weights)
        kls = Decoupled().kl(old.to(torch.float64), new.to(torch.float64))
        for found in (terms(new), *(by_hand(new) for by_hand in [terms.by_hand()] if by_hand is not None)):
            torch.testing.assert_close(found[..., 0, :].double(), kls["mean"], rtol=1e-5, atol=0)
            torch.testing.assert_close(found[..., 1, :].double(), kls["cov"], rtol=1e-5, atol=0)


def test_a_fit_is_the_same_with_and_without() -> None:
    ends = []
    for projection in (Decoupled(), Apart()):
        torch.manual_seed(0)
        policy, obs = Net("diagonal"), torch.randn(64, 3)
        old, old_params, actions, weights = problem(policy, obs)
        used = projection.joined is not None and projection.joined(old, actions, weights) is not None
        assert used == (type(projection) is Decoupled)
        fit = Likelihood(iterations=4)
        state = fit.build(policy, projection)
        stats = fit.fit(state, policy, projection, obs, old, old_params, actions, weights)
        ends.append((stats, [p.detach() for p in policy.parameters()]))
    for name, value in ends[0][0].items():
        torch.testing.assert_close(value, ends[1][0][name], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(ends[0][1], ends[1][1], rtol=1e-4, atol=1e-5)


@attrs.frozen
class OtherKl(Decoupled):
    def kl(self, old, new):
        return {name: 2.0 * value for name, value in super().kl(old, new).items()}


@attrs.frozen
class OtherObjective(Decoupled):
    def objective(self, old, new, actions, weights):
        return 2.0 * super().objective(old, new, actions, weights)


@attrs.frozen
class OtherBounds(Decoupled):
    @property
    def bounds(self):
        return {"cov": self.kl_cov, "mean": self.kl_mean}


@pytest.mark.parametrize("projection", [OtherKl(), OtherObjective(), OtherBounds()])
def test_a_subclass_with_terms_of_its_own_has_them_used(projection: Decoupled) -> None:
    old, actions, weights = drawn()
    assert Decoupled().joined(old, actions, weights) is not None
    assert projection.joined(old, actions, weights) is None


@pytest.mark.parametrize("cholesky, dtype", [(True, torch.float32), (False, torch.float64), (False, torch.bfloat16)])
def test_others_than_diagonal_float32_go_one_by_one(cholesky: bool, dtype: torch.dtype) -> None:
    old = gaussian(cholesky).to(dtype)
    assert Decoupled().joined(old, old.mean.unsqueeze(-2), torch.ones_like(old.mean[..., :1])) is None


class Wrapper:
    """Twice the KL terms of the projection that it wraps; all else is that one's."""

    def __init__(self, inner: Decoupled) -> None:
        self.inner = inner

    def __getattr__(self, name: str):
        return getattr(self.inner, name)

    def kl(self, old, new):
        return {name: 2.0 * value for name, value in self.inner.kl(old, new).items()}


def drawn() -> tuple[Gaussian, torch.Tensor, torch.Tensor]:
    old = gaussian(False)
    old = Gaussian(old.mean.float(), old.scale.float())
    return old, old.sample(6), torch.full((4, 6), 1 / 6)


def test_a_wrapper_has_its_own_terms_used() -> None:
    old, actions, weights = drawn()
    new = Gaussian(old.mean + 0.1, 1.1 * old.scale)
    terms = Terms(("mean", "cov"), Wrapper(Decoupled()), old, actions, weights)
    expected = 2.0 * torch.stack(list(Decoupled().kl(old, new).values()))
    torch.testing.assert_close(terms.kls(new), expected)


def test_terms_of_another_shape_are_named() -> None:
    class Transposed(Decoupled):
        def joined(self, old, actions, weights):
            terms = super().joined(old, actions, weights)
            return lambda new: terms(new).mT

    old, actions, weights = drawn()
    terms = Terms(("mean", "cov"), Transposed(), old, actions, weights)
    for asked in (terms.kls, terms.all):
        with pytest.raises(ConfigError, match=r"joined gives .*\[4, 3\].*\[3, 4\]"):
            asked(old)


@pytest.mark.parametrize("part", range(4))
def test_where_the_old_policy_or_the_particles_are_differentiated_it_is_not_used(part: int) -> None:
    old, actions, weights = drawn()
    given = [old.mean, old.scale, actions, weights]
    given[part] = given[part].clone().requires_grad_()
    assert Decoupled().joined(Gaussian(*given[:2]), *given[2:]) is None


def test_terms_may_be_differentiated_twice() -> None:
    distribution, actions, weights = drawn()
    given = moments_of(*(part.double() for part in (distribution.mean, distribution.scale, actions, weights)))
    new = [(distribution.mean + 0.3).double().requires_grad_(), (1.2 * distribution.scale).double().requires_grad_()]
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        assert check(lambda mean, scale: DiagonalTerms.apply(mean, scale, *given), new)


def wrong(factors: tuple[float, float, float], slope: float) -> Decoupled:
    """With terms that are off by ``factors``, or derivatives by ``slope``."""

    class Wrong(Decoupled):
        def joined(self, old, actions, weights):
            terms = super().joined(old, actions, weights)
            by = torch.tensor(factors).unsqueeze(-1)

            def off(new):
                right = by * terms(new)
                return slope * right + (1.0 - slope) * right.detach()

            return None if terms is None else off

    return Wrong()


def test_the_contract_finds_terms_and_derivatives_that_are_wrong() -> None:
    check_projection(wrong((1.0, 1.0, 1.0), 1.0), examples=20)
    with pytest.raises(AssertionError, match="joined, its KL terms, is"):
        check_projection(wrong((1.0, 2.0, 1.0), 1.0), examples=20)
    with pytest.raises(AssertionError, match="derivative of joined"):
        check_projection(wrong((1.0, 1.0, 1.0), 0.5), examples=20)


@pytest.mark.parametrize("name, what", [("values", "by_hand, its KL terms"), ("slopes", "derivative of by_hand")])
def test_the_contract_finds_what_is_wrong_by_hand(name: str, what: str) -> None:
    pytest.importorskip("numba")

    class Off:
        def __init__(self, right) -> None:
            self.right = right

        def __call__(self, new):
            return (2.0 if name == "values" else 1.0) * self.right(new)

        def slopes(self, factors):
            by_mean, by_scale = self.right.slopes(factors)
            return by_mean, (2.0 if name == "slopes" else 1.0) * by_scale

    class Wrong(Decoupled):
        def joined(self, old, actions, weights):
            terms = super().joined(old, actions, weights)
            if terms is not None:
                right = terms.by_hand()
                terms.by_hand = lambda: Off(right)
            return terms

    with pytest.raises(AssertionError, match=what):
        check_projection(Wrong(), examples=20)

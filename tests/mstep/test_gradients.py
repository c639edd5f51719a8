"""Derivatives that are written by hand are those that autograd finds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cvpo.distributions import covariance_kl, mean_kl
from cvpo.mstep.decoupled import decoupled_likelihood

STATES, PARTICLES, DIMENSIONS = 3, 5, 2


def _tensors(lead: tuple[int, ...]) -> tuple[Tensor, ...]:
    """μ₀, σ₀, μ, σ, actions and weights in float64."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*lead, *shape, generator=generator, dtype=torch.float64)

    mean0, scale0, mean, scale = (draw(STATES, DIMENSIONS) for _ in range(4))
    return (
        mean0,
        (0.3 * scale0).exp(),
        mean,
        (0.3 * scale).exp(),
        draw(STATES, PARTICLES, DIMENSIONS),
        torch.softmax(draw(STATES, PARTICLES), -1),
    )


def _new_only(mean0: Tensor, scale0: Tensor, actions: Tensor, weights: Tensor) -> object:
    return lambda mean, scale: decoupled_likelihood(mean0, scale0, mean, scale, actions, weights)


@pytest.mark.parametrize("lead", [(), (2,)])
def test_likelihood_and_divergences_of_a_diagonal_gaussian(lead: tuple[int, ...]) -> None:
    mean0, scale0, mean, scale, actions, weights = _tensors(lead)
    new = mean.requires_grad_(), scale.requires_grad_()
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        assert check(_new_only(mean0, scale0, actions, weights), new)
    old = mean0.requires_grad_(), scale0.requires_grad_()
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        assert check(mean_kl, (old[0], old[1], new[0]))
        assert check(covariance_kl, (old[0], old[1], new[1]))


def test_what_is_given_to_the_likelihood_may_be_differentiated_too() -> None:
    mean0, scale0, mean, scale, actions, weights = _tensors(())
    given = tuple(part.requires_grad_() for part in (mean0, scale0, mean, scale, actions, weights))
    assert torch.autograd.gradcheck(decoupled_likelihood, given)
    both = (
        decoupled_likelihood(*given),
        decoupled_likelihood(mean0.detach(), scale0.detach(), mean, scale, actions.detach(), weights.detach()),
    )
    for one, other in zip(*(torch.autograd.grad(value.sum(), (mean, scale)) for value in both), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)

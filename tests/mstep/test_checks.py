"""M-step problems that do not fit are said to."""

from __future__ import annotations

import pytest
import torch

from cvpo import mstep
from cvpo.distributions import Categorical, Gaussian
from cvpo.errors import ProblemError

OLD = Gaussian(torch.zeros(4, 3), torch.ones(4, 3))
ACTIONS, WEIGHTS = torch.zeros(4, 5, 3), torch.full((4, 5), 0.2)


@pytest.mark.parametrize("name", ["decoupled", "full"])
@pytest.mark.parametrize(
    "old, actions, weights, message",
    [
        (OLD, None, WEIGHTS, "actions is None; allowed for a Gaussian"),
        (OLD, ACTIONS[..., :2], WEIGHTS, r"actions has shape \[4, 5, 2\]; allowed: \[4, 5, 3\]"),
        (OLD, ACTIONS, WEIGHTS[:3], r"weights has shape \[3, 5\]; allowed: \[4, 5\]"),
        (OLD, ACTIONS, -WEIGHTS, "weights are negative, not finite, or all 0"),
        (OLD, ACTIONS, 0.0 * WEIGHTS, "weights are negative, not finite, or all 0"),
        (OLD, ACTIONS, torch.nan * WEIGHTS, "weights are negative, not finite, or all 0"),
        (OLD, torch.inf + ACTIONS, WEIGHTS, "actions are not finite"),
        ("policy", ACTIONS, WEIGHTS, "is given a str; allowed: gaussian"),
        *(
            (Gaussian(OLD.mean, value * OLD.scale), ACTIONS, WEIGHTS, "deviations of 0 or less, or not finite")
            for value in (0.0, -1.0, torch.nan, torch.inf)
        ),
    ],
)
def test_particles_that_do_not_fit_are_named(name, old, actions, weights, message):
    with pytest.raises(ProblemError, match=message):
        mstep.registry.create(name).project(old, actions, weights)


def test_a_categorical_policy_needs_a_projection_for_it():
    old = Categorical(torch.zeros(4, 3))
    decoupled, full = (mstep.registry.create(name) for name in ("decoupled", "full"))
    for call in (lambda: decoupled.project(old, None, WEIGHTS[:, :3]), lambda: decoupled.kl(old, old)):
        with pytest.raises(ProblemError, match="given a categorical distribution; allowed: gaussian"):
            call()
    with pytest.raises(ProblemError, match=r"weights has shape \[4, 5\]; allowed: \[4, 3\]"):
        full.project(old, None, WEIGHTS)


@pytest.mark.parametrize("bad", [[0.0, 1.0, torch.nan], [0.0, torch.inf, 0.0], [-torch.inf] * 3])
def test_categories_without_finite_probabilities_are_named(bad):
    with pytest.raises(ProblemError, match="the old policy is not finite"):
        mstep.registry.create("full").project(Categorical(torch.tensor([bad])), None, torch.tensor([[0.2, 0.5, 0.3]]))


@pytest.mark.parametrize("name", ["decoupled", "full"])
@pytest.mark.parametrize(("row", "column", "value"), [(1, 0, torch.nan), (0, 1, 3.0)])
def test_a_scale_that_is_no_cholesky_factor_is_named(name, row, column, value):
    scale = torch.eye(3).repeat(4, 1, 1)
    scale[:, row, column] = value
    with pytest.raises(ProblemError, match="no Cholesky factor; allowed: finite, with 0 above the diagonal"):
        mstep.registry.create(name).project(Gaussian(OLD.mean, scale), ACTIONS, WEIGHTS)


@pytest.mark.parametrize("scale", [(4, 2), (4,), (4, 3, 2), (4, 3, 3, 3)])
def test_a_gaussian_has_a_scale_of_its_mean(scale):
    with pytest.raises(ProblemError, match=r"scale has shape .* for a mean of shape \[4, 3\]; allowed"):
        Gaussian(torch.zeros(4, 3), torch.ones(scale))

"""The public contract holds for every registered projection, and fails for every deliberately wrong one."""

from __future__ import annotations

import attrs
import pytest
import torch

from cvpo import mstep
from cvpo.cli import main
from cvpo.distributions import Gaussian, diagonal, mean_kl, scale_tril
from cvpo.mstep.decoupled import Decoupled
from cvpo.mstep.full import Full
from cvpo.mstep.paths import curve_of, scale_at
from cvpo.mstep.root import largest_step
from cvpo.testing.projection import check_projection


@pytest.mark.parametrize("average", ["batch", "state"])
@pytest.mark.parametrize("name", mstep.registry.names())
def test_every_registered_projection_keeps_the_contract(name: str, average: str) -> None:
    check_projection(mstep.registry.create(name, average=average), examples=20)


def test_bounds_that_are_slack_or_far_away_keep_it_too() -> None:
    check_projection(Full(kl=5.0), examples=12)
    check_projection(Decoupled(kl_mean=3.0, kl_cov=1e-8), examples=12)


@attrs.frozen
class SwappedArguments(Full):
    """KL(π ‖ π₀) instead of KL(π₀ ‖ π)."""

    def kl(self, old, new):
        return {"joint": new.kl(old)}


@attrs.frozen
class ClampedDeterminant(Decoupled):
    """KL from determinants clamped at 1e-6, as in the paper's code."""

    def kl(self, old, new):
        mean, l0, l1 = old.mean, scale_tril(old.scale, old.mean), scale_tril(new.scale, old.mean)
        ratio = torch.linalg.solve_triangular(l1, l0, upper=False)
        trace = ratio.square().sum((-2, -1))
        logs = [diagonal(x, mean).prod(-1).square().clamp(min=1e-6).log() for x in (l1, l0)]
        cov = 0.5 * (trace - mean.shape[-1] + logs[0] - logs[1])
        return {"mean": mean_kl(mean, old.scale, new.mean), "cov": cov}


@attrs.frozen
class BoundOnTheSum(Full):
    """The sum over states held to a bound that is meant for their mean."""

    def project(self, old, actions, weights):
        states = weights.shape[-2]
        return attrs.evolve(Full(kl=self.kl_bound / states)).project(old, actions, weights)


@attrs.frozen
class SymmetricRoot(Full):
    """The symmetric square root of Σ where a lower Cholesky factor is due."""

    def project(self, old, actions, weights):
        new = super().project(old, actions, weights)
        if old.kind == "categorical" or new.is_diagonal:
            return new
        values, vectors = torch.linalg.eigh(new.scale @ new.scale.mT)
        return Gaussian(new.mean, vectors @ torch.diag_embed(values.clamp(min=0).sqrt()) @ vectors.mT)


@attrs.frozen
class MissingTranspose(Decoupled):
    """L₀⁻¹ S L₀⁻¹ for L₀⁻¹ S L₀⁻ᵀ: not symmetric; a Cholesky factorisation reads its lower half without complaint."""

    def project(self, old, actions, weights):
        new = super().project(old, actions, weights)
        if old.is_diagonal:
            return new
        x = actions - old.mean.unsqueeze(-2)
        half = torch.linalg.solve_triangular(old.scale, (weights.unsqueeze(-1) * x).mT @ x, upper=False)
        w = torch.linalg.solve_triangular(old.scale, half, upper=False, left=False)
        still = torch.zeros_like(old.mean)
        g = w.tril() + w.tril(-1).mT - torch.eye(w.shape[-1], dtype=w.dtype)
        t = largest_step(*curve_of(g, still), bound=self.kl_cov, average=self.average)
        return Gaussian(new.mean, scale_at(old, g, still, t))


@attrs.frozen
class NewCovarianceForTheMean(Decoupled):
    """The mean term measured in the new covariance."""

    def kl(self, old, new):
        return super().kl(old, new) | {"mean": mean_kl(old.mean, new.scale, new.mean)}


@attrs.frozen
class HalfTheStep(Full):
    """Inside the bound, but not the maximiser."""

    def project(self, old, actions, weights):
        return attrs.evolve(Full(kl=0.5 * self.kl_bound, average=self.average)).project(old, actions, weights)


@attrs.frozen
class DividedTwice(Full):
    """The likelihood divided by K although the weights sum to 1."""

    def objective(self, old, new, actions, weights):
        return super().objective(old, new, actions, weights) / weights.shape[-1]


@attrs.frozen
class NoObjective(Decoupled):
    """Nothing beats a constant; a fit that follows it stands still."""

    def objective(self, old, new, actions, weights):
        return 0.0 * super().objective(old, new, actions, weights)


@attrs.frozen
class Detached(Decoupled):
    """An objective that no fit can follow."""

    def objective(self, old, new, actions, weights):
        return super().objective(old, new, actions, weights).detach()


@attrs.frozen
class BatchForState(Full):
    """A bound on the mean where each state was to be bounded."""

    def project(self, old, actions, weights):
        return Full(kl=self.kl_bound, average="batch").project(old, actions, weights)


@attrs.frozen
class InPlace(Decoupled):
    """Normalises the caller's weights in place."""

    def project(self, old, actions, weights):
        weights.mul_(0.5)
        return super().project(old, actions, weights)


WRONG = {
    "arguments swapped": (SwappedArguments(), "torch.distributions"),
    "determinant clamped": (ClampedDeterminant(), "at least 0|torch.distributions|between equals"),
    "bound on the sum": (BoundOnTheSum(), "possible inside the bounds"),
    "not a Cholesky factor": (SymmetricRoot(), "lower triangular"),
    "covariance not symmetric": (MissingTranspose(), "possible inside the bounds"),
    "mean in the new covariance": (NewCovarianceForTheMean(), "torch.distributions"),
    "half the step": (HalfTheStep(), "possible inside the bounds"),
    "divided by K twice": (DividedTwice(), "duplicated particles"),
    "no objective": (NoObjective(kl_mean=0.1), "allowed: what the weighted log-likelihood gains"),
    "detached": (Detached(), "objective has no gradient"),
    "batch for state": (BatchForState(average="state"), "kl\\['joint'\\]"),
    "inputs changed": (InPlace(), "in place"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_projection_is_caught(name: str) -> None:
    projection, words = WRONG[name]
    with pytest.raises(AssertionError, match=words):
        check_projection(projection, examples=40, kinds=("gaussian",))


def test_the_command_line_prints_the_example_that_breaks_a_wrong_projection(capsys: pytest.CaptureFixture) -> None:
    assert main(["check", "mstep", "tests.mstep.test_contract:SwappedArguments", "--examples", "8"]) == 1
    out = capsys.readouterr().out
    assert "FAILED  KL terms of gaussian policies" in out
    assert "torch.distributions" in out and "Gaussian(mean=tensor" in out

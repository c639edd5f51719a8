"""The property of a projection that has a quicker way to its terms: it is the same way."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cvpo.distributions import Gaussian
from cvpo.mstep.protocol import Projection
from cvpo.testing.gaussians import ProjectionProblem
from cvpo.testing.projection_measures import batch, dtype, require


def check_joined(projection: Projection, problem: ProjectionProblem, new: Any) -> None:
    """What ``joined`` gives at ``new``, and its derivatives, against ``kl`` and ``objective`` in float64."""
    joined = getattr(type(projection), "joined", None)
    old, particles = problem.old, (problem.actions, problem.weights)
    terms = None if joined is None else joined(projection, old, *particles)
    if terms is None:
        return
    exact: Any = [None if part is None else part.double() for part in particles]

    def one_by_one(other: Any) -> Tensor:
        kls = projection.kl(old.to(torch.float64), other)
        objective = projection.objective(old.to(torch.float64), other, *exact)
        return torch.stack([*(kls[name] for name in projection.bounds), objective], -2)

    shape = (*batch(old)[:-1], len(projection.bounds) + 1, batch(old)[-1])

    def checked(other: Any) -> Tensor:
        values = terms(other)
        require(values.shape == shape, f"joined gives shape {tuple(values.shape)}; allowed: {tuple(shape)}")
        require(values.requires_grad, "joined gives what cannot be differentiated by the new policy")
        return values

    expected = _with_slopes(one_by_one, new.to(torch.float64))
    _agree_all("joined", _with_slopes(checked, new), expected, dtype(old))
    by_hand = getattr(terms, "by_hand", lambda: None)()
    if by_hand is not None:
        values = by_hand(new)
        factors = torch.arange(1.0, values.shape[-2] + 1.0, dtype=values.dtype).expand(values.shape[:-1])
        # It has those of the mean over states.
        slopes = [batch(old)[-1] * slope for slope in by_hand.slopes(factors)]
        _agree_all("by_hand", (values, slopes), expected, dtype(old))


def _with_slopes(terms: Any, new: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The terms, and the derivatives of a sum in which each has a factor of its own."""
    parts = [new.mean, new.scale] if isinstance(new, Gaussian) else [new.logits]
    leaves = [part.detach().clone().requires_grad_() for part in parts]
    values = terms(type(new)(*leaves))
    factors = torch.arange(1.0, values.shape[-2] + 1.0, dtype=values.dtype).unsqueeze(-1)
    return values.detach(), torch.autograd.grad((factors * values).sum(), leaves)


def _agree_all(what: str, found: Any, expected: Any, at: torch.dtype) -> None:
    (values, slopes), (expected_values, expected_slopes) = found, expected
    # The objective is a sum of what may cancel; KL terms are small by nature.
    kls, objective = slice(None, -1), slice(-1, None)
    for name, part, floor in (("KL terms", kls, 1e-12), ("objective", objective, 1.0)):
        _agree(f"{what}, its {name},", values[..., part, :], expected_values[..., part, :], floor, at)
    for name, slope, of in zip(("first", "second"), slopes, expected_slopes, strict=False):
        _agree(f"the derivative of {what} by the {name} part of the policy", slope, of, 1.0, at)


def _agree(words: str, found: Tensor, expected: Tensor, floor: float, at: torch.dtype) -> None:
    """To a thousand units in the last place of the largest number in the last axis, or of ``floor``."""
    size = floor + expected.abs().amax(-1, keepdim=True)
    off = (found.double() - expected).abs() - 1e3 * torch.finfo(at).eps * size
    at_worst = int(off.argmax())
    require(
        bool((off <= 0).all()),
        f"{words} is {float(found.flatten()[at_worst]):.9g} where kl and objective give"
        f" {float(expected.flatten()[at_worst]):.9g}",
    )

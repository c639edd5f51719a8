"""What an M-step problem must be: said in words before the arithmetic says it in its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cvpo.distributions.checks import check_distribution
from cvpo.errors import ProblemError


def check_kind(kinds: tuple[str, ...], *distributions: Any) -> None:
    """Raises ProblemError for a distribution that is of none of the ``kinds``."""
    for each in distributions:
        kind = getattr(each, "kind", None)
        if kind not in kinds:
            found = f"a {kind} distribution" if kind else f"a {type(each).__name__}"
            raise ProblemError(f"the projection is given {found}; allowed: {' or '.join(kinds)}")


def check_particles(old: Any, actions: Tensor | None, weights: Tensor) -> None:
    """Raises ProblemError for particles that are not those of ``old``, and, on a host, for weights that are negative,
    not finite or without any mass, and for an old policy or actions that are not finite.

    ``old`` is Gaussian over D dimensions, or categorical over D categories; actions [...,B,K,D], weights [...,B,K];
    without actions, weights [...,B,D].
    """
    if actions is None and old.kind == "gaussian":
        raise ProblemError("actions is None; allowed for a Gaussian: a tensor [...,B,K,D]")
    batch, count = tuple(old.mode.shape), tuple(weights.shape[-1:])
    expected = [("weights", weights, batch if actions is None else batch[:-1] + count)]
    if actions is not None:
        expected.append(("actions", actions, batch[:-1] + count + batch[-1:]))
    for name, value, shape in expected:
        if tuple(value.shape) != shape:
            raise ProblemError(f"{name} has shape {list(value.shape)}; allowed: {list(shape)}, to match the old policy")
    if weights.device.type != "cpu":
        return
    if not bool((torch.isfinite(weights) & (weights >= 0)).all()) or not bool((weights.sum(-1) > 0).all()):
        raise ProblemError("weights are negative, not finite, or all 0 in a state; allowed: at least 0, with a sum > 0")
    check_distribution(old, "the old policy")
    if actions is not None and not bool(torch.isfinite(actions).all()):
        raise ProblemError("actions are not finite; allowed: finite values")

"""The pass over the data of a dual evaluation: tensors in, tensors out, without host synchronisation.

Shape legend as in :mod:`cvpo.estep.dual`. The same moments twice: in few tensor operations, and written out so that a
compiler makes one loop of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

Moments = Callable[[Tensor, "Tensor | None", Tensor, bool], "tuple[Tensor, Tensor | None]"]

CACHED = 2**17
"""Numbers of (Q_r, Q_c) that are worked on at once on a host, 1 MiB: with what is made of them they fit its cache."""
FEW = 4
"""Signals up to which S(S + 1)/2 sums in one loop are faster than a product."""


def by_parts(q: Tensor, log_prior: Tensor | None, rows: Tensor, keep: bool) -> tuple[Tensor, Tensor | None]:
    """:func:`moments`, of a large stack on a host by parts that stay in its cache; w only if to ``keep``."""
    step = len(q)
    if q.device.type == "cpu" and not torch.compiler.is_compiling():
        step = max(1, CACHED // q[0].numel())
    if step >= len(q):
        packed, weights = moments(q, log_prior, rows)
        return packed, weights if keep else None
    found, kept = [], []
    for i in range(0, len(q), step):
        part = slice(i, i + step)
        packed, weights = moments(q[part], None if log_prior is None else log_prior[part], rows[part])
        found.append(packed)
        if keep:
            kept.append(weights)
    return torch.cat(found), torch.cat(kept) if keep else None


def moments(q: Tensor, log_prior: Tensor | None, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Means over states, and w; ``rows`` [P,S,S] takes (Q_r, Q_c) to the features f = (z, Q_c).

    The means are packed [P, 2+S+S²], for a host that reads them at once: of log Σ_k p exp(z − top), of the largest
    z + log p in each state ("top"), of Σ_k w (z − top) and Σ_k w Q_c, and of Cov_w[f].
    """
    # One product in place of z and a copy of Q_c beside it: 0·Q_r + 1·Q_c is exact.
    f = torch.bmm(rows, q.flatten(2)).view(q.shape)
    z = f[:, 0]
    # Shifts cancel in all that is returned, so they carry no derivative. z is shifted in place for its moments' sake,
    # which lose nothing then where it is large.
    if log_prior is None:
        top = z.detach().amax(-1, keepdim=True)
        z.sub_(top)
        mass = z.exp()
    else:
        tilted = z + log_prior
        top = tilted.detach().amax(-1, keepdim=True)
        z.sub_(top)
        mass = (tilted - top).exp()
    total = mass.sum(-1, keepdim=True)
    weights = mass / total
    weighted = weights.unsqueeze(1) * f
    first = weighted.sum(-1)
    share = 1.0 / q.shape[2]
    outer = torch.bmm(first, first.mT)
    covariance = torch.baddbmm(outer, weighted.flatten(2), f.flatten(2).mT, beta=-share, alpha=share)
    means = torch.cat([total.log().mT, top.mT, first], dim=1).mean(-1)
    return torch.cat([means, covariance.flatten(1)], dim=1), weights


def loop(q: Tensor, log_prior: Tensor | None, rows: Tensor, keep: bool) -> tuple[Tensor, Tensor | None]:
    """:func:`moments` by sums over K alone, all of which a compiler takes in one reading of the data."""
    mix = rows[:, 0]
    z = q[:, 0] * mix[:, 0, None, None]
    costs = [q[:, m] for m in range(1, q.shape[1])]
    for m, cost in enumerate(costs, start=1):
        z = z + cost * mix[:, m, None, None]
    tilted = z if log_prior is None else z + log_prior
    top = tilted.amax(-1, keepdim=True)
    mass = (tilted - top).exp()
    features = [z - top, *costs]
    total = mass.sum(-1)
    weighted = [mass * feature for feature in features]
    first = [each.sum(-1) / total for each in weighted]
    below = [
        [(weighted[i] * features[j]).sum(-1) / total - first[i] * first[j] for j in range(i + 1)]
        for i in range(len(features))
    ]
    covariance = [below[max(i, j)][min(i, j)] for i in range(len(features)) for j in range(len(features))]
    means = [part.mean(-1) for part in (total.log(), top.squeeze(-1), *first, *covariance)]
    return torch.stack(means, dim=1), mass / total.unsqueeze(-1) if keep else None


class Compiled:
    """:func:`loop` through ``torch.compile``; where that fails, for want of a C++ compiler say, :func:`by_parts`, and a
    warning once. Numbers of states and particles may change without another compilation."""

    def __init__(self) -> None:
        self._loop: Moments | None = torch.compile(loop, fullgraph=True, dynamic=True)

    def __call__(self, q: Tensor, log_prior: Tensor | None, rows: Tensor, keep: bool) -> tuple[Tensor, Tensor | None]:
        if self._loop is not None and q.shape[1] <= FEW and not torch.compiler.is_compiling():
            try:
                return self._loop(q, log_prior, rows, keep)
            except Exception as error:  # noqa: BLE001 - whatever a missing or broken compiler raises
                self._loop = None
                warnings.warn(f"the E-step's pass is not compiled: {error}", RuntimeWarning, stacklevel=2)
        return by_parts(q, log_prior, rows, keep)


compiled = Compiled()

"""One pass over the data of a stack of problems: the moments that the dual and its derivatives are made of.

Shapes and symbols are those of :mod:`cvpo.estep.dual`. Passes work in base 2, with z/log 2 in place of z: torch's exp2
was seen to take half as long as its exp in float64 (with AVX-512).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from cvpo.estep.lanes import Lanes, Number, Vector

LN2 = math.log(2.0)

CACHED = 2**19
"""Numbers of (Q_r, Q_c) that are worked on at once on a host, 4 MiB: with what is made of them they fit a cache of 32,
and two threads have enough to do."""
MOSTLY = 0.75
"""If a smaller share of a stack is wanted, those are copied together first."""


class Pass(Protocol):
    """P normalised problems that can be passed over."""

    @property
    def like(self) -> Tensor:
        """A tensor of the dtype and on the device of the results."""

    @property
    def offset(self) -> float:
        """What log Σ_k lacks of a uniform prior, log K; else 0."""

    def prior(self, lanes: Lanes) -> Any:
        """In the numbers of ``lanes``: mean_b E_p[(Q_r, Q_c)] and mean_b Cov_p, S + S² in all."""

    def moments(self, lanes: Lanes, mix: Vector, keep: bool, wanted: Number) -> tuple[Any, Tensor | None]:
        """In the numbers of ``lanes``, with z/log 2 = ``mix``ᵀ(Q_r, Q_c), and w [P,B,K] if to ``keep`` and it
        is at hand: means over states of log Σ_k p exp(z − top), without p where it is uniform, of top/log 2, the
        largest (z + log p)/log 2 in each state, of Σ_k w (z − top)/log 2 and Σ_k w Q_c, and of Cov_w[f],
        f = (z/log 2, Q_c); 2 + S + S² in all. Where a problem is not ``wanted``, any finite numbers will do."""


class Stack(NamedTuple):
    """Any number of problems, in tensors: ``q`` [P,S,B,K], and ``log_prior`` [P,B,K], None if uniform."""

    q: Tensor
    log_prior: Tensor | None

    @property
    def like(self) -> Tensor:
        """See :attr:`Pass.like`."""
        return self.q

    @property
    def offset(self) -> float:
        """See :attr:`Pass.offset`."""
        return math.log(self.q.shape[-1]) if self.log_prior is None else 0.0

    def prior(self, lanes: Lanes) -> Any:
        """See :meth:`Pass.prior`."""
        q = self.q
        share = 1.0 / q.shape[2]
        if self.log_prior is None:
            weighted, first, scale = q, q.mean(-1), share / q.shape[3]
        else:
            weighted = self.log_prior.exp().unsqueeze(1) * q
            first, scale = weighted.sum(-1), share
        outer = torch.bmm(first, first.mT)
        covariance = torch.baddbmm(outer, weighted.flatten(2), q.flatten(2).mT, beta=-share, alpha=scale)
        return lanes.split(torch.cat([first.mean(-1), covariance.flatten(1)], dim=1))

    def moments(self, lanes: Lanes, mix: Vector, keep: bool, wanted: Number) -> tuple[Any, Tensor | None]:
        """See :meth:`Pass.moments`."""
        unit = (tuple(float(i == j) for j in range(len(mix))) for i in range(1, len(mix)))
        rows = lanes.matrix((mix, *unit), self.q)
        if isinstance(wanted, np.ndarray) and wanted.mean() < MOSTLY and not keep:
            return lanes.split(self._of_some(rows, torch.from_numpy(np.flatnonzero(wanted)))), None
        packed, weights = _by_parts(self.q, self.log_prior, rows, keep)
        return lanes.split(packed), weights

    def _of_some(self, rows: Tensor, index: Tensor) -> Tensor:
        """The moments of the problems at ``index``, and zeros for the others."""
        packed = rows.new_zeros(len(rows), 2 + rows.shape[1] + rows.shape[1] ** 2)
        for some in index.split(_at_once(self.q)):
            log_prior = None if self.log_prior is None else self.log_prior[some]
            packed[some] = _moments(self.q[some], log_prior, rows[some])[0]
        return packed


def _by_parts(q: Tensor, log_prior: Tensor | None, rows: Tensor, keep: bool) -> tuple[Tensor, Tensor | None]:
    """:func:`_moments`, of a large stack on a host by parts that stay in its cache; w only if to ``keep``."""
    parts = parts_of(q)
    if len(parts) == 1:
        packed, weights = _moments(q, log_prior, rows)
        return packed, weights if keep else None
    found, kept = [], []
    for part in parts:
        packed, weights = _moments(q[part], None if log_prior is None else log_prior[part], rows[part])
        found.append(packed)
        if keep:
            kept.append(weights)
    return torch.cat(found), torch.cat(kept) if keep else None


def _at_once(q: Tensor) -> int:
    return max(1, CACHED // max(1, math.prod(q.shape[1:])))


def parts_of(q: Tensor) -> list[slice]:
    """The problems by as many as are worked on at once: all of them, but on a host."""
    # A compiled region would be made again for every number of problems that it loops over.
    if q.device.type != "cpu" or torch.compiler.is_compiling():
        return [slice(None)]
    step = _at_once(q)
    return [slice(i, i + step) for i in range(0, len(q), step)] or [slice(None)]


def _moments(q: Tensor, log_prior: Tensor | None, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The moments, packed [P, 2+S+S²] for a host that reads them at once, and w; ``rows`` [P,S,S] make (Q_r, Q_c) f."""
    # One product in place of z and a copy of Q_c beside it: 0·Q_r + 1·Q_c is exact. States and particles lie in one
    # axis but where they must be told apart.
    problems, _, states, particles = q.shape
    f = torch.bmm(rows, q.flatten(2))
    z = f[:, 0].view(problems, states, particles)
    # Shifts cancel in all that is returned, so they carry no derivative. z is shifted in place for its moments' sake,
    # which lose nothing then where it is large.
    if log_prior is None:
        top = z.detach().amax(-1, keepdim=True)
        z.sub_(top)
        mass = z.exp2()
    else:
        tilted = torch.add(z, log_prior, alpha=1.0 / LN2)
        top = tilted.detach().amax(-1, keepdim=True)
        z.sub_(top)
        mass = (tilted - top).exp2()
    total = mass.sum(-1, keepdim=True)
    over = total.reciprocal()
    weights = mass * over if mass.requires_grad else mass.mul_(over)
    weighted = weights.view(problems, 1, states * particles) * f
    first = weighted.view(q.shape).sum(-1)
    share = 1.0 / states
    outer = torch.bmm(first, first.mT)
    covariance = torch.baddbmm(outer, weighted, f.mT, beta=-share, alpha=share)
    means = torch.cat([total.log().mT, top.mT, first], dim=1).mean(-1)
    return torch.cat([means, covariance.flatten(1)], dim=1), weights
